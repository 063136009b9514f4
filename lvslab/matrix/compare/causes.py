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
    suspects = [*differ, *unknown]
    if not suspects:
        return Cause((), "nothing that is recorded differs, so it is chance, or time: repeat it")
    if len(suspects) == 1:
        (only,) = suspects
        if unknown:
            return Cause(
                (only,), f"no checksum tells whether the {only} is the same, and nothing else differs"
            )
        return Cause((only,), f"only this differs: {described(only, old, new)}")
    if found := _same_elsewhere(suspects, old, new, others):
        return found
    cleared = {
        suspect: why for suspect in suspects if (why := _cleared(suspect, suspects, old, new, others))
    }
    left = tuple(suspect for suspect in suspects if suspect not in cleared)
    reasons = "; ".join(cleared.values())
    differences = _all_of(suspects, unknown, old, new)
    if len(left) == 1:
        return Cause(left, f"{differences}; but {reasons}")
    if left:
        apart = f"; of these it is not: {reasons}" if reasons else ""
        return Cause(left, f"cannot be told apart: {differences}{apart}")
    return Cause(
        tuple(suspects), f"none of these alone, so several together, or chance: {differences}; {reasons}"
    )


def _all_of(suspects: Sequence[Factor], unknown: Sequence[Factor], old: Observed, new: Observed) -> str:
    parts = [described(each, old, new) for each in suspects if each not in unknown]
    parts += [f"{each} (not known: no checksum)" for each in unknown]
    return ", ".join(parts)


def _same_elsewhere(
    suspects: Sequence[Factor],
    old: Observed,
    new: Observed,
    others: Sequence[Pair],
) -> Cause | None:
    """Find the suspect that alone differs in another cell in which the check changed in the same way."""
    for before, after in others:
        if before is None or after is None or (before.outcome, after.outcome) != (old.outcome, new.outcome):
            continue
        differ, unknown = differing(before, after)
        if len(differ) == 1 and not unknown and differ[0] in suspects:
            (only,) = differ
            if likeness(only, after, new) == "same" and likeness(only, before, old) == "same":
                return Cause(
                    (only,), f"it did the same in {after.result.cell}, where only the {only} differs"
                )
    return None


def _cleared(
    suspect: Factor,
    suspects: Sequence[Factor],
    old: Observed,
    new: Observed,
    others: Sequence[Pair],
) -> str:
    """Evidence that ``suspect`` is not the cause, "" if there is none."""
    for other in (each for pair in others for each in pair if each is not None):
        has_new = likeness(suspect, other, new) == "same"
        if has_new and likeness(suspect, other, old) == "different" and other.outcome == old.outcome:
            return f"with this {suspect} it {_came_to(other)} in {other.result.cell}"
        has_old = likeness(suspect, other, old) == "same"
        if has_old and likeness(suspect, other, new) == "different" and other.outcome == new.outcome:
            rest = [factor for factor in suspects if factor != suspect]
            if all(likeness(factor, other, new) == "same" for factor in rest):
                return f"with the {suspect} of before it {_came_to(other)} as well in {other.result.cell}"
    return ""


def _came_to(observed: Observed) -> str:
    return {"skipped": "is skipped", "error": "breaks"}.get(observed.outcome, observed.outcome)
