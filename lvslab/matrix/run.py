"""``matrix.run``: try every cell in some worker of a Dask cluster, and keep each result at once.

The cluster consists of processes on this machine, or exists already.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lvslab.boot.vm import qemu
from lvslab.cluster import registry
from lvslab.errors import BootError, CheckFailed, UsageError
from lvslab.kernel.toolchain import building
from lvslab.matrix import dask_cluster, plan
from lvslab.matrix import folder as run_folder
from lvslab.matrix.conductor import Conductor, Listener, worker_count
from lvslab.matrix.results import Run
from lvslab.outcome import Outcome


@dataclass(frozen=True)
class Request:
    """Options of ``matrix.run``.

    ``kernels``, ``ipvsadm`` and ``labs`` (default: all) are as in `plan.cells`. ``resume`` is the folder of
    a run to continue ("" for none); it excludes these options, ``output`` and ``seed``. ``workers`` is the
    number of processes to start here (0: as many as fit), ``scheduler`` the address of an existing cluster
    ("" for none).
    """

    kernels: Sequence[str] = ()
    ipvsadm: Sequence[str] = ()
    labs: Sequence[str] = ()
    output: Path | None = None
    resume: str = ""
    seed: int | None = None
    workers: int = 0
    scheduler: str = ""


def run(request: Request, listener: Listener) -> tuple[Run, Path]:
    """Try every cell that has no result yet; return the whole run and its folder.

    Raises UsageError and its subclasses before anything runs, MachineError if there is no such cluster or it
    is lost. On KeyboardInterrupt, everything that this process started ends first.
    """
    registry.need_root()
    if request.workers < 0:
        hint = "0 means as many as this machine holds"
        raise UsageError(f"there cannot be {request.workers} workers", hint)
    if request.workers and request.scheduler:
        hint = "a cluster has the workers that it has"
        raise UsageError("--workers and --scheduler exclude each other", hint)
    with contextlib.ExitStack() as held:
        client = held.enter_context(dask_cluster.existing(request.scheduler)) if request.scheduler else None
        kept = held.enter_context(_folder(request))
        done = {result.cell for result in kept.run.results}
        expected = plan.seconds(kept.run.cells, run_folder.earlier(kept.path))
        todo = plan.in_order((cell for cell in kept.run.cells if cell not in done), expected)
        if todo:
            if client is None:
                fits = plan.fit(map(plan.need, todo), building.processors(), plan.memory())
                count = min(request.workers or fits, len(todo))
                client = held.enter_context(dask_cluster.local(count, kept.path / run_folder.WORKERS))
            listener.begins(kept.path, kept.run, worker_count(client), expected)
            Conductor(client, kept, listener).conduct(todo)
        kept.end()
        return kept.run, kept.path


def exit_code(run: Run) -> int:
    """4 if a lab itself broke, else 1 if a check failed or unexpectedly passed."""
    if run.counts[Outcome.ERROR]:
        return BootError.exit_code
    return CheckFailed.exit_code if any(result.verdict.bad for result in run.results) else 0


def _folder(request: Request) -> contextlib.AbstractContextManager[run_folder.RunFolder]:
    if request.resume:
        given = (request.kernels, request.ipvsadm, request.labs, request.output, request.seed is not None)
        if any(given):
            raise UsageError(
                "--resume takes kernels, ipvsadm, labs and seed from the run's folder",
                "leave out --kernels, --ipvsadm, --labs, --output and --seed",
            )
        return run_folder.resumed(request.resume)
    chosen = plan.cells(request.kernels, request.ipvsadm, request.labs or [plan.ALL])
    seed = secrets.randbits(32) if request.seed is None else request.seed
    new = Run(begun=run_folder.now(), seed=seed, machine=_machine(), cells=chosen)
    return run_folder.begun(request.output, new)


def _machine() -> dict[str, str]:
    return {
        "processors": str(building.processors()),
        "memory": f"{plan.memory()} MiB available",
        "kernel": platform.release(),
        "qemu": qemu.version(),
        "python": platform.python_version(),
        "lvslab": version("lvslab"),
    }
