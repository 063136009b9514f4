"""Features of the kernel and the ipvsadm of a lab's directors, by their versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lvslab.kernel import catalogue


def lacking(versions: Mapping[str, str], features: Iterable[str]) -> str | None:
    """Return why these ``versions`` (of kernel and ipvsadm) lack one of ``features``, or None.

    Raises UsageError for a feature that is not in the catalogue.
    """
    known = catalogue.features()
    for feature in features:
        program = "ipvsadm" if feature in known and known[feature].kind == "ipvsadm" else "kernel"
        if (reason := catalogue.lacking(versions.get(program, ""), feature)) is not None:
            return reason
    return None
