"""The verdicts on a how-to as JUnit XML: a suite for each kernel, and in it a case for each step."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from lvslab.apply.verdicts import StepVerdict
from lvslab.howto.results import OnKernel, Verified
from lvslab.outcome import Outcome
from lvslab.report import junit


def document(result: Verified) -> bytes:
    """The XML. An expected failure and a step that was not run are skipped cases, with the reason; a lab
    that did not come up is an error in a case of its own, "lab up". What was typed and printed is each
    case's system-out. What XML 1.0 does not take is shown as visible escapes."""
    root = Element("testsuites")
    for run in result.runs:
        root.append(_suite(result, run))
    return junit.written(root)


def _suite(result: Verified, run: OnKernel) -> Element:
    counts = run.counts
    suite = Element(
        "testsuite",
        name=f"{result.file} on {run.label}",
        tests=str(len(run.steps) + 1),
        failures=str(counts[Outcome.FAILED]),
        errors=str(int(bool(run.error))),
        skipped=str(counts[Outcome.EXPECTED_FAILURE] + counts[Outcome.NOT_RUN]),
        time=f"{run.seconds:.3f}",
    )
    about = {"lab": result.lab, "howto": result.file, "evidence": run.evidence}
    about |= {f"{program}-version": version for program, version in run.versions.items()}
    junit.add_properties(suite, about)
    group = f"{result.lab}.{run.label}"
    up = SubElement(suite, "testcase", classname=group, name="lab up", time="0")
    if run.error:
        junit.add_outcome(up, "error", run.error)
    for step in run.steps:
        suite.append(_case(group, step))
    return suite


def _case(group: str, step: StepVerdict) -> Element:
    typed = step.command.partition("\n")[0]
    name = f"step {step.number}, line {step.line}, on {step.node}: {typed}"
    case = Element("testcase", classname=group, name=name, time=f"{step.seconds:.3f}")
    if step.verdict is Outcome.FAILED:
        junit.add_outcome(case, "failure", step.reason)
    elif step.verdict is not Outcome.PASSED:
        junit.add_outcome(case, "skipped", step.reason, kind=step.verdict)
    if step.verdict is not Outcome.NOT_RUN:
        doubt = f"(doubtful: step {step.doubtful} went wrong before it)\n" if step.doubtful else ""
        SubElement(case, "system-out").text = f"{step.node}# {step.command}\n{step.output}{doubt}"
    return case
