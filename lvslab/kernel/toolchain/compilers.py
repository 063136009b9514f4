"""The compiler for old kernels and the programs of their guests: names, states and builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lvslab.kernel import catalogue
from lvslab.kernel.toolchain import component, musl_programs
from lvslab.kernel.toolchain.component import Built, Component

GCC = "gcc-3.4.6"


def names() -> Sequence[str]:
    """Return the catalogue's names of all that can be built."""
    return [name for name in catalogue.sources() if Component(name).program in component.recipes()]


def listed() -> list[dict[str, Any]]:
    """Return all components for old kernels with their state, compiler and folder."""
    there = {built.name: built for built in component.installed()}
    return [_row(Component(name), there.get(name)) for name in names()]


def _row(part: Component, there: Built | None) -> dict[str, Any]:
    """Return the row of a component; ``there`` is built, maybe by an older recipe."""
    # A source without a checksum of ours is not downloaded to tell whether its key is still the same.
    known = there is not None and catalogue.source(part.source).sha256
    current = component.find(part) if known else there
    built = current or there
    return {
        "name": part.name,
        "what": part.recipe.what,
        "state": "not built" if built is None else "outdated" if current is None else "built",
        "seconds": built.seconds if built else None,
        "compiler": built.compiler if built else None,
        "folder": str(built.folder) if built else None,
    }


def usual() -> Sequence[str]:
    """Return the names of all that kernels before 3.0 and their guests need."""
    return [GCC, *(part.name for part in musl_programs.components())]


def build(wanted: Sequence[str]) -> Mapping[str, Built]:
    """Build the components of these names with all that they need. Raises UsageError for an unknown name."""
    for name in wanted:
        if name not in names():
            raise catalogue.unknown("toolchain", name, names())
    return {name: component.build(Component(name)) for name in wanted}
