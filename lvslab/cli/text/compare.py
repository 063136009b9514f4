"""Text of ``matrix.report`` and ``matrix.compare`` for people."""

from __future__ import annotations

from collections.abc import Sequence

from lvslab.apply.transcript import printable
from lvslab.cli.text.layout import indented
from lvslab.matrix.compare.comparison import KINDS, Change, Comparison
from lvslab.matrix.report.html import reason_in
from lvslab.matrix.results import Run

_MEANINGS = {
    "worse": "got worse",
    "better": "got better",
    "flaky": "are flaky now: the lab broke the first time",
    "new": "are new",
    "gone": "are gone",
    "not done": "are not done yet in the new run",
}


def reported(run: Run, written: Sequence[str]) -> str:
    """Numbers of cells by verdict, and the files that were written."""
    counts = [f"{count} {verdict}" for verdict, count in run.counts.items() if count]
    if missing := len(set(run.cells) - {result.cell for result in run.results}):
        counts.append(f"{missing} not done")
    return "\n".join([f"{len(run.cells)} cells: {', '.join(counts)}", *written])


def compared(found: Comparison) -> str:
    """Changes by kind; a change in several cells is listed once."""
    both = f"{found.cells} cells and {found.checks} checks of them are in both"
    parts = [f"{both}\n  old {found.old}\n  new {found.new}"]
    parts += [f"{axis} {new} is compared with {old}" for axis, (old, new) in found.replaced.items()]
    if found.left:
        parts.append(f"the new run has not come to its end: {found.left} of its cells are not done")
    for kind in KINDS:
        if changes := [change for change in found.changes if change.kind == kind]:
            parts.append(f"{len(changes)} {_MEANINGS[kind]}\n{indented(_told(changes))}")
    if not found.changes:
        parts.append("nothing changed")
    return "\n\n".join(parts)


def _told(changes: Sequence[Change]) -> str:
    """List the changes; those that differ only in kernel or ipvsadm are one entry."""
    told: dict[tuple[str, ...], list[str]] = {}
    for change in changes:
        cell = change.cell
        what = f"{cell.lab} {change.check}".strip()
        verdicts = " -> ".join(filter(None, (change.old, change.new)))
        of = f"of: {_names(change.cause.of)}: {change.cause.why}" if change.cause else ""
        message = reason_in(change.message)
        if message and change.kind == "better":
            message = f"before: {message}"
        place = f"{cell.kernel} with ipvsadm {cell.ipvsadm}" if cell.ipvsadm else cell.kernel
        told.setdefault((f"{what}: {verdicts}", message, of), []).append(place)
    parts = []
    for (what, *details), places in told.items():
        lines = [f"on: {', '.join(places)}", *filter(None, details)]
        parts.append(printable("\n  ".join([what, *lines])))
    return "\n".join(parts)


def _names(of: Sequence[str]) -> str:
    return " or ".join(f"the {factor}" if factor != "lvslab" else factor for factor in of) or "nothing known"
