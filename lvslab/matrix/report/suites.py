"""Report of a matrix: a suite for each cell, a case for each check."""

from __future__ import annotations

from lvslab.check.pytest_plugin.figures import MEASURED
from lvslab.matrix.results import Cell, Result, Run
from lvslab.outcome import CELLS, Outcome
from lvslab.report.model import Report, ReportCase, Suite


def report(run: Run) -> Report:
    """Results of a matrix. A lab that broke is an ERROR in a case of its own, "lab", beside its checks."""
    suites = tuple(_suite(run, cell, result) for cell, result in run.by_cell.items())
    return Report("lvslab matrix", suites, run.begun)


def _suite(run: Run, cell: Cell, result: Result | None) -> Suite:
    about: dict[str, str] = cell.model_dump()
    group = ".".join(filter(None, about.values()))
    if result is None:
        word, why = CELLS.word(Outcome.NOT_RUN), "not done: the run ended before"
        case = ReportCase("lab", Outcome.NOT_RUN, message=why, word=word)
        return Suite(str(cell), group, (case,), properties=about)
    about |= {"verdict": result.verdict.value, "seed": str(result.seed), "attempts": str(result.attempts)}
    about |= {"flaky": str(result.flaky).lower()} | ({"first-error": result.error} if result.flaky else {})
    about |= {"accelerator": result.accelerator, "worker": result.worker}
    about |= {"evidence": result.evidence, "repeat": result.repeat}
    about |= {f"{program}-version": version for program, version in result.versions.items()}
    about |= {f"{part}-sha256": checksum for part, checksum in result.checksums.items()}
    about |= {f"machine-{name}": value for name, value in run.machine.items()}
    about |= {f"{MEASURED}{name}": figure for name, figure in result.measured.items()}
    cases = []
    if result.verdict is Outcome.ERROR or not result.cases:
        cases.append(ReportCase("lab", result.verdict, 0.0, result.error))
    for each in result.cases:
        message = f"{each.bug}: {each.message}" if each.bug else each.message
        cases.append(ReportCase(each.name, each.verdict, each.seconds, message))
    return Suite(str(cell), group, tuple(cases), result.seconds, about)
