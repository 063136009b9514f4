"""tests/unit has the folders of lvslab: what a module's tests are called follows from where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.paths import PROJECT

OF_SEVERAL = {
    "check/schedulers/test_models.py",
    "check/schedulers/test_properties.py",
    "check/schedulers/test_schedulers.py",
    "check/test_former_names.py",
    "test_docs.py",
    "test_error_corpus.py",
    "test_imports.py",
    "test_layers.py",
    "test_mirror.py",
    "test_run_script.py",
}
"""Modules of tests that are of several modules, or of the whole project."""

TESTS = PROJECT / "tests/unit"


@pytest.mark.parametrize("tests", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.stem)
def test_a_module_of_tests_is_where_its_module_is(tests: Path) -> None:
    place = tests.relative_to(TESTS)
    tested = PROJECT / "lvslab" / place.with_name(place.name.removeprefix("test_"))
    if str(place) in OF_SEVERAL:
        assert not tested.exists(), f"{place} has a module: take it off the list"
    else:
        assert tested.exists() or tested.with_suffix("").is_dir(), f"there is no {tested}"
