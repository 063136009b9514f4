"""Which cells a matrix has, in which order they are best tried, and how many of them this machine holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lvslab import paths
from lvslab.check.pytest_plugin.pool import AHEAD
from lvslab.cluster import folder as lab_folder
from lvslab.errors import UsageError
from lvslab.kernel import find, store
from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build
from lvslab.lab import model
from lvslab.matrix.cell import find_lab
from lvslab.matrix.results import Cell, Run
from lvslab.outcome import Outcome

ALL = "all"
"""The word for all labs."""
STORE = "store"
"""The word for all kernels of the store."""

_BASE = 300
"""MiB that a cell takes beside its nodes: pytest, the lab's own processes."""
_HOST = 5
"""MiB that a Mininet host with a server takes."""
_SHARE = 0.9
"""How much of the memory that is free cells may take."""
_SECONDS = 3.0
"""About how long a check takes of which nothing is known."""


def cells(kernels: Sequence[str], ipvsadm: Sequence[str], labs: Sequence[str]) -> tuple[Cell, ...]:
    """Every combination of these, each once: labs (names, paths, "all"), kernels as in lab.up or "store",
    and versions of ipvsadm, the usual one where there are none.

    Raises UsageError for the first that does not exist, MachineError and BuildError where a distribution's
    kernel cannot be had.
    """
    chosen_kernels = dict.fromkeys(name for word in kernels for name in _kernels(word))
    chosen_labs = dict.fromkeys(name for word in labs for name in _labs(word))
    chosen_ipvsadm = dict.fromkeys(map(_ipvsadm, ipvsadm)) or {"": None}
    if not chosen_kernels:
        raise UsageError(
            "no kernel is given",
            "--kernels 2.4.37.11,debian-6.1 tries these two, --kernels store all that are built",
        )
    return tuple(
        Cell(lab=lab, kernel=name, ipvsadm=version)
        for lab in chosen_labs
        for name in chosen_kernels
        for version in chosen_ipvsadm
    )


def _kernels(word: str) -> list[str]:
    if word == STORE:
        found = store.installed()
        if not found:
            raise UsageError("there is no kernel in the store", "./run kernel.build 2.6.18 builds one")
        versions = [built.manifest.version for built in found]
        return [
            built.name if versions.count(built.manifest.version) > 1 else built.manifest.version
            for built in found
        ]
    return [find.find(word).name]  # of a file its whole path, wherever the run goes on


def _labs(word: str) -> Iterable[str]:
    if word == ALL:
        return model.list_labs(paths.labs())
    folder = find_lab(word).folder
    return [str(folder.resolve()) if "/" in word else word]


def _ipvsadm(word: str) -> str:
    ipvsadm_build.chosen(word)
    return str(Path(word).resolve()) if "/" in word else word


def need(cell: Cell) -> int:
    """MiB that ``cell`` takes: its machines, and those of the labs that its tests have beside it."""
    lab = lab_folder.lab(model.find(cell.lab, paths.labs()))
    guests = 0
    for name in lab.virtual_machines:
        node = lab.nodes[name]
        chosen = cell.kernel if node.role == "director" and cell.kernel else node.kernel or ""
        guests += node.memory or find.find(chosen).memory
    hosts = _HOST * (len(lab.nodes) - len(lab.virtual_machines))
    return _BASE + (1 + AHEAD) * guests + hosts


def memory() -> int:
    """MiB of this machine's memory that are free for new processes (MemAvailable)."""
    row = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    return int(row.split()[1]) // 1024


def fit(needs: Iterable[int], count: int, available: int) -> int:
    """How many cells can be tried at a time, whichever they are: no more than ``count`` processors, and than
    have room in ``available`` MiB; at least one."""
    room, found = available * _SHARE, 0
    for each in sorted(needs, reverse=True):
        if each > room or found == count:
            break
        room -= each
        found += 1
    return max(found, 1)


def seconds(cells: Iterable[Cell], earlier: Iterable[Run]) -> dict[Cell, float]:
    """How long each cell may take: as long as it took in the last of the ``earlier`` runs that has it, or as
    its lab did; else by the number of its checks."""
    by_cell: dict[Cell, float] = {}
    by_lab: dict[str, float] = {}
    for run in earlier:
        for result in (result for result in run.results if result.verdict is not Outcome.ERROR):
            by_cell[result.cell] = by_lab[result.cell.lab] = result.seconds
    return {cell: by_cell.get(cell) or by_lab.get(cell.lab) or _guess(cell) for cell in cells}


def _guess(cell: Cell) -> float:
    folder = model.find(cell.lab, paths.labs())
    texts = (file.read_text(errors="replace") for file in folder.rglob("test_*.py"))
    return _SECONDS * sum(len(re.findall(r"^def test_", text, re.MULTILINE)) for text in texts)


def in_order(cells: Iterable[Cell], expected: Mapping[Cell, float]) -> list[Cell]:
    """The longest first, so that no long one is left for the end, when most workers have nothing to do."""
    return sorted(cells, key=lambda cell: -expected[cell])
