from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.check.pytest_run import Case, Checked
from lvslab.errors import UsageError
from lvslab.outcome import Outcome
from lvslab.report import checks, formats
from lvslab.report.model import Report, ReportCase, Suite
from tests.unit.report.test_junit import REPORT


@pytest.mark.parametrize("name", formats.FORMATS)
def test_each_format_has_a_module_that_writes_it(name: str, tmp_path: Path) -> None:
    formats.write({name: tmp_path / "report"}, REPORT)
    content = (tmp_path / "report").read_bytes()
    assert content == formats.document(name, REPORT)
    assert b"3 instead of 4" in content
    assert formats.document(name, Report("nothing", ()))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    for file, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "no/junit.xml", f"there is no folder {tmp_path}/no"),
    ):
        with pytest.raises(UsageError) as before:
            formats.check_places({"junit": file})
        with pytest.raises(UsageError) as later:
            formats.write({"junit": file}, REPORT)
        assert str(before.value) == str(later.value)
        assert before.value.message == f"{file} cannot be written: {why}"
        assert before.value.hint == "--junit takes the name of a file"


def test_a_disk_that_is_full_is_no_traceback() -> None:
    with pytest.raises(UsageError, match="/dev/full cannot be written: No space left on device"):
        formats.write({"junit": Path("/dev/full")}, REPORT)


def test_the_report_of_a_check_run() -> None:
    found = (Case("test_a", Outcome.PASSED, 0.5, ""), Case("test_b", Outcome.EXPECTED_FAILURE, 1.0, "bug"))
    assert checks.report(Checked("web", "junit.xml", found, 0, {"longest": "1.03 s"})).suites == (
        Suite(
            "web",
            "web",
            (
                ReportCase("test_a", Outcome.PASSED, 0.5, word="passed"),
                ReportCase("test_b", Outcome.EXPECTED_FAILURE, 1.0, "bug", word="xfailed"),
            ),
            properties={"longest": "1.03 s"},
        ),
    )
