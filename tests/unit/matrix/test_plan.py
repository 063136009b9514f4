from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lvslab import paths
from lvslab.errors import UsageError
from lvslab.kernel import find as kernel
from lvslab.kernel import store
from lvslab.kernel.find import Kernel
from lvslab.matrix import plan
from lvslab.matrix.results import Cell, Result, Run
from tests.unit.kernel.images import image

OLD = Kernel("2.6.18", "2.6.18", Path("/x"), "", None, memory=64)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two kernels that need no package, and an empty store."""
    usual = kernel.find

    def find(name: str) -> Kernel:
        return replace(OLD, name=name) if name in ("2.6.18", "debian-cloud") else usual(name)

    monkeypatch.setattr(kernel, "find", find)
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))


def test_every_combination_once() -> None:
    found = plan.cells(
        ["2.6.18", "debian-cloud", "2.6.18"], ["1.29", "1.31"], ["web-nat", "many", "web-nat"]
    )
    assert len(found) == len(set(found)) == 8
    assert found[0] == Cell(lab="web-nat", kernel="2.6.18", ipvsadm="1.29")
    assert {cell.ipvsadm for cell in plan.cells(["2.6.18"], [], ["many"])} == {""}
    everything = plan.cells(["2.6.18"], [], ["all"])
    assert {cell.lab for cell in everything} >= {"web-nat", "many", "schedulers"}


def test_paths_are_those_of_every_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths.labs())
    (cell,) = plan.cells(["2.6.18"], [], ["./web-nat"])
    assert cell.lab == str(paths.labs() / "web-nat")


def test_a_kernel_of_this_folder_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vmlinuz-mine").write_bytes(image())
    (cell,) = plan.cells(["vmlinuz-mine"], [], ["web-nat"])
    assert cell.kernel == str(tmp_path / "vmlinuz-mine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (([], [], ["web-nat"]), "no kernel is given"),
        ((["2.6.19x"], [], ["web-nat"]), "no kernel '2.6.19x'"),
        ((["2.6.18"], ["1.99"], ["web-nat"]), "no ipvsadm '1.99'"),
        ((["2.6.18"], [], ["web-nut"]), "there is no lab 'web-nut'"),
        ((["store"], [], ["web-nat"]), "there is no kernel in the store"),
    ],
)
def test_names_that_do_not_exist(words: tuple[list[str], list[str], list[str]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan.cells(*words)


def test_a_lab_without_checks(tmp_path: Path) -> None:
    for name in ("lab.yaml", "howto.md"):
        (tmp_path / name).write_bytes((paths.labs() / "web-nat" / name).read_bytes())
    with pytest.raises(UsageError, match="there are no checks in"):
        plan.cells(["2.6.18"], [], [str(tmp_path)])


def test_all_kernels_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    def built(version: str, name: str) -> store.Built:
        about = dict.fromkeys(store.Manifest.__dataclass_fields__, "")
        return store.Built(Path(name), store.Manifest(**{**about, "version": version}))  # type: ignore[arg-type]

    there = (built("2.6.11", "2.6.11-a"), built("2.6.18", "2.6.18-a"), built("2.6.18", "2.6.18-b"))
    monkeypatch.setattr(store, "installed", lambda: there)
    found = plan.cells(["store"], [], ["web-nat"])
    assert [cell.kernel for cell in found] == ["2.6.11", "2.6.18-a", "2.6.18-b"]


def test_what_a_cell_needs() -> None:
    assert plan.need(Cell(lab="web-nat", kernel="2.6.18")) == 300 + 3 * 64 + 4 * 5
    assert plan.need(Cell(lab="many", kernel="2.6.18")) > 1000


@pytest.mark.parametrize(
    ("needs", "processors", "available", "fit"),
    [
        ([500] * 10, 4, 8000, 4),
        ([500] * 10, 64, 8000, 10),
        ([500] * 3, 4, 1000, 1),
        ([500] * 3, 4, 100, 1),  # one is tried in any case
        ([1500, 300, 300, 300], 4, 2000, 2),
        ([], 4, 2000, 1),
    ],
)
def test_how_many_fit(needs: list[int], processors: int, available: int, fit: int) -> None:
    assert plan.fit(needs, processors, available) == fit


def test_the_longest_come_first() -> None:
    web, many, old = (
        Cell(lab="web-nat", kernel="2.6.18"),
        Cell(lab="many", kernel="2.6.18"),
        Cell(lab="web-nat", kernel="2.6.11"),
    )
    earlier = [
        Run(begun="", cells=(web,), results=(Result(cell=web, verdict="passed", seconds=seconds),))
        for seconds in (90.0, 20.0)
    ]
    expected = plan.seconds([web, many, old], earlier)
    assert (expected[web], expected[old]) == (20.0, 20.0)
    assert expected[many] > 0
    assert plan.in_order([web, many], {web: 20.0, many: 40.0}) == [many, web]
    assert plan.in_order([web, old], {web: 20.0, old: 20.0}) == [web, old]
