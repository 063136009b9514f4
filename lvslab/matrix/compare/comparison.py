"""``matrix.compare``: the changes between two runs of a matrix, and their causes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count
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
"""Behaviour of a check, without regard to what was expected."""

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
            "cause": self.cause and asdict(self.cause),
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
        changes = [change.as_json() for change in self.changes]
        return {**vars(self), "counts": self.counts, "changes": changes}


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
    pairs = [(before.pop(_of_before(cell, replaced), None), result) for cell, result in after.items()]
    both = [(was, now) for was, now in pairs if was is not None]
    added = [now for was, now in pairs if was is None]
    found = _Comparing(
        old, new, [*both, *((was, None) for was in before.values()), *((None, now) for now in added)]
    )
    changes = [change for was, now in both for change in found.changes(was, now)]
    changes += [Change("new", now.cell, now.cell, "", "", now.verdict) for now in added]
    for cell, was in before.items():
        kind: Kind = "not done" if cell in left else "gone"
        changes.append(Change(kind, cell, left.get(cell, cell), "", was.verdict, ""))
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
    """Results of all cells in both runs, None for a cell without one."""

    old: Kept
    new: Kept
    pairs: Sequence[tuple[Result | None, Result | None]]

    def changes(self, was: Result, now: Result) -> Iterator[Change]:
        """Yield the changes of a cell."""

        def changed(
            kind: Kind, old: Outcome, new: Outcome, check: str = "", message: str = now.error
        ) -> Change:
            return Change(kind, was.cell, now.cell, check, old, new, message, self._cause(was, now, check))

        if now.flaky and not was.flaky:
            yield changed("flaky", was.verdict, now.verdict)
        if Outcome.ERROR in (was.verdict, now.verdict):
            if kind := kind_of(was.verdict, now.verdict):
                yield changed(kind, was.verdict, now.verdict)
            return
        before, after = _cases(was), _cases(now)
        for name, case in after.items():
            earlier = before.pop(name, None)
            if earlier is None:
                yield Change("new", was.cell, now.cell, name, "", case.verdict, case.message)
            elif kind := kind_of(earlier.verdict, case.verdict):
                yield changed(kind, earlier.verdict, case.verdict, name, case.message or earlier.message)
        for name, case in before.items():
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
        others = [
            (_observed(self.old, before, check), _observed(self.new, after, check))
            for before, after in self.pairs
            if after is not now and now.cell.lab in (each.cell.lab for each in (before, after) if each)
        ]
        return cause(old, new, others)


def _observed(kept: Kept, result: Result | None, check: str) -> Observed | None:
    if result is None:
        return None
    if not check:
        outcome = "error" if result.verdict is Outcome.ERROR or result.flaky else "runs"
        return Observed(kept.run, result, outcome)
    case = _cases(result).get(check)
    return None if case is None else Observed(kept.run, result, _BEHAVIOUR[case.verdict])


def _cases(result: Result) -> dict[str, Case]:
    """Checks by name; later ones of the same name (in other files) get a number."""
    found: dict[str, Case] = {}
    for case in result.cases:
        names = chain([case.name], (f"{case.name} ({number})" for number in count(2)))
        found[next(name for name in names if name not in found)] = case
    return found


def _replaced(before: Sequence[Cell], after: Sequence[Cell]) -> dict[str, tuple[str, str]]:
    """Find the old and new name of the kernel and the ipvsadm that were replaced."""
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
