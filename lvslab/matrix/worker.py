"""Worker's side of a run: try a cell, and reply with its result and evidence.

Imported by Dask's workers, which may be on other machines. Each process tries one cell at a time.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from distributed import get_worker

from lvslab import paths
from lvslab.boot.vm import qemu
from lvslab.cache import folders, pinned
from lvslab.errors import LvsLabError, UsageError
from lvslab.matrix import cell, evidence, job
from lvslab.report import checksums

TOPIC = "lvslab"
"""Topic of the event with which a worker begins a cell: ``{"run": ..., "cell": key, "worker": name}``."""

Reply = Mapping[str, Any]

_CODE = checksums.of_lvslab()  # at import: the files may change later, the running code does not

_turn = threading.Lock()  # the environment, of which a process has one, names what a lab boots from


def work(run: str, text: str) -> Reply:
    """Try the cell of the job ``text`` (JSON) of the run ``run``.

    The reply has ``result`` (JSON) and ``evidence`` (a tar archive); or ``lacks`` (checksums of files),
    ``cache`` (which) and ``worker`` (its address); or ``refused``, the reason for not trying the cell.
    """
    wanted = job.Job.model_validate_json(text)
    if why := job.difference(wanted, _CODE):
        return {"refused": f"{_name()} cannot try {wanted.cell}: {why}"}
    if lacks := [each for each, place in wanted.files.items() if job.find(each, place) is None]:
        return {"lacks": lacks, "cache": _cache(), "worker": get_worker().address}
    with _turn:
        get_worker().log_event(TOPIC, {"run": run, "cell": wanted.cell.key, "worker": _name()})
        try:
            return _tried(wanted)
        except UsageError as wrong:
            return {"refused": str(wrong)}


def _tried(wanted: job.Job) -> Reply:
    # The next folder that is made here deletes what a killed worker has left.
    with folders.making(paths.state() / "cells", wanted.cell.key) as place:
        (place / "given").mkdir()
        job.lay_out(wanted, place / "given")
        os.environ[pinned.VARIABLE] = str(place / "given")
        try:
            found = cell.run(wanted.cell, place / "evidence", seed=wanted.seed)
        finally:
            del os.environ[pinned.VARIABLE]
        here = {"qemu": qemu.version(), "lvslab": version("lvslab")}
        versions = {**wanted.prepared.versions, **found.versions, **here}
        about = {"worker": _name(), "checksums": wanted.checksums, "versions": versions}
        result = found.model_copy(update=about).model_dump_json()
        return {"result": result, "evidence": evidence.packed(place / "evidence")}


def receive(sha256: str, content: bytes) -> str:
    """Keep a file in this worker's cache; return the reason if that fails, else ""."""
    try:
        job.receive(sha256, content)
    except (OSError, LvsLabError) as refused:
        return str(refused)
    return ""


def _name() -> str:
    """Name of host and worker."""
    return f"{socket.gethostname()}/{get_worker().name}"


def _cache() -> str:
    """Identifier of this worker's cache, unique among all machines."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    about = paths.cache().stat()
    return f"{socket.gethostname()} {paths.cache()} {about.st_dev} {about.st_ino}"
