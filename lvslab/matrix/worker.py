"""What runs in a worker: it tries a cell that it was sent, and answers with the result and the evidence.

Imported by Dask's workers, which may be on other machines. One cell is tried at a time in each process.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from distributed import get_worker

from lvslab import paths
from lvslab.boot.vm import qemu
from lvslab.cache import folders, pinned
from lvslab.errors import LvsLabError, UsageError
from lvslab.matrix import cell, evidence, job
from lvslab.matrix.job import Order
from lvslab.report import checksums

TOPIC = "lvslab"
"""What a worker tells of while it tries a cell: ``{"run": ..., "cell": key, "worker": name}``."""

Answer = Mapping[str, Any]

_CODE = checksums.of_lvslab()  # as it is now: whatever becomes of the files, this is what runs here

_turn = threading.Lock()  # what is given to a lab is named in the environment, which a process has once


def work(run: str, text: str) -> Answer:
    """Try the cell of an order, ``text``, of the run ``run``.

    The answer has ``result`` (JSON) and ``evidence`` (a tar archive); or ``lacks`` (checksums of files),
    ``cache`` (which) and ``worker`` (its address); or ``refused``, why it is not tried at all.
    """
    order = Order.model_validate_json(text)
    if why := job.difference(order, _CODE):
        return {"refused": f"{_name()} cannot try {order.cell}: {why}"}
    if lacks := [checksum for checksum, file in order.files.items() if job.find(file) is None]:
        return {"lacks": lacks, "cache": _cache(), "worker": get_worker().address}
    with _turn:
        get_worker().log_event(TOPIC, {"run": run, "cell": order.cell.key, "worker": _name()})
        try:
            return _tried(order)
        except UsageError as wrong:
            return {"refused": str(wrong)}


def _tried(order: Order) -> Answer:
    # What a killed worker has left is deleted by whoever makes such a folder next.
    with folders.making(paths.state() / "cells", order.cell.key) as place:
        (place / "given").mkdir()
        job.lay_out(order, place / "given")
        os.environ[pinned.VARIABLE] = str(place / "given")
        try:
            found = cell.run(order.cell, place / "evidence", seed=order.seed)
        finally:
            del os.environ[pinned.VARIABLE]
        found = found.model_copy(
            update={
                "worker": _name(),
                "checksums": order.checksums,
                "versions": {**order.versions, **found.versions, **programs()},
            }
        )
        return {"result": found.model_dump_json(), "evidence": evidence.packed(place / "evidence")}


@cache
def programs() -> Mapping[str, str]:
    """The versions of what a machine brings to a cell."""
    return {"qemu": qemu.version(), "lvslab": version("lvslab")}


def receive(sha256: str, content: bytes) -> str:
    """Keep a file in this worker's cache; why not, where that fails."""
    try:
        job.receive(sha256, content)
    except (OSError, LvsLabError) as refused:
        return str(refused)
    return ""


def _name() -> str:
    """Host and worker, in words."""
    return f"{socket.gethostname()}/{get_worker().name}"


def _cache() -> str:
    """What tells this worker's cache from that of any other machine's worker."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    about = paths.cache().stat()
    return f"{socket.gethostname()} {paths.cache()} {about.st_dev} {about.st_ino}"
