"""Factors that the outcome of a check depends on, and how they differ between two results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from lvslab.matrix.results import Result, Run

Factor = Literal[
    "kernel", "ipvsadm", "lab", "lvslab", "guest's image", "QEMU", "accelerator", "host's kernel"
]
"""``lab`` is the lab's folder (lab.yaml, how-to, tests); ``lvslab`` its own code, the checks of which labs
are made among it; ``guest's image`` is what a director has of modules and programs; ``host's kernel`` is the
one that Mininet hosts run on."""

FACTORS: tuple[Factor, ...] = get_args(Factor)

_CHECKSUMS: Mapping[Factor, tuple[str, ...]] = {
    "kernel": ("kernel", "config", "source"),
    "ipvsadm": ("ipvsadm",),
    "lab": ("lab",),
    "lvslab": ("lvslab",),
    "guest's image": ("image",),
}
_IN_IMAGE: tuple[Factor, ...] = ("kernel", "ipvsadm", "lvslab")
"""Factors that change the guest's image: if one of them differs, a different image says nothing."""

_Likeness = Literal["same", "different", "unknown"]


@dataclass(frozen=True)
class Observed:
    """Outcome of a check or of a whole cell, with its run and cell."""

    run: Run
    result: Result
    outcome: str


def differing(old: Observed, new: Observed) -> tuple[list[Factor], list[Factor]]:
    """Factors that differ, and those for which this is not known."""
    found = {factor: likeness(factor, old, new) for factor in FACTORS}
    if any(found[factor] == "different" for factor in _IN_IMAGE):
        found["guest's image"] = "same"
    return (
        [factor for factor, how in found.items() if how == "different"],
        [factor for factor, how in found.items() if how == "unknown"],
    )


def likeness(factor: Factor, one: Observed, other: Observed) -> _Likeness:
    """Compare a ``factor`` of both by its checksums.

    A version is not enough, since files may change without it, except for a released ipvsadm.
    """
    sums = [_checksums(factor, each) for each in (one, other)]
    versions = [_version(factor, each) for each in (one, other)]
    if any(sums[0][key] != sums[1][key] for key in sums[0].keys() & sums[1].keys()):
        return "different"
    if all(versions) and versions[0] != versions[1]:
        return "different"
    if sums[0].keys() & sums[1].keys():
        return "same"
    if factor == "guest's image":
        return "same"  # a director that is no guest has none
    released = factor == "ipvsadm" and "+tree" not in versions[0]
    told_by_version = released or factor not in _CHECKSUMS
    return "same" if told_by_version and versions[0] == versions[1] != "" else "unknown"


def described(factor: Factor, old: Observed, new: Observed) -> str:
    """Describe how ``factor`` differs: by its versions, or, if they are equal, by its checksums."""
    versions = [_version(factor, each) for each in (old, new)]
    if all(versions) and versions[0] != versions[1]:
        return f"{factor} {versions[0]}, now {versions[1]}"
    sums = [_checksums(factor, each) for each in (old, new)]
    for key in _CHECKSUMS.get(factor, ()):
        if sums[0].get(key) != sums[1].get(key):
            was, now = (found.get(key, "unknown")[:12] for found in sums)
            return f"{factor} (checksum{'' if key == factor else f' of {key}'} {was}, now {now})"
    return factor


def _checksums(factor: Factor, observed: Observed) -> dict[str, str]:
    found = observed.result.checksums
    return {key: found[key] for key in _CHECKSUMS.get(factor, ()) if found.get(key)}


def _version(factor: Factor, observed: Observed) -> str:
    """Version of ``factor`` for people, "" if it is not known."""
    versions, machine = observed.result.versions, observed.run.machine
    match factor:
        case "kernel" | "ipvsadm":
            return versions.get(factor, "")
        case "lvslab":
            return versions.get("lvslab") or machine.get("lvslab", "")
        case "QEMU":
            return versions.get("qemu") or machine.get("qemu", "")
        case "host's kernel":
            return machine.get("kernel", "")
        case "accelerator":
            return observed.result.accelerator
        case _:
            return ""
