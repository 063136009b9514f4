from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import BuildError
from lvslab.kernel import catalogue, patches

MAKEFILE = "all:\nconfig %config: scripts_basic FORCE\n/ %/: prepare FORCE\nname = Andr\xe9\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "copy").mkdir()
    (tmp_path / "tree/Makefile").write_text(MAKEFILE, "latin-1")
    return tmp_path / "tree"


def test_a_fix_is_made_in_the_copy_alone(tree: Path) -> None:
    (tree / "Makefile").chmod(0o640)
    copy = tree.parent / "copy"
    patches.apply(["mixed-rules"], tree, copy)
    changed = (copy / "Makefile").read_text("latin-1")
    assert changed == "all:\n%config: scripts_basic FORCE\n%/: prepare FORCE\nname = Andr\xe9\n"
    assert (tree / "Makefile").read_text("latin-1") == MAKEFILE
    about, before = (copy / "Makefile").stat(), (tree / "Makefile").stat()
    assert (about.st_mode, about.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_a_fix_that_is_in_the_tree_already_is_well(tree: Path) -> None:
    patches.apply(["mixed-rules"], tree, tree)
    fixed = (tree / "Makefile").read_bytes()
    patches.apply(["mixed-rules"], tree, tree)
    assert (tree / "Makefile").read_bytes() == fixed


def test_a_fix_that_does_not_fit_is_an_error(tree: Path) -> None:
    (tree / "Makefile").write_text("all:\n")
    with pytest.raises(BuildError, match=r"mixed-rules does not fit this tree: Makefile has no"):
        patches.apply(["mixed-rules"], tree, tree)
    with pytest.raises(BuildError, match=r"timeconst does not fit"):
        patches.apply(["timeconst"], tree, tree)


def test_every_fix_is_known_and_has_its_reason() -> None:
    assert all(fix.reason and (fix.edits or fix.host_flags) for fix in catalogue.fixes().values())
    for row in catalogue.kernels().values():
        assert set(row.fixes) <= set(catalogue.fixes()), row.name
    with pytest.raises(BuildError, match="no fix 'nothing'"):
        patches.host_flags(["nothing"])


def test_a_change_of_a_fix_changes_its_description() -> None:
    one, two = patches.described(["timeconst"]), patches.described(["timeconst", "mixed-rules"])
    assert one != two and "defined(@val)" in one
    assert patches.host_flags(["timeconst", "host-tools-limits"]) == [
        "-include",
        "limits.h",
        "-D_GNU_SOURCE",
    ]
