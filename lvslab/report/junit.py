"""Reports as JUnit XML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from lvslab.apply.transcript import printable
from lvslab.outcome import Outcome
from lvslab.report.model import Report, ReportCase, Suite

_TAGS: Mapping[Outcome, str] = {
    Outcome.ERROR: "error",
    Outcome.FAILED: "failure",
    Outcome.UNEXPECTEDLY_PASSED: "failure",
    Outcome.EXPECTED_FAILURE: "skipped",
    Outcome.SKIPPED: "skipped",
    Outcome.NOT_RUN: "skipped",
}
"""Elements for outcomes. JUnit has no others, so the word for the outcome is the type of the element."""


def document(report: Report) -> bytes:
    """Write ``report`` as JUnit XML. Characters that XML 1.0 does not allow become visible escapes."""
    root = Element("testsuites", name=report.name)
    if report.begun:
        root.set("timestamp", report.begun)
    _count(root, [case for suite in report.suites for case in suite.cases])
    for suite in report.suites:
        root.append(_suite(suite))
    for element in root.iter():
        for key, value in element.items():
            element.set(key, printable(value))
        element.text = element.text and printable(element.text)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _suite(suite: Suite) -> Element:
    element = Element("testsuite", name=suite.name, time=_time(suite.seconds))
    _count(element, suite.cases)
    properties = SubElement(element, "properties")
    for name, value in suite.properties.items():
        SubElement(properties, "property", name=name, value=value)
    for case in suite.cases:
        about = {"classname": suite.group, "name": case.name, "time": _time(case.seconds)}
        child = SubElement(element, "testcase", about)
        if tag := _TAGS.get(case.outcome):
            first, _, more = case.message.partition("\n")
            ended = SubElement(child, tag, message=first, type=case.word or case.outcome)
            ended.text = case.message if more else None
        if case.output:
            SubElement(child, "system-out").text = case.output
    return element


def _count(element: Element, cases: Sequence[ReportCase]) -> None:
    """Set the numbers of cases as attributes."""
    tags = Counter(_TAGS.get(case.outcome, "") for case in cases)
    element.set("tests", str(len(cases)))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(key, str(tags[tag]))


def _time(seconds: float | None) -> str:
    return "0" if seconds is None else f"{seconds:.3f}"
