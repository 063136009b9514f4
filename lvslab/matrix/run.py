"""``matrix.run``: every cell tried by some worker of a Dask cluster, and what came of it kept at once.

The cluster is one of processes on this machine, or one that is there already. There are never more cells
on their way than workers, so the next cell goes to whoever is free. A worker that is lost takes nothing with
it: Dask gives its cell to another. A cell's result is taken once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import queue
import secrets
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab.boot.vm import qemu
from lvslab.cluster import registry
from lvslab.errors import BootError, CheckFailed, LvsLabError, MachineError, UsageError
from lvslab.kernel.toolchain import building
from lvslab.matrix import cell as cells
from lvslab.matrix import folder as run_folder
from lvslab.matrix import job, plan
from lvslab.matrix.folder import RunFolder
from lvslab.matrix.results import Cell, Result, Run
from lvslab.outcome import Outcome

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

    from lvslab.matrix.job import Order
    from lvslab.matrix.worker import Answer

_PATIENCE = 10
"""Seconds that a cluster which is there has to answer, and then to have its first worker."""
_DEATHS = 5
"""So many workers may be lost while they try one and the same cell; the next one makes it an error."""
_STARTS = 3
"""So often worker processes are started before that is taken for hopeless."""
_GLANCE = 1.0
"""Seconds between two looks at how many workers there are."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    ``kernels``, ``ipvsadm`` and ``labs`` (all where there are none) are as in `plan.cells`. ``resume`` is
    the folder of a run to go on with ("" for none), and then none of these is given. ``workers`` is how many
    are started here (0: as many as fit), ``scheduler`` the address of a cluster that is there ("" for none).
    """

    kernels: Sequence[str] = ()
    ipvsadm: Sequence[str] = ()
    labs: Sequence[str] = ()
    output: Path | None = None
    resume: str = ""
    seed: int | None = None
    workers: int = 0
    scheduler: str = ""


class Listener:
    """Who hears of a run as it goes on."""

    def begins(self, folder: Path, run: Run, workers: int, expected: Mapping[Cell, float]) -> None:
        """The run is about to go on with what has no result yet; ``expected`` are seconds."""

    def starts(self, cell: Cell, worker: str) -> None:
        """A worker has begun with a cell."""

    def ends(self, result: Result) -> None:
        """The result of a cell has been kept."""

    def says(self, text: str) -> None:
        """Something that a person may want to know."""


def run(wanted: Wanted, listener: Listener) -> tuple[Run, Path]:
    """Try every cell that has no result yet; the whole run, and its folder.

    Raises UsageError and its relatives before anything runs, MachineError where there is no such cluster, or
    it is lost. KeyboardInterrupt passes through when all that this process started has ended.
    """
    registry.need_root()
    if wanted.workers < 0:
        raise UsageError(
            f"there cannot be {wanted.workers} workers", "0 means as many as this machine holds"
        )
    if wanted.workers and wanted.scheduler:
        raise UsageError(
            "--workers and --scheduler exclude each other", "a cluster has the workers that it has"
        )
    with contextlib.ExitStack() as held:
        client = held.enter_context(_cluster_there(wanted.scheduler)) if wanted.scheduler else None
        kept = held.enter_context(_folder(wanted))
        done = {result.cell for result in kept.run.results}
        expected = plan.seconds(kept.run.cells, run_folder.earlier(kept.path))
        todo = plan.in_order((cell for cell in kept.run.cells if cell not in done), expected)
        if todo:
            if client is None:
                fits = plan.fit(map(plan.need, todo), building.processors(), plan.memory())
                client = held.enter_context(_cluster_here(min(wanted.workers or fits, len(todo)), kept.path))
            listener.begins(kept.path, kept.run, _slots(client), expected)
            _Conductor(client, kept, listener).conduct(todo)
        kept.end()
        return kept.run, kept.path


def exit_code(run: Run) -> int:
    """0 where every cell is as it must be, 1 where one failed or passed against what is known, 4 where the
    lab itself broke in one."""
    if run.counts[Outcome.ERROR]:
        return BootError.exit_code
    return CheckFailed.exit_code if any(result.verdict.bad for result in run.results) else 0


def _folder(wanted: Wanted) -> contextlib.AbstractContextManager[RunFolder]:
    if wanted.resume:
        given = (wanted.kernels, wanted.ipvsadm, wanted.labs, wanted.output, wanted.seed is not None)
        if any(given):
            raise UsageError(
                "--resume takes kernels, ipvsadm, labs and seed from the run's folder",
                "leave out --kernels, --ipvsadm, --labs, --output and --seed",
            )
        return run_folder.resumed(wanted.resume)
    chosen = plan.cells(wanted.kernels, wanted.ipvsadm, wanted.labs or [plan.ALL])
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    new = Run(begun=run_folder.now(), seed=seed, machine=_machine(), cells=chosen)
    return run_folder.begun(wanted.output, new)


def _machine() -> dict[str, str]:
    return {
        "processors": str(building.processors()),
        "memory": f"{plan.memory()} MiB available",
        "kernel": platform.release(),
        "qemu": qemu.version(),
        "python": platform.python_version(),
        "lvslab": version("lvslab"),
    }


class _Conductor:
    """Sends orders to workers and takes their answers."""

    def __init__(self, client: Client, kept: RunFolder, listener: Listener) -> None:
        self._client = client
        self._kept = kept
        self._listener = listener
        self._run = secrets.token_hex(4)
        self._inbox: queue.SimpleQueue[Future[Any] | Mapping[str, Any]] = queue.SimpleQueue()
        self._sent: set[tuple[str, str]] = set()
        self._open: dict[Any, _Open] = {}
        self._cells = {cell.key: cell for cell in kept.run.cells}

    def conduct(self, todo: Sequence[Cell]) -> None:
        """Have all of ``todo`` tried; return when all results are kept."""
        from lvslab.matrix import worker

        self._client.subscribe_topic(worker.TOPIC, lambda event: self._inbox.put(event[1]))
        waiting = list(reversed(todo))
        slots = _slots(self._client)
        while waiting or self._open:
            while waiting and len(self._open) < max(slots, 1):
                self._begin(waiting.pop())
            try:
                news = self._inbox.get(timeout=_GLANCE)
            except queue.Empty:
                slots = _slots(self._client)
                continue
            if isinstance(news, Mapping):
                self._started(news)
            else:
                self._answered(news)

    def _begin(self, cell: Cell) -> None:
        try:
            order, files = job.order(cell, self._kept.run.seed)
        except UsageError:
            raise
        except LvsLabError as error:
            self._take(_failed(cell, self._kept.run.seed, str(error)), b"")
            return
        self._submit(_Open(order, files))

    def _submit(self, wanted: _Open, address: str = "") -> None:
        from lvslab.matrix import worker

        wanted.turn += 1
        future = self._client.submit(
            worker.work,
            self._run,
            wanted.order.model_dump_json(),
            key=f"{self._run}-{wanted.order.cell.key}-{wanted.turn}",
            pure=False,
            workers=[address] if address else None,
            allow_other_workers=bool(address),
        )
        self._open[future.key] = wanted
        future.add_done_callback(self._inbox.put)

    def _started(self, event: Mapping[str, Any]) -> None:
        if event["run"] == self._run and event["cell"] in self._cells:
            self._listener.starts(self._cells[event["cell"]], event["worker"])

    def _answered(self, future: Future[Any]) -> None:
        wanted = self._open.pop(future.key)
        if future.status != "finished":
            self._lost(wanted.order, future)
            return
        answer: Answer = future.result()
        future.release()
        if "refused" in answer:
            raise UsageError(
                answer["refused"], "all machines need the same version of lvslab and of the labs"
            )
        if "lacks" in answer:
            self._send(wanted, answer)
            self._submit(wanted, answer["worker"])
            return
        self._take(Result.model_validate_json(answer["result"]), answer["evidence"])

    def _lost(self, order: Order, future: Future[Any]) -> None:
        """A cell without an answer: too many workers were lost with it, or the cluster itself is gone."""
        from distributed import KilledWorker

        why = future.exception() if future.status == "error" else None
        if isinstance(why, KilledWorker):
            message = f"{why.allowed_failures + 1} workers were lost while they tried it"
            self._take(_failed(order.cell, order.seed, message), b"")
        elif isinstance(why, LvsLabError | OSError):
            self._take(_failed(order.cell, order.seed, str(why)), b"")
        elif isinstance(why, ImportError):
            hint = "each needs the same checkout, and to be started with its .venv/bin/dask"
            raise MachineError(f"a worker of the Dask cluster has no lvslab: {why}", hint) from None
        elif why is not None:
            raise why
        else:
            raise MachineError("the Dask cluster was lost", run_folder.resume_command(self._kept.path))

    def _send(self, wanted: _Open, answer: Answer) -> None:
        """Send a worker's cache the files that it lacks, each of them once."""
        from lvslab.matrix import worker

        if wanted.turn > _DEATHS:
            raise MachineError(f"the worker {answer['worker']} does not keep the files that it is sent")
        for checksum in answer["lacks"]:
            if (answer["cache"], checksum) in self._sent:
                continue
            content = wanted.files[checksum].read_bytes()
            self._listener.says(f"sending {len(content) >> 10} KiB to {answer['worker']}")
            try:
                replies = self._client.run(worker.receive, checksum, content, workers=[answer["worker"]])
            except OSError:
                return  # the worker is lost: another one will be asked
            for refused in filter(None, replies.values()):
                raise MachineError(f"the worker {answer['worker']} could not keep a file: {refused}")
            self._sent.add((answer["cache"], checksum))

    def _take(self, result: Result, evidence: bytes) -> None:
        self._kept.keep(result, evidence)
        self._listener.ends(self._kept.run.of(result.cell))


@dataclass
class _Open:
    """An order that has no answer yet; ``turn`` is how often it was sent."""

    order: Order
    files: Mapping[str, Path]
    turn: int = 0


def _failed(cell: Cell, seed: int, why: str) -> Result:
    """The result of a cell of which nothing came."""
    return Result(
        cell=cell,
        verdict=Outcome.ERROR,
        error=why,
        seed=cells.seed_of(seed, cell),
        repeat=cells.repeat(cell, seed),
    )


def _slots(client: Client) -> int:
    """How many cells can be tried at a time: one for each worker process."""
    return len(client.scheduler_info(n_workers=-1)["workers"])


@contextlib.contextmanager
def _cluster_here(workers: int, place: Path) -> Iterator[Client]:
    """Worker processes on this machine, whose scheduler listens on the loopback interface only. Raises
    MachineError."""
    import dask
    from distributed import Client

    settings = {
        "distributed.scheduler.allowed-failures": _DEATHS,
        "temporary-directory": str(place / run_folder.WORKERS),
    }
    with dask.config.set(settings), _quiet():
        cluster = _workers_here(workers)
        try:
            with Client(cluster) as client:
                yield client
        finally:
            for nanny in cluster.workers.values():
                # A worker would else be waited for until the end of its cell. Its labs end with it.
                nanny.auto_restart = False
                with contextlib.suppress(ProcessLookupError):
                    if nanny.pid:
                        os.kill(nanny.pid, signal.SIGKILL)
            cluster.close()
            shutil.rmtree(place / run_folder.WORKERS, ignore_errors=True)


def _workers_here(count: int) -> LocalCluster:
    """So many worker processes. Dask starts one anew that is lost, but not while it starts for the first
    time: it gives up then, and ends the others."""
    from distributed import LocalCluster

    for _ in range(_STARTS):
        try:
            return LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as failed:
            why = failed.__cause__ or failed
    raise MachineError(
        f"the worker processes did not start, {_STARTS} times in a row: {why}",
        "is there memory for them? --workers makes them fewer",
    )


@contextlib.contextmanager
def _cluster_there(address: str) -> Iterator[Client]:
    """A cluster that is there already. Raises UsageError, MachineError."""
    from distributed import Client

    with _quiet():
        try:
            client = Client(address, timeout=_PATIENCE)
        except (OSError, TimeoutError) as refused:
            raise MachineError(f"no Dask scheduler answers at {address}: {refused}") from None
        except ValueError as wrong:
            raise UsageError(f"{address} is no scheduler's address: {wrong}", "tcp://HOST:8786") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=_PATIENCE)
            except TimeoutError:
                message = f"the Dask cluster at {address} has no worker"
                raise MachineError(message, f"on each machine: dask worker {address} --nthreads 1") from None
            yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Dask's own words are for its developers: what becomes of a lost worker's cell is shown by progress."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("distributed", "tornado", "asyncio", "bokeh"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
