from __future__ import annotations

from pathlib import Path

import pytest

from lvslab import paths


@pytest.mark.parametrize(
    ("folder", "own", "xdg", "default"),
    [
        (paths.cache, "LVSLAB_CACHE", "XDG_CACHE_HOME", ".cache"),
        (paths.state, "LVSLAB_STATE", "XDG_STATE_HOME", ".local/state"),
    ],
)
def test_our_own_variable_then_xdg_then_home(
    folder: object, own: str, xdg: str, default: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(xdg, str(tmp_path / "xdg"))
    monkeypatch.setenv(own, str(tmp_path / "own" / ".." / "elsewhere"))
    assert folder() == tmp_path / "elsewhere"
    monkeypatch.delenv(own)
    assert folder() == tmp_path / "xdg" / "lvslab"
    monkeypatch.delenv(xdg)
    assert folder() == tmp_path / "home" / default / "lvslab"


def test_labs_are_in_the_project() -> None:
    assert paths.labs().parent == paths.PROJECT
    assert (paths.PROJECT / "lvslab" / "paths.py").is_file()
