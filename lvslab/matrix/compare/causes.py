"""Find the cause of a change: the kernel, ipvsadm, the lab, or another factor.

The factors that differ between two results of a cell are recorded. If only one differs, it is the cause. If
several do, the other cells of both runs are searched, as in an experiment, for one in which one of these
factors differs and the rest do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvslab.matrix.compare.factors import Factor, Observed, described, differing, likeness

Pair = tuple[Observed | None, Observed | None]
"""Outcome of a check in one cell, in the old run and in the new one."""


@dataclass(frozen=True)
class Cause:
    """Possible causes of a change: none if no recorded factor differs, several if they cannot be told apart.

    ``why`` is the reasoning.
    """

    of: tuple[Factor, ...]
    why: str


def cause(old: Observed, new: Observed, others: Sequence[Pair]) -> Cause:
    """Find the cause of the change from ``old`` to ``new``.

    ``others`` are the outcomes of the same check in other cells, None where it was not made.
    """
    differ, unknown = differing(old, new)
    suspects = (*differ, *unknown)
    match suspects:
        case ():
            return Cause((), "nothing that is recorded differs, so it is chance, or time: repeat it")
        case (only,) if unknown:
            why = f"no checksum tells whether the {only} is the same, and nothing else differs"
            return Cause(suspects, why)
        case (only,):
            return Cause(suspects, f"only this differs: {described(only, old, new)}")
    for before, after in others:
        if before and after and (before.outcome, after.outcome) == (old.outcome, new.outcome):
            alone, unclear = differing(before, after)
            if len(alone) == 1 and not unclear and alone[0] in suspects:
                (only,) = alone
                if likeness(only, after, new) == likeness(only, before, old) == "same":
                    why = f"it did the same in {after.result.cell}, where only the {only} differs"
                    return Cause((only,), why)
    found = {suspect: _cleared(suspect, suspects, old, new, others) for suspect in suspects}
    left = tuple(suspect for suspect, why in found.items() if not why)
    reasons = "; ".join(filter(None, found.values()))
    differences = ", ".join(
        [described(each, old, new) for each in differ]
        + [f"{each} (not known: no checksum)" for each in unknown]
    )
    if len(left) == 1:
        return Cause(left, f"{differences}; but {reasons}")
    if left:
        apart = f"; of these it is not: {reasons}" if reasons else ""
        return Cause(left, f"cannot be told apart: {differences}{apart}")
    why = f"none of these alone, so several together, or chance: {differences}; {reasons}"
    return Cause(suspects, why)


def _cleared(
    suspect: Factor, suspects: Sequence[Factor], old: Observed, new: Observed, others: Sequence[Pair]
) -> str:
    """Evidence that ``suspect`` is not the cause, "" if there is none."""
    rest = [factor for factor in suspects if factor != suspect]
    for other in (each for pair in others for each in pair if each is not None):
        did = {"skipped": "is skipped", "error": "breaks"}.get(other.outcome, other.outcome)
        match likeness(suspect, other, old), likeness(suspect, other, new):
            case "different", "same" if other.outcome == old.outcome:
                return f"with this {suspect} it {did} in {other.result.cell}"
            case "same", "different" if other.outcome == new.outcome:
                if all(likeness(factor, other, new) == "same" for factor in rest):
                    return f"with the {suspect} of before it {did} as well in {other.result.cell}"
    return ""
