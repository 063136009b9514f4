"""Send the cells of a run to workers, and keep their results.

No more cells are sent than there are workers, so the next cell goes to a free one. If a worker is lost, Dask
gives its cell to another. The first result of a cell counts.
"""

from __future__ import annotations

import queue
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab.errors import FeatureLacking, LvsLabError, MachineError, UsageError
from lvslab.matrix import cell as cells
from lvslab.matrix import folder as run_folder
from lvslab.matrix import job
from lvslab.matrix.results import Cell, Result, Run
from lvslab.outcome import Outcome

if TYPE_CHECKING:
    from distributed import Client, Future

    from lvslab.matrix.worker import Reply

WORKER_DEATHS = 5
"""Number of workers that may be lost with one cell; with the next one the cell is an error."""
_POLL = 1.0
"""Seconds between two looks at the number of workers."""


class Listener:
    """Hears of a run as it goes on."""

    def begins(self, folder: Path, run: Run, workers: int, expected: Mapping[Cell, float]) -> None:
        """The run is about to try the cells without a result; ``expected`` are seconds."""

    def starts(self, cell: Cell, worker: str) -> None:
        """A worker has begun with a cell."""

    def ends(self, result: Result) -> None:
        """The result of a cell has been kept."""

    def says(self, text: str) -> None:
        """There is a message for people."""


@dataclass
class _Open:
    """Job without a reply; ``turn`` is the number of times that it was sent."""

    job: job.Job
    files: Mapping[str, Path]
    turn: int = 0


@dataclass
class Conductor:
    """Sends the cells of ``kept.run`` to the workers of ``client``, and keeps their results.

    ``make`` returns the job for a cell and the run's seed, and its files by checksum.
    """

    client: Client
    kept: run_folder.RunFolder
    listener: Listener
    make: Callable[[Cell, int], tuple[job.Job, Mapping[str, Path]]] = job.make

    def __post_init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._inbox: queue.SimpleQueue[Future[Any] | Mapping[str, Any]] = queue.SimpleQueue()
        self._sent: set[tuple[str, str]] = set()
        self._open: dict[Any, _Open] = {}
        self._cells = {cell.key: cell for cell in self.kept.run.cells}

    def conduct(self, todo: Sequence[Cell]) -> None:
        """Have all of ``todo`` tried, in order; return when all results are kept.

        Raises UsageError if a worker refuses a cell, MachineError if a worker or the cluster cannot be used.
        """
        from lvslab.matrix import worker

        # An event comes with its time before it.
        self.client.subscribe_topic(worker.TOPIC, lambda event: self._inbox.put(event[1]))
        waiting = list(reversed(todo))
        count = worker_count(self.client)
        while waiting or self._open:
            while waiting and len(self._open) < max(count, 1):
                self._begin(waiting.pop())
            try:
                news = self._inbox.get(timeout=_POLL)
            except queue.Empty:
                count = worker_count(self.client)
                continue
            if not isinstance(news, Mapping):
                self._answered(news)
            elif news["run"] == self._run and news["cell"] in self._cells:
                self.listener.starts(self._cells[news["cell"]], news["worker"])

    def _begin(self, cell: Cell) -> None:
        try:
            self._submit(_Open(*self.make(cell, self.kept.run.seed)))
        except FeatureLacking as lacking:
            self._take(cells.skipped(cell, self.kept.run.seed, str(lacking)), b"")
        except LvsLabError as error:
            if isinstance(error, UsageError):
                raise
            self._fail(cell, str(error))

    def _submit(self, wanted: _Open, address: str = "") -> None:
        from lvslab.matrix import worker

        wanted.turn += 1
        future = self.client.submit(
            worker.work,
            self._run,
            wanted.job.model_dump_json(),
            key=f"{self._run}-{wanted.job.cell.key}-{wanted.turn}",
            pure=False,
            workers=[address] if address else None,
            allow_other_workers=bool(address),
        )
        self._open[future.key] = wanted
        future.add_done_callback(self._inbox.put)

    def _answered(self, future: Future[Any]) -> None:
        wanted = self._open.pop(future.key)
        if future.status != "finished":
            self._lost(wanted.job.cell, future)
            return
        reply: Reply = future.result()
        future.release()
        match reply:
            case {"refused": why}:
                raise UsageError(why, "all machines need the same version of lvslab and of the labs")
            case {"lacks": _, "worker": address}:
                self._send(wanted, reply)
                self._submit(wanted, address)
            case {"result": result, "evidence": evidence}:
                self._take(Result.model_validate_json(result), evidence)

    def _lost(self, cell: Cell, future: Future[Any]) -> None:
        """Handle a cell without a reply: too many workers were lost with it, or the cluster is gone."""
        from distributed import KilledWorker

        match future.exception() if future.status == "error" else None:
            case KilledWorker() as why:
                self._fail(cell, f"{why.allowed_failures + 1} workers were lost while they tried it")
            case LvsLabError() | OSError() as why:
                self._fail(cell, str(why))
            case ImportError() as why:
                hint = "each needs the same checkout, and to be started with its .venv/bin/dask"
                raise MachineError(f"a worker of the Dask cluster has no lvslab: {why}", hint) from None
            case None:
                raise MachineError("the Dask cluster was lost", run_folder.resume_command(self.kept.path))
            case why:
                raise why

    def _send(self, wanted: _Open, reply: Reply) -> None:
        """Send the cache of a worker the files that it lacks, each of them once."""
        from lvslab.matrix import worker

        if wanted.turn > WORKER_DEATHS:
            raise MachineError(f"the worker {reply['worker']} does not keep the files that it is sent")
        for checksum in reply["lacks"]:
            if (reply["cache"], checksum) in self._sent:
                continue
            content = wanted.files[checksum].read_bytes()
            self.listener.says(f"sending {len(content) >> 10} KiB to {reply['worker']}")
            try:
                answers = self.client.run(worker.receive, checksum, content, workers=[reply["worker"]])
            except OSError:
                return  # the worker is lost: another one will be asked
            for refused in filter(None, answers.values()):
                raise MachineError(f"the worker {reply['worker']} could not keep a file: {refused}")
            self._sent.add((reply["cache"], checksum))

    def _fail(self, cell: Cell, why: str) -> None:
        """Keep the result of a cell that could not be tried."""
        seed = self.kept.run.seed
        own, repeat = cells.seed_of(seed, cell), cells.repeat(cell, seed)
        self._take(Result(cell=cell, verdict=Outcome.ERROR, error=why, seed=own, repeat=repeat), b"")

    def _take(self, result: Result, evidence: bytes) -> None:
        self.kept.keep(result, evidence)
        self.listener.ends(self.kept.run.of(result.cell))


def worker_count(client: Client) -> int:
    """Number of worker processes, each of which tries one cell at a time."""
    return len(client.scheduler_info(n_workers=-1)["workers"])
