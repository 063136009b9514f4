"""Imports only point down the house, and never in a circle (design.md: the house)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from lvslab.paths import PROJECT

# From the ground up. Rooms of one floor may use each other, as long as that makes no circle.
FLOORS = (
    (
        "lvslab",
        "lvslab.errors",
        "lvslab.groups",
        "lvslab.paths",
        "lvslab.pcapng",
        "lvslab.requirements",
        "lvslab.run",
        "lvslab.signals",
        "lvslab.stand_in",
    ),
    ("lvslab.schema", "lvslab.spec", "lvslab.topology", "lvslab.zone_file"),
    ("lvslab.build.*",),
    ("lvslab.boot.*",),
    ("lvslab.apply.*",),
    ("lvslab.cluster", "lvslab.lab_folder", "lvslab.planning", "lvslab.running"),
    ("lvslab.check.*", "lvslab.check.schedulers.*"),
    ("lvslab.checked",),
    (
        "lvslab.capture",
        "lvslab.howto_junit",
        "lvslab.howto_results",
        "lvslab.howto_verify",
        "lvslab.junit",
        "lvslab.lab",
        "lvslab.metrics",
        "lvslab.review",
        "lvslab.terminal",
    ),
    ("lvslab.regress.*",),
    ("lvslab.light_invoke",),
    (
        "lvslab.bench",
        "lvslab.bench_builds",
        "lvslab.bench_matrix",
        "lvslab.command_line",
        "lvslab.doctor",
        "lvslab.folded",
        "lvslab.howto_tasks",
        "lvslab.kernel_tasks",
        "lvslab.program",
        "lvslab.regress_tasks",
        "lvslab.review_run",
        "lvslab.show",
        "lvslab.show_compare",
        "lvslab.show_howto",
        "lvslab.show_kernels",
        "lvslab.show_matrix",
        "lvslab.show_review",
        "lvslab.show_watch",
    ),
    ("tasks",),
)


def name_of(file: Path) -> str:
    parts = file.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


ROOMS: Mapping[str, Path] = {
    name_of(file): file for file in sorted([*(PROJECT / "lvslab").rglob("*.py"), PROJECT / "tasks.py"])
}


def floor(room: str) -> int:
    for number, rooms in enumerate(FLOORS):
        if room in rooms or f"{room.rpartition('.')[0]}.*" in rooms or f"{room}.*" in rooms:
            return number
    raise AssertionError(f"{room} is on no floor: add it to FLOORS, where design.md wants it")


def imports(room: str, text: str) -> Iterator[str]:
    """The rooms that ``room`` imports anywhere, for type checking and inside of functions too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in ROOMS)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room} has a relative import"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in ROOMS else str(node.module) for name in below)


USED = {
    room: {used for used in imports(room, file.read_text()) if used in ROOMS and used != room}
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


def test_every_floor_has_rooms() -> None:
    assert {floor(room) for room in ROOMS} == set(range(len(FLOORS)))


def test_what_an_import_is() -> None:
    text = """
from __future__ import annotations
import os, lvslab.paths
from lvslab import cluster, spec
from lvslab.build.store import write
if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed
def late():
    from lvslab.boot import plan
"""
    found = [used for used in imports("somewhere", text) if used in ROOMS]
    assert sorted(found) == [
        "lvslab.boot.plan",
        "lvslab.build.store",
        "lvslab.check.testbed",
        "lvslab.cluster",
        "lvslab.paths",
        "lvslab.spec",
    ]
