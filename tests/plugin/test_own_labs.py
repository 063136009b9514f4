"""Tests with labs of their own beside those of the lab that is up."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.check import pytest_run
from lvslab.errors import CheckFailed, UsageError

pytest_plugins = ["pytester"]

SUITE = "def test_plain(): pass\ndef test_own(fresh_lab): pass\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "test_it.py").write_text(SUITE)
    return folder


def test_both_kinds_are_told_apart(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    found = pytester.runpytest_subprocess("-v", "--lab", "no-such-lab")
    found.assert_outcomes(passed=1, errors=1)
    found.stdout.fnmatch_lines(["*::test_plain PASSED *", "*::test_own ERROR in a lab of its own *"])
    found.stdout.fnmatch_lines(["no-such-lab: 1 passed", "labs of their own: 1 error"])


def test_without_a_lab_each_test_has_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): pass\n")
    found = pytester.runpytest_subprocess("-v")
    assert "of its own" not in found.stdout.str()
    refused = pytester.runpytest_subprocess("--here")
    refused.stderr.fnmatch_lines(["*--here is for a lab that is up: name it with --lab*"])


def test_those_with_a_lab_of_their_own_are_left_out(suite: Path, tmp_path: Path) -> None:
    def ran(**how: bool) -> list[tuple[str, bool]]:
        found = pytest_run.run(suite, "no-such-lab", tmp_path / "junit.xml", quiet=True, **how)
        return [(case.name, case.own_lab) for case in found.cases]

    assert ran() == [("test_plain", False), ("test_own", True)]
    assert ran(here=True) == [("test_plain", False)]
    (suite / "test_it.py").write_text("def test_own(fresh_lab): pass\n")
    with pytest.raises(CheckFailed, match=r"all checks of .* boot labs of their own"):
        ran(here=True)


@pytest.mark.parametrize(
    ("select", "says"), [("nothing", "matches no check"), ("a or", "is not an expression")]
)
def test_a_selection_of_nothing(suite: Path, tmp_path: Path, select: str, says: str) -> None:
    with pytest.raises(UsageError, match=f"--select '{select}' {says} of "):
        pytest_run.run(suite, "no-such-lab", tmp_path / "junit.xml", quiet=True, select=select)
    found = pytest_run.run(suite, "no-such-lab", tmp_path / "junit.xml", quiet=True, select="plain")
    assert [case.name for case in found.cases] == ["test_plain"]
