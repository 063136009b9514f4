"""Report of a lab's checks."""

from __future__ import annotations

from lvslab.check.pytest_run import Checked
from lvslab.outcome import PYTEST
from lvslab.report.model import Report, ReportCase, Suite


def report(checked: Checked) -> Report:
    """Return the report of one lab's checks. Where pytest ran, it writes JUnit itself."""
    cases = tuple(
        ReportCase(case.name, case.outcome, case.seconds, case.message, word=PYTEST.word(case.outcome))
        for case in checked.cases
    )
    return Report("lvslab checks", (Suite(checked.name, checked.name, cases, properties=checked.measured),))
