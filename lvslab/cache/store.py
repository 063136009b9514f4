"""The cache: whole files that appear at once or not at all.

A file is written without a name (``O_TMPFILE``) and linked to its place when it is complete and on disk,
so a process that is killed while it writes leaves nothing behind, and half a file is never read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from lvslab import paths

T = TypeVar("T")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock ``name`` across processes; the kernel releases it however the holder ends."""
    with _lock_file(name) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_if_free(name: str) -> Iterator[bool]:
    """Try to take the lock without waiting; yield whether it was acquired."""
    with _lock_file(name) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lock_file(name: str) -> BinaryIO:
    path = paths.cache() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


@contextlib.contextmanager
def appearing(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file that appears at ``path`` if the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream: BinaryIO = os.fdopen(os.open(path.parent, os.O_TMPFILE | os.O_RDWR, mode), "w+b")
        name = f"/proc/self/fd/{stream.fileno()}"
    except OSError as refused:
        if refused.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
        import tempfile  # for file systems without nameless files (NFS): under a temporary name

        stream = cast(BinaryIO, tempfile.NamedTemporaryFile(dir=path.parent, prefix="."))  # noqa: SIM115
        os.fchmod(stream.fileno(), mode)
        name = stream.name
    with stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        _put(name, path, stream)


def _put(name: str, path: Path, stream: BinaryIO) -> None:
    """Link the complete file ``stream`` from ``name`` to ``path``; the last writer wins.

    A file with the same content stays: another process may be about to open it, and there is a moment
    without any file between the old one's end and the new one.
    """
    while True:
        try:
            # Only with a folder's descriptor does Python call linkat(AT_SYMLINK_FOLLOW), which /proc needs.
            return os.link(name, path, src_dir_fd=stream.fileno())
        except FileExistsError:
            if _same(stream, path):
                return None
            path.unlink(missing_ok=True)


def _same(stream: BinaryIO, path: Path) -> bool:
    """Return whether the file at ``path`` has the content and the mode of ``stream``."""
    try:
        with path.open("rb") as there:
            ours, theirs = (os.fstat(file.fileno()) for file in (stream, there))
            stream.seek(0)
            same = (ours.st_size, ours.st_mode) == (theirs.st_size, theirs.st_mode)
            return same and stream.read() == there.read()
    except OSError:
        return False


def write(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """Make ``path`` hold ``content``, at once or not at all."""
    with appearing(path, mode) as stream:
        stream.write(content)
    return path


def remembered(name: str, sources: Sequence[bytes], make: Callable[[], T]) -> T:
    """Return the result of ``make``, from the cache if its ``sources`` are unchanged.

    One value is kept for each ``name``, as a pickle. What ``make`` raises is not kept.
    """
    key = hashlib.sha256(b"".join(hashlib.sha256(source).digest() for source in sources)).digest()
    path = paths.cache() / "remembered" / name
    # A pickle can be damaged in any way; the value can be made again.
    with contextlib.suppress(Exception), path.open("rb") as stream:
        # A pickle can run programs, so it is read only where no other user can have written it.
        if os.fstat(stream.fileno()).st_uid == os.geteuid() and stream.read(len(key)) == key:
            return cast(T, pickle.load(stream))
    made = make()
    with contextlib.suppress(OSError):  # the value is there even if the disk is full
        write(path, key + pickle.dumps(made), mode=0o600)
    return made


def sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """As `sha256`, but read the file only if it has changed since the last time."""
    about = path.stat()
    # A write changes the ctime, which no program can set back, if not twice within a moment.
    if time.time_ns() - about.st_ctime_ns < 1_000_000_000:
        return sha256(path)
    stamp = f"{path} {about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
    name = f"checksum-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    return remembered(name, [stamp.encode()], lambda: sha256(path))
