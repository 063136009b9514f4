"""The texts of commands are modules that are imported on first use."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.cli import text


def test_each_module_is_an_attribute() -> None:
    modules = {file.stem for file in Path(text.__file__).parent.glob("[!_]*.py")}
    assert set(text.__all__) == modules
    for name in modules:
        assert getattr(text, name).__name__ == f"lvslab.cli.text.{name}"


def test_another_attribute_is_an_error_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match=r"module 'lvslab\.cli\.text' has no attribute 'labs'"):
        text.labs  # type: ignore[attr-defined]  # noqa: B018
