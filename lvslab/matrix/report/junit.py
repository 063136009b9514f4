"""A run of a matrix as JUnit XML: a suite for each cell, and in it a case for each check."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from lvslab.check.pytest_plugin.figures import MEASURED
from lvslab.matrix.results import Case, Cell, Result, Run
from lvslab.outcome import Outcome
from lvslab.report import junit

_OUTCOMES: dict[Outcome, str] = {
    Outcome.ERROR: "error",
    Outcome.FAILED: "failure",
    Outcome.UNEXPECTEDLY_PASSED: "failure",
    Outcome.EXPECTED_FAILURE: "skipped",
    Outcome.SKIPPED: "skipped",
}
"""What each verdict is in JUnit's terms, which has no more; the verdict itself is the type."""


def document(run: Run) -> bytes:
    """The XML. A lab that itself broke is an error in a case of its own, "lab", and so is a cell that is not
    done a skipped one. Known bugs that are gone are failures, since they are to be taken out of the list."""
    results = {result.cell: result for result in run.results}
    root = Element("testsuites", name="lvslab matrix", timestamp=run.begun)
    for cell in dict.fromkeys([*run.cells, *results]):
        suite = _suite(run, results[cell]) if cell in results else _not_done(cell)
        tags = [outcome.tag for case in suite.iter("testcase") for outcome in case]
        suite.set("tests", str(len(suite.findall("testcase"))))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(key, str(tags.count(tag)))
        root.append(suite)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    return junit.written(root)


def _suite(run: Run, result: Result) -> Element:
    cell = result.cell
    suite = Element("testsuite", name=str(cell), time=f"{result.seconds:.3f}")
    about = {"lab": cell.lab, "kernel": cell.kernel, "ipvsadm": cell.ipvsadm, "verdict": result.verdict}
    about |= {"seed": str(result.seed), "attempts": str(result.attempts), "flaky": str(result.flaky).lower()}
    if result.flaky:
        about |= {"first-error": result.error}
    about |= {"accelerator": result.accelerator, "worker": result.worker}
    about |= {"evidence": result.evidence, "repeat": result.repeat}
    about |= {f"{program}-version": version for program, version in result.versions.items()}
    about |= {f"{part}-sha256": checksum for part, checksum in result.checksums.items()}
    about |= {f"machine-{name}": value for name, value in run.machine.items()}
    about |= {f"{MEASURED}{name}": figure for name, figure in result.measured.items()}
    junit.add_properties(suite, about)
    if result.verdict is Outcome.ERROR or not result.cases:
        case = Case(name="lab", verdict=result.verdict, seconds=0.0, message=result.error)
        suite.append(_case(cell, case))
    for case in result.cases:
        suite.append(_case(cell, case))
    return suite


def _case(cell: Cell, case: Case) -> Element:
    element = Element("testcase", classname=_group(cell), name=case.name, time=f"{case.seconds:.3f}")
    if tag := _OUTCOMES.get(case.verdict):
        reason = f"{case.bug}: {case.message}" if case.bug else case.message
        junit.add_outcome(element, tag, reason, kind=case.verdict)
    return element


def _not_done(cell: Cell) -> Element:
    suite = Element("testsuite", name=str(cell), time="0")
    junit.add_properties(suite, {"lab": cell.lab, "kernel": cell.kernel, "ipvsadm": cell.ipvsadm})
    case = SubElement(suite, "testcase", classname=_group(cell), name="lab", time="0")
    junit.add_outcome(case, "skipped", "not done: the run ended before", kind="not done")
    return suite


def _group(cell: Cell) -> str:
    return ".".join(filter(None, (cell.lab, cell.kernel, cell.ipvsadm)))
