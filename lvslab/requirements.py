"""The Debian packages that lvslab needs, off the lists that ``run`` reads too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Needed = Literal["packages.txt", "packages-build.txt"]


@dataclass(frozen=True)
class Need:
    """A package, the program or file (a pattern) that it brings, and what that is for."""

    package: str
    provides: str
    purpose: str


def listed(name: Needed) -> Iterator[Need]:
    """The rows of a list."""
    for line in (Path(__file__).parent / name).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            yield Need(*line.split(maxsplit=2))


def there(provides: str, path: str | None = None) -> bool:
    """Whether this machine has a program, in ``path`` where that is given in place of PATH, or a file."""
    if provides.startswith("/"):
        return any(Path("/").glob(provides[1:]))
    return shutil.which(provides, path=path) is not None


def package_of(provides: str) -> str:
    """The Debian package that brings a program or file of the lists; else one of its name."""
    for name in ("packages.txt", "packages-build.txt"):
        for need in listed(name):
            if need.provides == provides:
                return need.package
    return provides
