"""Apply the catalogue's fixes of stock trees.

They are made in a private copy, never in a user's tree. A fix that no longer finds what it changes is an
error, so that no tree passes for fixed that is not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import astuple
from pathlib import Path

from lvslab.errors import BuildError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Edit, Fix


def apply(names: Collection[str], tree: Path, copy: Path, *, strict: bool = True) -> None:
    """Apply the fixes to files of ``tree``, and write the results to ``copy``.

    Both may be the same folder. Raises BuildError where a fix does not find its place; unless ``strict``,
    that fix is left out.
    """
    for name in names:
        for edit in _fix(name).edits:
            _edit(name, edit, tree, copy, strict and not edit.sometimes)


def host_flags(names: Collection[str]) -> Sequence[str]:
    """Return the flags for the compiler of the build's own programs."""
    return [flag for name in names for flag in _fix(name).host_flags]


def described(names: Collection[str]) -> str:
    """Format the changes as text, for the key of a build."""
    return "\n".join(f"{name} {astuple(_fix(name))[2:]}" for name in names)


def _fix(name: str) -> Fix:
    if name not in catalogue.fixes():
        raise BuildError(f"no fix '{name}' is known", f"known: {', '.join(catalogue.fixes())}")
    return catalogue.fixes()[name]


def _edit(name: str, edit: Edit, tree: Path, copy: Path, needed: bool) -> None:
    written = copy / edit.file
    file = written if written.is_file() else tree / edit.file
    # Kernel sources of the time are not all UTF-8.
    text = file.read_text("latin-1") if file.is_file() else ""
    if edit.old in text:
        about = file.stat()
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text.replace(edit.old, edit.new), "latin-1")
        os.chmod(written, stat.S_IMODE(about.st_mode))
        os.utime(written, ns=(about.st_atime_ns, about.st_mtime_ns))
    elif edit.new not in text and needed:
        raise BuildError(
            f"the fix {name} does not fit this tree: {edit.file} has no {edit.old.strip()!r}",
            "a release of this series has it; is it changed in this tree?",
        )
