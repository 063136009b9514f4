from __future__ import annotations

from xml.etree import ElementTree

from lvslab.outcome import Outcome
from lvslab.report import junit
from lvslab.report.model import Report, ReportCase, Suite

REPORT = Report(
    "lvslab matrix",
    (
        Suite(
            "web-nat on 6.1",
            "web-nat.6.1",
            (
                ReportCase("howto.md", Outcome.PASSED, 1.5),
                ReportCase("test_a", Outcome.FAILED, 0.25, "3 instead of 4\n  see\x07", "director# a\n"),
                ReportCase("test_b", Outcome.EXPECTED_FAILURE, 0.0, "known bug x: it"),
                ReportCase("test_c", Outcome.UNEXPECTEDLY_PASSED, 0.0),
                ReportCase("test_d", Outcome.SKIPPED, 0.0, "no IPv6"),
                ReportCase("test_e", Outcome.ERROR, 0.0, "no memory"),
            ),
            2.0,
            {"kernel-version": "6.1.0"},
        ),
        Suite("web-nat on 6.2", "web-nat.6.2", (ReportCase("lab", Outcome.NOT_RUN, word="not done"),)),
    ),
    "2026-11-20T10:00:00+00:00",
)


def test_the_document() -> None:
    assert junit.document(REPORT).decode() == (
        """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="lvslab matrix" timestamp="2026-11-20T10:00:00+00:00" tests="7" failures="2" errors="1" """
        """skipped="3">
  <testsuite name="web-nat on 6.1" time="2.000" tests="6" failures="2" errors="1" skipped="2">
    <properties>
      <property name="kernel-version" value="6.1.0" />
    </properties>
    <testcase classname="web-nat.6.1" name="howto.md" time="1.500" />
    <testcase classname="web-nat.6.1" name="test_a" time="0.250">
      <failure message="3 instead of 4" type="failed">3 instead of 4
  see\\x07</failure>
      <system-out>director# a
</system-out>
    </testcase>
    <testcase classname="web-nat.6.1" name="test_b" time="0.000">
      <skipped message="known bug x: it" type="expected failure" />
    </testcase>
    <testcase classname="web-nat.6.1" name="test_c" time="0.000">
      <failure message="" type="unexpectedly passed" />
    </testcase>
    <testcase classname="web-nat.6.1" name="test_d" time="0.000">
      <skipped message="no IPv6" type="skipped" />
    </testcase>
    <testcase classname="web-nat.6.1" name="test_e" time="0.000">
      <error message="no memory" type="error" />
    </testcase>
  </testsuite>
  <testsuite name="web-nat on 6.2" time="0" tests="1" failures="0" errors="0" skipped="1">
    <properties />
    <testcase classname="web-nat.6.2" name="lab" time="0">
      <skipped message="" type="not done" />
    </testcase>
  </testsuite>
</testsuites>
"""
    )
    ElementTree.fromstring(junit.document(REPORT))
