"""Text of ``howto.verify`` for people."""

from __future__ import annotations

from collections.abc import Sequence

from lvslab.apply.transcript import printable
from lvslab.apply.verdicts import StepVerdict
from lvslab.cli.text.layout import columns, indented
from lvslab.howto.results import OUTCOMES, OnKernel, Verified
from lvslab.outcome import STEPS, Outcome

_MARKS = {
    Outcome.PASSED: "ok",
    Outcome.FAILED: "FAILED",
    Outcome.EXPECTED_FAILURE: "expected",
    Outcome.NOT_RUN: "not run",
}
_MEANINGS = {
    "expected": "failed as the how-to says it does on these versions",
    "?": "took place after a step that failed or was not run, which may be the cause",
}
_TYPED = 60
"""Maximum number of characters of a command in a table."""
_OUTPUT = 20
"""Maximum number of lines of a failed step's output."""


def verified(result: Verified) -> str:
    """Kernels, steps with their verdicts, reasons, and the places of the evidence."""
    runs = result.runs
    first, many = runs[0], len(runs) > 1
    on = f" on {len(runs)} kernels" if many else ""
    parts = [f"{result.file}: {len(first.steps)} steps, in the lab {result.lab}{on}", _kernels(runs)]
    parts += [_table(runs) if many else _steps(first), _legend(runs)]
    parts += [f"{run.label}: the lab did not come up\n{indented(run.error)}" for run in runs if run.error]
    parts += _reasons(runs)
    if result.untyped:
        lines = ", ".join(map(str, result.untyped))
        parts.append(f"shell blocks without node=, and so not typed: lines {lines}")
    parts.append("\n".join(f"evidence: {run.evidence}" for run in runs if run.evidence))
    return "\n\n".join(part for part in parts if part)


def _kernels(runs: Sequence[OnKernel]) -> str:
    rows = [("kernel", *map(STEPS.word, OUTCOMES), "seconds", "versions")]
    for run in runs:
        versions = ", ".join(f"{program} {version}" for program, version in run.versions.items())
        counts = [str(count) for count in run.counts.values()]
        rows.append((run.label, *counts, f"{run.seconds:.1f}", versions or "-"))
    return columns(rows)


def _steps(run: OnKernel) -> str:
    rows = [("step", "line", "node", "verdict", "seconds", "typed")]
    for step in run.steps:
        seconds = "-" if step.verdict is Outcome.NOT_RUN else f"{step.seconds:.2f}"
        rows.append((*_place(step), _mark(step), seconds, _typed(step)))
    return columns(rows)


def _table(runs: Sequence[OnKernel]) -> str:
    """Commands, and below them the verdicts: a row for each step, a column for each kernel."""
    first = [("step", "line", "node", "typed"), *((*_place(step), _typed(step)) for step in runs[0].steps)]
    rows = zip(*(run.steps for run in runs), strict=True)
    second = [
        ("step", *(run.label for run in runs)),
        *((str(row[0].number), *map(_mark, row)) for row in rows),
    ]
    return f"{columns(first)}\n\n{columns(second)}"


def _place(step: StepVerdict) -> tuple[str, str, str]:
    return str(step.number), str(step.line), step.node


def _typed(step: StepVerdict) -> str:
    first, *more = printable(step.command).splitlines() or [""]
    return f"{first[:_TYPED]} ..." if more or len(first) > _TYPED else first


def _mark(step: StepVerdict) -> str:
    return _MARKS[step.verdict] + ("?" if step.doubtful else "")


def _legend(runs: Sequence[OnKernel]) -> str:
    marks = " ".join(_mark(step) for run in runs for step in run.steps)
    return "\n".join(f"{mark}: {meaning}" for mark, meaning in _MEANINGS.items() if mark in marks)


def _reasons(runs: Sequence[OnKernel]) -> list[str]:
    """Reasons of verdicts other than ok; the same reason on several kernels is one entry."""
    found: dict[tuple[int, str, str], list[tuple[str, StepVerdict]]] = {}
    for run in runs:
        for step in run.steps:
            if step.reason and not run.error:
                found.setdefault((step.number, step.verdict, step.reason), []).append((run.label, step))
    parts = []
    for (number, verdict, reason), where in sorted(found.items()):
        on = ", ".join(label for label, _ in where)
        printed = f"\n{indented(_printed(where[0][1]))}" if verdict == Outcome.FAILED else ""
        parts.append(f"step {number}, {verdict} on {on}: {printable(reason)}{printed}")
    return parts


def _printed(step: StepVerdict) -> str:
    lines = printable(step.output).splitlines()
    doubt = f"doubtful: step {step.doubtful} went wrong before it\n" if step.doubtful else ""
    if not lines:
        return f"{doubt}it printed nothing"
    many = f" {len(lines)} lines, the last {_OUTPUT} of them" if len(lines) > _OUTPUT else ""
    return "\n".join([f"{doubt}it printed{many}:", *(f"  {line}" for line in lines[-_OUTPUT:])])
