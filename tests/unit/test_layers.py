"""Imports only point down the house, and never in a circle (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from lvslab.paths import PROJECT

# From the ground up: a folder may import those above it in this list. Modules at the root are the ground.
FLOORS = (
    "lvslab",
    "lvslab.lab",
    "lvslab.cache",
    "lvslab.debian",
    "lvslab.kernel",
    "lvslab.guest",
    "lvslab.boot",
    "lvslab.apply",
    "lvslab.cluster",
    "lvslab.check",
    "lvslab.drawing",
    "lvslab.report",
    "lvslab.commands",
    "lvslab.howto",
    "lvslab.matrix",
    "lvslab.cli",
    "tasks",
)
MOST_MODULES = 14
"""Maximum number of modules in one folder, ``__init__`` not counted."""


def name_of(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


ROOMS: Mapping[str, Path] = {
    name_of(file): file for file in sorted([*(PROJECT / "lvslab").rglob("*.py"), PROJECT / "tasks.py"])
}


def floor(room: str) -> int:
    """Index in FLOORS of the module or folder that ``room`` belongs to."""
    first_two = ".".join(room.split(".")[:2])
    return FLOORS.index(first_two if first_two in FLOORS else "lvslab")


def test_every_folder_is_a_floor() -> None:
    folders = {f"lvslab.{place.parent.name}" for place in (PROJECT / "lvslab").glob("*/__init__.py")}
    assert folders == {each for each in FLOORS if each in folders}


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in ROOMS.values()}), ids=lambda path: path.name
)
def test_a_folder_is_small(folder: Path) -> None:
    modules = [file.name for file in folder.glob("*.py") if file.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES, modules


def imports(room: str, text: str) -> Iterator[str]:
    """The rooms that ``room`` imports anywhere, for type checking and inside of functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in ROOMS)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room} has a relative import"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in ROOMS else str(node.module) for name in below)


def with_folders(room: str, used: str) -> Iterator[str]:
    """``used`` and the folders round it that are not round ``room``, which Python imports first."""
    while used and not f"{room}.".startswith(f"{used}."):
        yield used
        used = used.rpartition(".")[0]


USED = {
    room: {
        each
        for used in imports(room, file.read_text())
        if used in ROOMS and used != room
        for each in (used, *with_folders(room, used))
    }
    for room, file in ROOMS.items()
}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room: str) -> None:
    up = {used for used in USED[room] if floor(used) > floor(room)}
    assert not up, f"{room} imports upwards: {', '.join(sorted(up))}"


def test_there_is_no_circle() -> None:
    try:
        TopologicalSorter(USED).prepare()
    except CycleError as error:
        circle = error.args[1]
        pytest.fail("a circle: " + " <- ".join(circle))


def test_what_an_import_is() -> None:
    text = """
from __future__ import annotations
import os, lvslab.paths
from lvslab.cluster import cluster
from lvslab.cache.store import write
from lvslab.lab import loader
if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed
def late():
    from lvslab.boot import plan
"""
    found = [used for used in imports("somewhere", text) if used in ROOMS]
    assert sorted(found) == [
        "lvslab.boot.plan",
        "lvslab.cache.store",
        "lvslab.check.testbed",
        "lvslab.cluster.cluster",
        "lvslab.lab.loader",
        "lvslab.paths",
    ]
