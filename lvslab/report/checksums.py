"""Checksums of what a cell was checked by: what is equal in two runs is not what changed between them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from lvslab import paths


def of_folder(folder: Path) -> str:
    """SHA-256 of the names and the contents of all files below ``folder``, whatever their times and modes.

    Left out is what no lab is made of: hidden files and folders, and what Python has compiled. Raises
    OSError.
    """
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{content} {name.as_posix()}\0".encode())
    return total.hexdigest()


@cache
def of_lvslab() -> str:
    """That of lvslab's own code, as it was when this process first asked: a version number does not tell two
    checkouts of a repository apart."""
    return of_folder(paths.PROJECT / "lvslab")
