"""The option ``--slow`` of tests/conftest.py, in a pytest of its own."""

from __future__ import annotations

import pytest

from lvslab.paths import PROJECT

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(("options", "runs"), [((), "test_quick"), (("--slow",), "test_slow")])
def test_the_two_runs_share_out_the_tests(
    pytester: pytest.Pytester, options: tuple[str, ...], runs: str
) -> None:
    pytester.makeconftest((PROJECT / "tests/conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = slow")
    pytester.makepyfile(
        "import pytest\ndef test_quick(): pass\n@pytest.mark.slow\ndef test_slow(): pass\n",
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-v", *options)
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines([f"*::{runs} PASSED*"])
