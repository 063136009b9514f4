"""Folders of the cache that appear filled, or not at all.

A folder that is being filled has a name that begins with a dot, and its process holds a lock on it. One
without a lock was left by a killed process, and is deleted by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lvslab.cache import store
from lvslab.errors import BuildError
from lvslab.run import run


@contextlib.contextmanager
def making(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder in ``parent`` to fill and rename; else delete it."""
    parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as holding:
        with store.locked(f"making-{parent.name}"):
            _sweep(parent)
            place = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}."))
            holding.enter_context(held(place))
        try:
            place.chmod(0o755)
            yield place
        finally:
            _delete(place)


def discard(place: Path) -> None:
    """Delete a folder without showing it half deleted."""
    with making(place.parent, place.name) as hidden:
        place.rename(hidden / "old")


def _sweep(parent: Path) -> None:
    """Delete what killed processes have left: folders with a dot and without a lock."""
    for place in parent.glob(".*"):
        with contextlib.suppress(OSError), held(place):
            _delete(place)


def _delete(place: Path) -> None:
    # An overlay's own folder has mode 000; rm must enter it.
    for folder in place.glob("*/work"):
        with contextlib.suppress(OSError):
            folder.chmod(0o700)
    # shutil.rmtree takes three times as long over the thousands of files of a build.
    run(["rm", "--recursive", "--force", "--one-file-system", "--", place], check=False)


@contextlib.contextmanager
def held(place: Path) -> Iterator[None]:
    """Hold the lock of the folder ``place``. Raises BlockingIOError if another process holds it, OSError."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def flush(place: Path) -> None:
    """Write all files of a folder to disk."""
    for path in place.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def need_space(place: Path, mebibytes: int, what: str) -> None:
    """Raise BuildError where the disk of ``place`` has less than ``mebibytes`` free for ``what``."""
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free >> 20
    if free < mebibytes:
        raise BuildError(
            f"{place} has {free} MiB free, and {what} takes {mebibytes} MiB",
            "make room there, or set LVSLAB_CACHE to a folder on another disk",
        )
