from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.check import pytest_run


def test_checks_are_run_and_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    suite = tmp_path / "lab"
    suite.mkdir()
    (suite / "test_it.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2\n")
    found = pytest_run.run(suite, "a", tmp_path / "junit.xml", quiet=True)
    assert [(case.name, case.outcome) for case in found.cases] == [
        ("test_good", "passed"),
        ("test_bad", "failed"),
    ]
    assert found.exit_code == 1
    printed = capfd.readouterr()
    # stdout is for the JSON document.
    assert printed.out == ""
    assert "1 failed, 1 passed" in printed.err
    assert "assert 1 == 2" in found.cases[1].message
