"""Factors on which the outcome of a check depends, and their differences between two results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from lvslab.matrix.results import Result, Run

Factor = Literal[
    "kernel", "ipvsadm", "lab", "lvslab", "guest's image", "QEMU", "accelerator", "host's kernel"
]
"""``lab`` is the lab's folder (lab.yaml, how-to, tests); ``lvslab`` is its own code, and the checks in it;
``guest's image`` has a director's modules and programs; ``host's kernel`` is that of Mininet hosts."""

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

    def checksums(self, factor: Factor) -> dict[str, str]:
        """Known checksums of ``factor`` by name."""
        found = self.result.checksums
        return {key: found[key] for key in _CHECKSUMS.get(factor, ()) if found.get(key)}

    def version(self, factor: Factor) -> str:
        """Version of ``factor`` for people, "" if it is not known."""
        versions, machine = self.result.versions, self.run.machine
        match factor:
            case "kernel" | "ipvsadm":
                return versions.get(factor, "")
            case "lvslab" | "QEMU":
                name = factor.lower()
                return versions.get(name) or machine.get(name, "")
            case "host's kernel":
                return machine.get("kernel", "")
            case "accelerator":
                return self.result.accelerator
            case _:
                return ""


def differing(old: Observed, new: Observed) -> tuple[list[Factor], list[Factor]]:
    """Factors that differ, and those for which this is not known."""
    found = {factor: likeness(factor, old, new) for factor in FACTORS}
    if any(found[factor] == "different" for factor in _IN_IMAGE):
        found["guest's image"] = "same"
    different, unknown = (
        [factor for factor, how in found.items() if how == wanted] for wanted in ("different", "unknown")
    )
    return different, unknown


def likeness(factor: Factor, one: Observed, other: Observed) -> _Likeness:
    """Compare a ``factor`` of both by its checksums.

    A version is not enough, since files may change without it, except for a released ipvsadm.
    """
    sums, other_sums = one.checksums(factor), other.checksums(factor)
    version, other_version = one.version(factor), other.version(factor)
    both = sums.keys() & other_sums.keys()
    if any(sums[key] != other_sums[key] for key in both):
        return "different"
    if version and other_version and version != other_version:
        return "different"
    if both or factor == "guest's image":  # a director that is not a guest has none
        return "same"
    by_version = "+tree" not in version if factor == "ipvsadm" else factor not in _CHECKSUMS
    return "same" if by_version and version == other_version != "" else "unknown"


def described(factor: Factor, old: Observed, new: Observed) -> str:
    """Describe how ``factor`` differs: by its versions, or, if they are equal, by its checksums."""
    was, now = old.version(factor), new.version(factor)
    if was and now and was != now:
        return f"{factor} {was}, now {now}"
    sums, new_sums = old.checksums(factor), new.checksums(factor)
    for key in _CHECKSUMS.get(factor, ()):
        was, now = sums.get(key, "unknown"), new_sums.get(key, "unknown")
        if was != now:
            return f"{factor} (checksum{'' if key == factor else f' of {key}'} {was[:12]}, now {now[:12]})"
    return factor
