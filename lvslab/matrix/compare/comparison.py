"""``matrix.compare``: the changes between two runs of a matrix, and their causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lvslab.errors import CheckFailed
from lvslab.matrix.compare.causes import Cause, cause
from lvslab.matrix.compare.factors import Factor, Observed, described, likeness
from lvslab.matrix.reading import Kept
from lvslab.matrix.results import Case, Cell, Result
from lvslab.outcome import Outcome

Kind = Literal["worse", "better", "flaky", "new", "gone", "not done"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BEST_FIRST = (
    Outcome.PASSED,
    Outcome.UNEXPECTEDLY_PASSED,
    Outcome.EXPECTED_FAILURE,
    Outcome.FAILED,
    Outcome.ERROR,
)
_BEHAVIOUR: Mapping[Outcome, str] = {
    Outcome.ERROR: "error",
    Outcome.FAILED: "fails",
    Outcome.UNEXPECTEDLY_PASSED: "passes",
    Outcome.EXPECTED_FAILURE: "fails",
    Outcome.PASSED: "passes",
    Outcome.SKIPPED: "skipped",
}
"""What a check did, whatever was expected."""

_JUDGED = "it does the same as before, and the known bugs say something else of it now"
_JUDGES: tuple[Factor, ...] = ("kernel", "ipvsadm", "lab")
"""What assigns a failure to a known bug, beside the list of bugs: the director's versions, and the lab's
markers of its checks and steps."""


@dataclass(frozen=True)
class Change:
    """Change of a cell, or of one ``check`` of it ("" for the whole cell).

    ``before`` is the cell of the old run, the same as ``cell`` unless its kernel or ipvsadm was replaced.
    ``old`` and ``new`` are verdicts, "" if there is none.
    """

    kind: Kind
    before: Cell
    cell: Cell
    check: str
    old: Outcome | Literal[""]
    new: Outcome | Literal[""]
    message: str = ""
    cause: Cause | None = None

    def as_json(self) -> dict[str, Any]:
        """The change in the document of ``--json``."""
        return {
            "kind": self.kind,
            **self.cell.model_dump(),
            "before": self.before.model_dump(),
            "check": self.check,
            "old": self.old,
            "new": self.new,
            "message": self.message,
            "cause": self.cause and {"of": list(self.cause.of), "why": self.cause.why},
        }


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison.

    ``replaced`` has the old and the new name of a kernel or ipvsadm that took another's place. ``cells`` and
    ``checks`` are the numbers of those in both runs; ``left`` is the number of cells that the new run has
    not tried yet.
    """

    old: str
    new: str
    cells: int
    checks: int
    left: int
    replaced: Mapping[str, tuple[str, str]]
    changes: tuple[Change, ...]

    @property
    def counts(self) -> dict[Kind, int]:
        """Number of changes by kind."""
        found = Counter(change.kind for change in self.changes)
        return {kind: found[kind] for kind in KINDS}

    @property
    def exit_code(self) -> int:
        """1 if something got worse, else 0."""
        return CheckFailed.exit_code if self.counts["worse"] else 0

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "old": self.old,
            "new": self.new,
            "cells": self.cells,
            "checks": self.checks,
            "left": self.left,
            "replaced": {axis: list(names) for axis, names in self.replaced.items()},
            "counts": self.counts,
            "changes": [change.as_json() for change in self.changes],
        }


def compare(old: Kept, new: Kept) -> Comparison:
    """Find the changes from ``old`` to ``new``.

    Cells are the same if lab, kernel and ipvsadm have the same names. If exactly one kernel of the old run
    is missing in the new one, and exactly one is new there, it was replaced, and their cells are compared.
    The same holds for ipvsadm. Cells that an interrupted new run has not tried are counted as left.
    """
    before = {result.cell: result for result in old.run.results}
    after = {result.cell: result for result in new.run.results}
    replaced = _replaced([*old.run.cells, *before], [*new.run.cells, *after])
    left = {_of_before(cell, replaced): cell for cell in new.run.cells if cell not in after}
    pairs = [(before.get(_of_before(cell, replaced)), result) for cell, result in after.items()]
    met = {was.cell for was, _ in pairs if was is not None}
    missing = [result for cell, result in before.items() if cell not in met]
    gone = [result for result in missing if result.cell not in left]
    both = [(was, now) for was, now in pairs if was is not None]
    added = [now for was, now in pairs if was is None]
    changes = [*_Comparing(old, new, both, missing, added).changes()]
    changes += [Change("new", now.cell, now.cell, "", "", now.verdict) for now in added]
    changes += [Change("gone", was.cell, was.cell, "", was.verdict, "") for was in gone]
    undone = ((was, left[was.cell]) for was in missing if was.cell in left)
    changes += [Change("not done", was.cell, cell, "", was.verdict, "") for was, cell in undone]
    changes.sort(key=lambda change: KINDS.index(change.kind))
    checks = sum(len(_cases(was).keys() & _cases(now).keys()) for was, now in both)
    return Comparison(
        str(old.folder), str(new.folder), len(both), checks, len(left), replaced, tuple(changes)
    )


def kind_of(old: Outcome, new: Outcome) -> Kind | None:
    """Classify the change of a check from ``old`` to ``new``; None if there is none.

    A skipped check does not run, so it is new or gone. But one that passed and is skipped now, or was
    skipped and fails now, is worse. Nothing is known about a cell that broke, so a failure after that is
    worse.
    """
    if old == new:
        return None
    if new is Outcome.SKIPPED:
        return "worse" if _BEHAVIOUR[old] == "passes" else "gone"
    if old is Outcome.SKIPPED:
        return "worse" if new in (Outcome.FAILED, Outcome.ERROR) else "new"
    if old is Outcome.ERROR:
        return "worse" if new.bad else "better"
    return "worse" if _BEST_FIRST.index(new) > _BEST_FIRST.index(old) else "better"


@dataclass(frozen=True)
class _Comparing:
    """Results of the cells in both runs, and of those in only one."""

    old: Kept
    new: Kept
    pairs: Sequence[tuple[Result, Result]]
    gone: Sequence[Result]
    added: Sequence[Result]

    def changes(self) -> Iterator[Change]:
        for was, now in self.pairs:
            if now.flaky and not was.flaky:
                first = self._cause(was, now, "")
                yield Change("flaky", was.cell, now.cell, "", was.verdict, now.verdict, now.error, first)
            if Outcome.ERROR in (was.verdict, now.verdict):
                if kind := kind_of(was.verdict, now.verdict):
                    why = self._cause(was, now, "")
                    yield Change(kind, was.cell, now.cell, "", was.verdict, now.verdict, now.error, why)
                continue
            yield from self._of_checks(was, now)

    def _of_checks(self, was: Result, now: Result) -> Iterator[Change]:
        before, after = _cases(was), _cases(now)
        for name, case in after.items():
            earlier = before.get(name)
            if earlier is None:
                yield Change("new", was.cell, now.cell, name, "", case.verdict, case.message)
            elif kind := kind_of(earlier.verdict, case.verdict):
                why = self._cause(was, now, name)
                message = case.message or earlier.message
                yield Change(kind, was.cell, now.cell, name, earlier.verdict, case.verdict, message, why)
        for name, case in before.items():
            if name not in after:
                yield Change("gone", was.cell, now.cell, name, case.verdict, "")

    def _cause(self, was: Result, now: Result, check: str) -> Cause:
        old, new = _observed(self.old, was, check), _observed(self.new, now, check)
        assert old is not None and new is not None
        if check and old.outcome == new.outcome:
            if likeness("lvslab", old, new) != "same":
                return Cause(("lvslab",), _JUDGED)
            judges = tuple(each for each in _JUDGES if likeness(each, old, new) != "same")
            if judges:
                told = ", ".join(described(each, old, new) for each in judges)
                return Cause(judges, f"it does the same as before, and is another bug now or none: {told}")
            return Cause((), "it does the same as before, and nothing that is recorded differs")
        lab = now.cell.lab
        others: list[tuple[Observed | None, Observed | None]] = [
            (_observed(self.old, before, check), _observed(self.new, after, check))
            for before, after in self.pairs
            if after.cell.lab == lab and after.cell != now.cell
        ]
        others += [(_observed(self.old, each, check), None) for each in self.gone if each.cell.lab == lab]
        others += [(None, _observed(self.new, each, check)) for each in self.added if each.cell.lab == lab]
        return cause(old, new, others)


def _observed(kept: Kept, result: Result, check: str) -> Observed | None:
    if not check:
        outcome = "error" if result.verdict is Outcome.ERROR or result.flaky else "runs"
        return Observed(kept.run, result, outcome)
    case = _cases(result).get(check)
    return None if case is None else Observed(kept.run, result, _BEHAVIOUR[case.verdict])


def _cases(result: Result) -> dict[str, Case]:
    """Checks by name; a number is added to later ones of the same name (in other files)."""
    found: dict[str, Case] = {}
    for case in result.cases:
        name, number = case.name, 1
        while name in found:
            number += 1
            name = f"{case.name} ({number})"
        found[name] = case
    return found


def _replaced(before: Sequence[Cell], after: Sequence[Cell]) -> dict[str, tuple[str, str]]:
    """Find the kernel and the ipvsadm of ``before`` that were replaced, and by what in ``after``."""
    found = {}
    for axis in ("kernel", "ipvsadm"):
        was, now = ({getattr(cell, axis) for cell in cells} for cells in (before, after))
        if len(was - now) == len(now - was) == 1:
            found[axis] = ((was - now).pop(), (now - was).pop())
    return found


def _of_before(cell: Cell, replaced: Mapping[str, tuple[str, str]]) -> Cell:
    """Cell of the old run to compare with ``cell`` of the new one."""
    changes = {axis: was for axis, (was, now) in replaced.items() if getattr(cell, axis) == now}
    return cell.model_copy(update=changes)
