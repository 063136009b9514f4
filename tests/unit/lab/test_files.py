"""Where labs are, and how their files are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import UsageError
from lvslab.lab import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "lab.yaml").write_text("title: for a test\n")
    return tmp_path / "small"


def test_find(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labs = folder.parent
    (labs / "no-lab").mkdir()
    assert files.list_labs(labs) == ("small",)
    assert files.list_labs(labs / "nowhere") == ()
    assert files.find("small", labs) == folder
    monkeypatch.chdir(labs)
    assert files.find("./small", Path("nowhere")) == Path("small")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", "there is no lab 'smal'\n  did you mean 'small'? (known here: small)"),
        ("web", "there is no lab 'web'\n  known here: small"),
        ("..", "there is no lab '..'\n  known here: small"),
        ("./web", "./web is not a lab: it holds no lab.yaml"),
    ],
)
def test_an_unknown_lab(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        files.find(name, folder.parent)
    assert str(caught.value) == message
