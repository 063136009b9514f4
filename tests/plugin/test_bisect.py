"""Which checks ``kernel.try --select`` finds, asked of a pytest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import UsageError
from lvslab.kernel import supplied
from lvslab.matrix import bisect, cell
from lvslab.matrix.results import Cell, Result


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """The lab and the selection of each cell that was run; each of them passes."""
    cells: list[tuple[str, str]] = []

    def run(own: Cell, folder: Path, *, select: str, **_: object) -> Result:
        cells.append((own.lab, select))
        return Result(cell=own, verdict="passed", cases=(), error="", seconds=0.1)

    monkeypatch.setenv("LVSLAB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(cell, "run", run)
    monkeypatch.setattr(supplied, "usable", lambda path, **_: ("6.1", "Linux 6.1"))
    return cells


def test_only_labs_with_such_a_check_are_tried(tried: list[tuple[str, str]]) -> None:
    bisect.run(Path("bzImage"), labs=["many", "web-nat"], select="masquerades_what_ipvs")
    assert tried == [("web-nat", "masquerades_what_ipvs")]


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("no_such", "no check of many matches --select 'no_such'"),
        ("a b (", r"--select is 'a b \('.*Wrong expression"),
    ],
)
def test_a_selection_that_finds_nothing_is_no_answer(
    tried: list[tuple[str, str]], select: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        bisect.run(Path("bzImage"), labs=["many"], select=select)
    assert not tried
