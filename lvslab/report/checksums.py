"""Checksums of labs and of lvslab's code, by which two runs are compared."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from lvslab import paths


def of_folder(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of all files below ``folder``.

    Hidden files and folders, and what Python has compiled, are left out. Raises OSError.
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
    """Return the checksum of lvslab's own code at the first call in this process.

    A version number would not distinguish two checkouts of a repository.
    """
    return of_folder(paths.PROJECT / "lvslab")
