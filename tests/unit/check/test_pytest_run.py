from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvslab.check import pytest_run
from lvslab.check.pytest_run import Case, Checked
from lvslab.outcome import Outcome

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" tests="5">
<testcase classname="t" name="test_good" time="0.25" />
<testcase classname="t" name="test_bad" time="1"><failure message="short">rs1 never answered
  is it up?</failure></testcase>
<testcase classname="t" name="test_ugly"><error message="only a message" /></testcase>
<testcase classname="t" name="test_no" time="0"><skipped message="no root">where</skipped></testcase>
<testcase classname="t" name="test_words" time="0"><system-out>printed</system-out></testcase>
</testsuite></testsuites>
"""


def test_cases_of_a_report(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    assert list(pytest_run.from_junit("a", tmp_path / "junit.xml", 1).cases) == [
        Case("test_good", Outcome.PASSED, 0.25, ""),
        Case("test_bad", Outcome.FAILED, 1.0, "rs1 never answered\n  is it up?"),
        Case("test_ugly", Outcome.ERROR, 0.0, "only a message"),
        Case("test_no", Outcome.SKIPPED, 0.0, "no root"),
        Case("test_words", Outcome.PASSED, 0.0, ""),
    ]


@pytest.mark.parametrize(("status", "exit_code"), [(0, 0), (1, 1), (2, 1), (4, 1), (5, 1)])
def test_a_check_is_fine_only_where_pytest_says_so(status: int, exit_code: int) -> None:
    assert Checked("a", "junit.xml", (), status).exit_code == exit_code


def test_a_check_as_json_has_every_count() -> None:
    case = Case("test_bad", Outcome.FAILED, 1.0, "why")
    found = Checked("a", "/junit.xml", (case,), 1, {"visits that fail": "6 of 18"})
    document = json.loads(json.dumps(found.as_json()))
    assert document == {
        "name": "a",
        "passed": 0,
        "failed": 1,
        "error": 0,
        "skipped": 0,
        "xfailed": 0,
        "xpassed": 0,
        "junit": "/junit.xml",
        "measured": {"visits that fail": "6 of 18"},
        "cases": [
            {
                "name": "test_bad",
                "outcome": "failed",
                "seconds": 1.0,
                "message": "why",
                "raised": "",
                "bug": "",
                "own_lab": False,
            }
        ],
    }
