from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import UsageError
from lvslab.kernel.toolchain import component, ipvsadm
from lvslab.kernel.toolchain.component import Built, Component
from lvslab.kernel.toolchain.ipvsadm import Ipvsadm


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "ipvsadm"
    folder.mkdir()
    (folder / "ipvsadm.c").touch()
    (folder / "VERSION").write_text("1.29\n")
    return folder


@pytest.mark.parametrize("version", ["1.24", "1.25", "1.26", "1.27", "1.28", "1.29", "1.30", "1.31"])
def test_a_version_has_one_source_and_two_recipes(version: str) -> None:
    old, today = ipvsadm.chosen(version), ipvsadm.chosen(version, "ipvsadm-today")
    assert {part.source for part in (old, today)} == {f"ipvsadm-{version}"}
    assert {part.version for part in (old, today)} == {version}
    assert (old.program, today.program) == ("ipvsadm", "ipvsadm-today")


def test_a_tree_by_its_path(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    for asked in (str(tree), "./ipvsadm", f"../{tree.parent.name}/ipvsadm"):
        part = ipvsadm.chosen(asked, "ipvsadm-today")
        assert part == Component("ipvsadm-today-tree", tree)
        assert part.version == "1.29+tree"


def test_a_version_is_none_of_the_folders_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.31").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert ipvsadm.chosen("1.31").tree is None
    with pytest.raises(UsageError, match="no ipvsadm 'mine'") as caught:
        ipvsadm.chosen("mine")
    assert caught.value.hint == "the path of a folder holds a slash: ./mine"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("1.32", "did you mean 1.31"), ("ipvsadm-1.27", "did you mean 1.27"), ("x", "there are")],
)
def test_an_unknown_version(asked: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"^no ipvsadm '{asked}'") as caught:
        ipvsadm.chosen(asked)
    assert (caught.value.hint or "").startswith(hint)
    assert "today" not in str(caught.value)


@pytest.mark.parametrize("asked", ["/nowhere/at/all", "."])
def test_a_path_of_something_else(asked: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not ipvsadm's source"):
        ipvsadm.chosen(f"{tmp_path}/{asked}")


def test_what_is_built_for_guests_of_today(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(part: Component) -> Built:
        assert (part.program, part.tree) == ("ipvsadm-today", tree)
        files = {"build.log": "aa", "ipvsadm": "bb"}
        return Built(tmp_path, part.name, "key", "source", files, "gcc", 1.0, 2)

    monkeypatch.setattr(component, "build", build)
    assert ipvsadm.today(str(tree)) == Ipvsadm(tmp_path / "ipvsadm", "bb", "1.29+tree")
