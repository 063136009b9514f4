"""Measure a matrix's cost above ``lab.verify``, and a second worker's gain, for ``bench --matrix``.

As in `labs`, all is measured in one run and in turns.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.labs import Figures, command
from lvslab.cluster import registry
from lvslab.commands import DEFAULT
from lvslab.kernel import store
from lvslab.kernel.toolchain import building

_KERNELS = 6
"""Maximum number of kernels that are tried."""
_USUAL = "debian-cloud"


def measure(rounds: int) -> dict[str, Any]:
    """Verify web-nat on some kernels, and run the same cells as a matrix, ``rounds`` times in turns.

    The kernels are verified one after the other; the matrix has one worker, then two. Returns ``about``,
    ``rounds`` and ``rows`` (`labs.Row`). Raises BootError where a command fails.
    """
    registry.need_root()
    built = list(dict.fromkeys(each.manifest.version for each in store.installed()))
    kernels = [_USUAL, *built[: _KERNELS - 1]]
    verified, one, two, cells = list[float](), list[float](), list[float](), list[float]()
    # The first time may have to make images and snapshots, and is not counted.
    _matrix(kernels, 2)
    for _ in range(rounds):
        alone = [command("lab.verify", DEFAULT, "--kernel", kernel, "--json")[0] for kernel in kernels]
        verified.append(sum(alone))
        seconds, run = _matrix(kernels, 1)
        one.append(seconds)
        cells.append(sum(result["seconds"] for result in run["results"]))
        two.append(_matrix(kernels, 2)[0])
    count = len(kernels)
    figures = Figures()
    base = f"lab.verify {DEFAULT}, {count} kernels one after the other, whole commands"
    single = "the same cells as a matrix with one worker, whole command"
    figures.add(base, verified)
    figures.add(single, one, base)
    figures.add("  of that, the cells themselves", cells, single)
    figures.add("  a cell's cost above lab.verify, on average",
                [(whole - sum_) / count for whole, sum_ in zip(one, verified, strict=True)])  # fmt: skip
    figures.add("the same with two workers, whole command", two, single)
    about = f"medians of {rounds}, {', '.join(kernels)}, {building.processors()} processors"
    return {"about": about, "rounds": rounds, "rows": [asdict(row) for row in figures.rows]}


def _matrix(kernels: list[str], workers: int) -> tuple[float, dict[str, Any]]:
    """Run the matrix of web-nat on ``kernels``, and return its seconds and its document."""
    with tempfile.TemporaryDirectory() as place:
        return command(
            *("matrix.run", "--kernels", ",".join(kernels), "--labs", DEFAULT, "--json"),
            *("--workers", str(workers), "--output", str(Path(place, "run"))),
        )
