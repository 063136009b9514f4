"""Dask clusters for a run: worker processes on this machine, or a cluster that exists already."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lvslab.errors import MachineError, UsageError
from lvslab.matrix.conductor import WORKER_DEATHS

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

_PATIENCE = 10
"""Seconds that an existing cluster has to answer, and then to have its first worker."""
_STARTS = 3
"""Number of attempts to start worker processes."""


@contextlib.contextmanager
def local(workers: int, place: Path) -> Iterator[Client]:
    """Start worker processes on this machine, with their files in the folder ``place``.

    The scheduler listens on the loopback interface only. Raises MachineError.
    """
    import dask
    from distributed import Client

    settings = {"distributed.scheduler.allowed-failures": WORKER_DEATHS, "temporary-directory": str(place)}
    with dask.config.set(settings), _quiet():
        cluster = _start(workers)
        try:
            with Client(cluster) as client:
                yield client
        finally:
            for nanny in cluster.workers.values():
                # Closing would wait for the end of each worker's cell. Its labs end with the worker.
                nanny.auto_restart = False
                with contextlib.suppress(ProcessLookupError):
                    if nanny.pid:
                        os.kill(nanny.pid, signal.SIGKILL)
            cluster.close()
            shutil.rmtree(place, ignore_errors=True)


def _start(count: int) -> LocalCluster:
    """Start ``count`` worker processes.

    Dask restarts a worker that is lost, but not during its first start: it gives up and ends the others.
    """
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
    message = f"the worker processes did not start, {_STARTS} times in a row: {why}"
    raise MachineError(message, "is there memory for them? --workers makes them fewer")


@contextlib.contextmanager
def existing(address: str) -> Iterator[Client]:
    """Connect to the scheduler of a running cluster. Raises UsageError, MachineError."""
    from distributed import Client

    with _quiet():
        try:
            client = Client(address, timeout=_PATIENCE)
        except (OSError, TimeoutError) as refused:
            raise MachineError(f"no Dask scheduler answers at {address}: {refused}") from None
        except ValueError as wrong:
            message = f"{address} is not the address of a scheduler: {wrong}"
            raise UsageError(message, "tcp://HOST:8786") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=_PATIENCE)
            except TimeoutError:
                message = f"the Dask cluster at {address} has no worker"
                raise MachineError(message, f"on each machine: dask worker {address} --nthreads 1") from None
            yield client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's own messages. The progress reports the cell of a lost worker."""
    with warnings.catch_warnings(action="ignore"):
        for name in ("distributed", "tornado", "asyncio", "bokeh"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
