from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from invoke import Context

from lvslab.cli import report_options
from lvslab.cli.program import Group, LabProgram
from lvslab.cli.report_options import NO_REPORTS
from lvslab.report import formats
from lvslab.report.formats import Places


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command that writes reports, with one more format; its arguments as it got them."""
    monkeypatch.setattr(report_options, "FORMATS", {**formats.FORMATS, "tap": "the Test Anything Protocol"})
    found: list[tuple[str, Places, bool]] = []
    group = Group("lab")

    @group.task(reports="default: with the evidence", help={"name": "a name", "json": "JSON"})
    def check(c: Context, name: str = "", reports: Places = NO_REPORTS, json: bool = False) -> None:
        """Check."""
        found.append((name, reports, json))

    def run(*words: str) -> list[tuple[str, Places, bool]]:
        assert LabProgram(group).status_of(["./run", *words]) == 0
        return found

    return run


def test_each_format_is_an_option(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--tap", "a.tap", "--name", "x", "--junit=b.xml", "--json") == [
        ("x", {"junit": Path("b.xml"), "tap": Path("a.tap")}, True)
    ]
    assert run("check")[1] == ("", {}, False)
    run("--help", "check")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("--")][:4] == [
        "--name=NAME a name",
        "--junit=JUNIT where to write JUnit XML (default: with the evidence)",
        "--tap=TAP where to write the Test Anything Protocol (default: nowhere)",
        "--json JSON",
    ]
