from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lvslab.errors import UsageError
from lvslab.kernel import tree as kernel_tree


def a_tree(
    folder: Path, makefile: str = "VERSION = 2\nPATCHLEVEL = 6\nSUBLEVEL = 18\nEXTRAVERSION =\n"
) -> Path:
    (folder / "arch").mkdir(parents=True)
    for name in ("kernel", "init"):
        (folder / name).mkdir()
    (folder / "init/main.c").touch()
    (folder / "Makefile").write_text(makefile)
    (folder / "kernel/fork.c").write_text("int fork;\n")
    return folder


@pytest.mark.parametrize(
    ("makefile", "version"),
    [
        ("VERSION = 2\nPATCHLEVEL = 4\nSUBLEVEL = 37\nEXTRAVERSION = .11\n", "2.4.37.11"),
        ("VERSION = 2\nPATCHLEVEL = 6\nSUBLEVEL = 18\nEXTRAVERSION =\nNAME=Avast! A bilge rat!\n", "2.6.18"),
        ("# SPDX\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 0\nEXTRAVERSION = -rc3\n", "6.1-rc3"),
        ("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 176\nEXTRAVERSION =\n", "6.1.176"),
    ],
)
def test_a_tree_says_its_version(tmp_path: Path, makefile: str, version: str) -> None:
    assert kernel_tree.version(a_tree(tmp_path / "t", makefile)) == version


def test_what_is_no_kernels_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        kernel_tree.version(tmp_path / "nothing")
    with pytest.raises(UsageError, match="it has no Makefile"):
        kernel_tree.version(tmp_path)
    (tmp_path / "Makefile").write_text("all:\n\tcc -o a a.c\n")
    with pytest.raises(UsageError, match="its Makefile names no version"):
        kernel_tree.version(tmp_path)
    with pytest.raises(UsageError, match="its Makefile names no version"):
        kernel_tree.version(a_tree(tmp_path / "words", "VERSION = foo\nPATCHLEVEL = bar\nSUBLEVEL = 0\n"))
    loader = a_tree(tmp_path / "u-boot", "VERSION = 2024\nPATCHLEVEL = 01\nSUBLEVEL =\nEXTRAVERSION =\n")
    (loader / "init/main.c").unlink()
    with pytest.raises(UsageError, match=r"is not a source tree of Linux: it has no init/main\.c"):
        kernel_tree.version(loader)


def test_a_tree_that_was_built_in_is_known(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "t")
    assert not kernel_tree.was_built_in(tree)
    (tree / ".config").touch()
    assert kernel_tree.was_built_in(tree)


def test_the_image_is_found_where_its_time_puts_it(tmp_path: Path) -> None:
    assert kernel_tree.image(tmp_path) is None
    for arch in ("i386", "x86"):
        (tmp_path / "arch" / arch / "boot").mkdir(parents=True)
        (tmp_path / "arch" / arch / "boot/bzImage").touch()
        assert kernel_tree.image(tmp_path) == tmp_path / "arch" / arch / "boot/bzImage"


def test_a_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "t")
    seen = {kernel_tree.fingerprint(tree)}
    assert kernel_tree.fingerprint(tree) in seen
    (tree / "kernel/new.c").touch()
    seen.add(kernel_tree.fingerprint(tree))
    os.utime(tree / "kernel/fork.c", ns=(0, 1))
    seen.add(kernel_tree.fingerprint(tree))
    (tree / "kernel/link.c").symlink_to("fork.c")
    seen.add(kernel_tree.fingerprint(tree))
    (tree / "kernel/new.c").unlink()
    seen.add(kernel_tree.fingerprint(tree))
    assert len(seen) == 5


def git(tree: Path, *words: str) -> None:
    name = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    subprocess.run(["git", *name, *words], cwd=tree, check=True, capture_output=True)


def test_a_fingerprint_of_a_work_tree_is_of_what_git_sees(tmp_path: Path) -> None:
    tree = a_tree(tmp_path / "t")
    (tree / ".gitignore").write_text("*.o\n")
    git(tree, "init")
    git(tree, "add", ".")
    git(tree, "commit", "-m", "first")
    seen = {kernel_tree.fingerprint(tree)}
    (tree / "kernel/fork.o").touch()  # what git ignores
    os.utime(tree / "kernel/fork.c", ns=(0, 1))  # as a check-out does, without another content
    assert kernel_tree.fingerprint(tree) in seen
    (tree / "kernel/fork.c").write_text("int spoon;\n")
    seen.add(kernel_tree.fingerprint(tree))
    (tree / "kernel/new.c").touch()
    seen.add(kernel_tree.fingerprint(tree))
    git(tree, "add", ".")
    git(tree, "commit", "-m", "second")
    seen.add(kernel_tree.fingerprint(tree))
    assert len(seen) == 4
