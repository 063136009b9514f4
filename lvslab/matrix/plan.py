"""Plan a matrix: its cells, their order, and how many fit on this machine at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, islice, product
from pathlib import Path

from lvslab import paths
from lvslab.check.pytest_plugin.pool import AHEAD
from lvslab.cluster import folder as lab_folder
from lvslab.errors import UsageError
from lvslab.kernel import find, store
from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build
from lvslab.lab import files as lab_files
from lvslab.matrix.cell import find_lab
from lvslab.matrix.results import Cell, Run
from lvslab.outcome import Outcome

ALL = "all"
"""Word for all labs."""
STORE = "store"
"""Word for all kernels of the store."""

_BASE = 300
"""Memory of a cell beside its nodes, in MiB: pytest, the lab's own processes."""
_HOST = 5
"""Memory of a Mininet host with a server, in MiB."""
_SHARE = 0.9
"""Share of the available memory that cells may take."""
_SECONDS = 3.0
"""Estimated duration of an unknown check, in seconds."""


def cells(kernels: Sequence[str], ipvsadm: Sequence[str], labs: Sequence[str]) -> tuple[Cell, ...]:
    """Combine labs, kernels and versions of ipvsadm.

    ``labs`` are names, paths or "all", ``kernels`` as in lab.up, or "store". Each combination occurs once;
    the usual ipvsadm is taken if none is given. Raises UsageError if one does not exist, MachineError and
    BuildError if a distribution's kernel is not available.
    """
    chosen_kernels = dict.fromkeys(name for word in kernels for name in _kernels(word))
    chosen_labs = dict.fromkeys(name for word in labs for name in _labs(word))
    chosen_ipvsadm = dict.fromkeys(map(_ipvsadm, ipvsadm)) or {"": None}
    if not chosen_kernels:
        hint = "--kernels 2.4.37.11,debian-6.1 tries these two, --kernels store all that are built"
        raise UsageError("no kernel is given", hint)
    return tuple(
        Cell(lab=lab, kernel=name, ipvsadm=version)
        for lab, name, version in product(chosen_labs, chosen_kernels, chosen_ipvsadm)
    )


def _kernels(word: str) -> list[str]:
    if word == STORE:
        found = store.installed()
        if not found:
            raise UsageError("there is no kernel in the store", "./run kernel.build 2.6.18 builds one")
        versions = [built.manifest.version for built in found]
        pairs = zip(found, versions, strict=True)
        return [built.name if versions.count(version) > 1 else version for built, version in pairs]
    return [find.find(word).name]  # of a file its whole path, wherever the run goes on


def _labs(word: str) -> Iterable[str]:
    if word == ALL:
        return lab_files.list_labs(paths.labs())
    folder = find_lab(word).folder
    return [str(folder.resolve()) if "/" in word else word]


def _ipvsadm(word: str) -> str:
    ipvsadm_build.chosen(word)
    return str(Path(word).resolve()) if "/" in word else word


def need(cell: Cell) -> int:
    """Memory of ``cell`` in MiB: its machines, and those of the labs that its tests boot."""
    lab = lab_folder.lab(lab_files.find(cell.lab, paths.labs()))
    guests = 0
    for name in lab.virtual_machines:
        node = lab.nodes[name]
        chosen = cell.kernel if node.role == "director" and cell.kernel else node.kernel or ""
        guests += node.memory or find.find(chosen).memory
    hosts = _HOST * (len(lab.nodes) - len(lab.virtual_machines))
    return _BASE + (1 + AHEAD) * guests + hosts


def memory() -> int:
    """Memory of this machine that is available for new processes (MemAvailable), in MiB."""
    row = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    return int(row.split()[1]) // 1024


def fit(needs: Iterable[int], count: int, available: int) -> int:
    """Number of cells that can run at a time in any order, at least one.

    At most ``count`` (processors), and at most those that fit into ``available`` MiB.
    """
    totals = islice(accumulate(sorted(needs, reverse=True)), count)
    return max(sum(total <= available * _SHARE for total in totals), 1)


def seconds(cells: Iterable[Cell], earlier: Iterable[Run]) -> dict[Cell, float]:
    """Expected duration of each cell.

    That of the last of the ``earlier`` runs with it or with its lab, else a guess by its number of checks.
    """
    by_cell: dict[Cell, float] = {}
    by_lab: dict[str, float] = {}
    for run in earlier:
        for result in (result for result in run.results if result.verdict is not Outcome.ERROR):
            by_cell[result.cell] = by_lab[result.cell.lab] = result.seconds
    return {cell: by_cell.get(cell) or by_lab.get(cell.lab) or _guess(cell) for cell in cells}


def _guess(cell: Cell) -> float:
    folder = lab_files.find(cell.lab, paths.labs())
    texts = (file.read_text(errors="replace") for file in folder.rglob("test_*.py"))
    return _SECONDS * sum(len(re.findall(r"^def test_", text, re.MULTILINE)) for text in texts)


def in_order(cells: Iterable[Cell], expected: Mapping[Cell, float]) -> list[Cell]:
    """Sort the longest cells first: at the end, they would leave other workers idle."""
    return sorted(cells, key=lambda cell: -expected[cell])
