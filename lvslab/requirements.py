"""Packages that lvslab needs on this machine, by the names of its distribution.

The lists of packages and the distributions (``host/ID.txt``) are files that ``run`` reads too.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Needed = Literal["packages.txt", "packages-build.txt"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Need:
    """A package, the program or file (a pattern) that it provides, and its purpose."""

    package: str
    provides: str
    purpose: str


@dataclass(frozen=True)
class Distribution:
    """A distribution of the user's machine; ``host/debian.txt`` says what the fields are.

    ``packages`` are by Debian's name: the name here, and the file if that is another one.
    """

    name: str
    advice: str
    guests: str | None = None
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def os_release() -> Mapping[str, str]:
    """Return the fields of this machine's /etc/os-release, which is read once."""
    return _os_release(_os_release_file())


def distribution() -> Distribution:
    """Return this machine's distribution; Debian for one that lvslab does not know."""
    return _distribution(_os_release_file())


def _os_release_file() -> Path:
    return Path(os.environ.get("LVSLAB_OS_RELEASE", "/etc/os-release"))


@cache
def _os_release(file: Path) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in file.read_text().splitlines() if not line.startswith("#"))
    return MappingProxyType({name: "".join(shlex.split(value)) for name, equals, value in pairs if equals})


@cache
def _distribution(file: Path) -> Distribution:
    fields = _os_release(file)
    ids = [*f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split(), "debian"]
    files = (_HERE / "host" / f"{name}.txt" for name in ids)
    values: dict[str, str] = {}
    packages = {}
    for line in next(file for file in files if file.exists()).read_text().splitlines():
        word, _, value = line.partition(" ")
        if word == "package":
            called, *here = value.split()
            packages[called] = tuple(here)
        elif word and word != "#":
            values[word] = value.strip()
    return Distribution(values["name"], values["advice"], values.get("guests"), packages)


def listed(name: Needed) -> Iterator[Need]:
    """Read a list of packages, with their names on this machine's distribution."""
    called = distribution().packages
    for line in (_HERE / name).read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            package, provides, purpose = line.split(maxsplit=2)
            here = called.get(package, (package,))
            yield Need(here[0], here[1] if len(here) > 1 else provides, purpose)


def there(provides: str, path: str | None = None) -> bool:
    """Return whether this machine has a program (in ``path`` instead of PATH) or file."""
    if provides.startswith("/"):
        return any(Path("/").glob(provides[1:]))
    return shutil.which(provides, path=path) is not None


def install(*wanted: str) -> str:
    """Return the command that installs packages, given by name, program or file."""
    names: tuple[Needed, ...] = ("packages.txt", "packages-build.txt")
    packages = {need.provides: need.package for name in names for need in listed(name)}
    return " ".join([distribution().advice, *dict.fromkeys(packages.get(each, each) for each in wanted)])
