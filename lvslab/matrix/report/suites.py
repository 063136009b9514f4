"""Report of a matrix: a suite for each cell, a case for each check."""

from __future__ import annotations

from lvslab.check.pytest_plugin.figures import MEASURED
from lvslab.matrix.results import Case, Cell, Result, Run
from lvslab.outcome import CELLS, Outcome
from lvslab.report.model import Report, ReportCase, Suite


def report(run: Run) -> Report:
    """Results of a matrix. A lab that broke is an ERROR in a case of its own, "lab", beside its checks."""
    results = {result.cell: result for result in run.results}
    suites = [
        _suite(run, results[cell]) if cell in results else _not_done(cell)
        for cell in dict.fromkeys([*run.cells, *results])
    ]
    return Report("lvslab matrix", tuple(suites), run.begun)


def _suite(run: Run, result: Result) -> Suite:
    cell = result.cell
    about = {
        "lab": cell.lab,
        "kernel": cell.kernel,
        "ipvsadm": cell.ipvsadm,
        "verdict": result.verdict.value,
    }
    about |= {"seed": str(result.seed), "attempts": str(result.attempts), "flaky": str(result.flaky).lower()}
    if result.flaky:
        about |= {"first-error": result.error}
    about |= {"accelerator": result.accelerator, "worker": result.worker}
    about |= {"evidence": result.evidence, "repeat": result.repeat}
    about |= {f"{program}-version": version for program, version in result.versions.items()}
    about |= {f"{part}-sha256": checksum for part, checksum in result.checksums.items()}
    about |= {f"machine-{name}": value for name, value in run.machine.items()}
    about |= {f"{MEASURED}{name}": figure for name, figure in result.measured.items()}
    cases = [_case(case) for case in result.cases]
    if result.verdict is Outcome.ERROR or not cases:
        cases.insert(0, ReportCase("lab", result.verdict, 0.0, result.error))
    return Suite(str(cell), _group(cell), tuple(cases), result.seconds, about)


def _case(case: Case) -> ReportCase:
    message = f"{case.bug}: {case.message}" if case.bug else case.message
    return ReportCase(case.name, case.verdict, case.seconds, message)


def _not_done(cell: Cell) -> Suite:
    about = {"lab": cell.lab, "kernel": cell.kernel, "ipvsadm": cell.ipvsadm}
    word, why = CELLS.word(Outcome.NOT_RUN), "not done: the run ended before"
    case = ReportCase("lab", Outcome.NOT_RUN, message=why, word=word)
    return Suite(str(cell), _group(cell), (case,), properties=about)


def _group(cell: Cell) -> str:
    return ".".join(filter(None, (cell.lab, cell.kernel, cell.ipvsadm)))
