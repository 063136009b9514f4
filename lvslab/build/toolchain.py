"""The compiler for old kernels: gcc 3.4.6 for i386, with the machine's own assembler and linker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvslab.build import catalogue, component, old_userland
from lvslab.build.component import Built, Component

GCC = "gcc-3.4.6"


@dataclass(frozen=True)
class Toolchain:
    """A compiler: the folder it is in, the prefix of its programs (CROSS_COMPILE), its name, and a checksum
    of its source and recipe."""

    prefix: Path
    cross: str
    name: str
    key: str


def gcc_346() -> Toolchain:
    """gcc 3.4.6 for i386, built if it is not there. Raises MachineError, BuildError."""
    built = component.build(Component(GCC))
    return Toolchain(built.folder, str(built.folder / "bin/i686-linux-gnu-"), built.name, built.key)


def names() -> Sequence[str]:
    """What can be built, by its name in the catalogue."""
    return [name for name in catalogue.sources() if Component(name).program in component.recipes()]


def listed() -> list[dict[str, Any]]:
    """What can be built for old kernels and what of it is there, with what it was built with and where."""
    there = {built.name: built for built in component.installed()}
    return [_row(name, there.get(name)) for name in names()]


def _row(name: str, built: Built | None) -> dict[str, Any]:
    # A source without a checksum of ours is not downloaded to tell whether its key is still the same.
    current = built is not None and (
        not catalogue.source(name).sha256 or component.find(Component(name)) is not None
    )
    return {
        "name": name,
        "what": Component(name).recipe.what,
        "state": "not built" if built is None else "built" if current else "outdated",
        "seconds": built.seconds if built else None,
        "compiler": built.compiler if built else None,
        "folder": str(built.folder) if built else None,
    }


def usual() -> Sequence[str]:
    """The names of all that kernels before 3.0 and their guests need."""
    return [GCC, *(part.name for part in old_userland.components())]


def build(wanted: Sequence[str]) -> Mapping[str, Built]:
    """The components of these names, with all that they need. Raises UsageError for an unknown name."""
    for name in wanted:
        if name not in names():
            raise catalogue.unknown("toolchain", name, names())
    return {name: component.build(Component(name)) for name in wanted}
