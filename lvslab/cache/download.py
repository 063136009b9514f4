"""One file over HTTP, or out of a folder: as it comes, going on where it broke off."""

from __future__ import annotations

import errno
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lvslab.errors import BuildError

if TYPE_CHECKING:
    from requests import Response

log = logging.getLogger("lvslab.progress.download")

CONNECT = 10.0  # seconds until a server is held to be unreachable
SILENT = 60.0  # seconds without a byte after which a connection is held to be dead
ATTEMPTS = 3  # how often in a row a connection may bring nothing
MIB = 1 << 20
SPARE = 16 * MIB  # disk space that a download leaves free


class NotThere(BuildError):
    """The server has no such file."""


class Unreachable(BuildError):
    """The server does not answer, or not to its end."""


def fetch(url: str, part: Path) -> None:
    """Make ``part`` hold the whole file of ``url`` (http, https or file), after what it holds already.

    Says how far it is through the log. Whatever came stays in ``part`` if the rest does not come. Raises
    NotThere, Unreachable, and BuildError where the disk is full.
    """
    if urlsplit(url).scheme == "file":
        return _copy(url, part)
    attempts = ATTEMPTS
    while True:
        before = _size(part)
        try:
            return _once(url, part)
        except Unreachable as cut:
            attempts = ATTEMPTS if _size(part) > before else attempts - 1
            if attempts == 0:
                raise
            log.debug("%s; going on after %d bytes", cut.message, _size(part))


def content(url: str, limit: int = 16 * MIB) -> bytes:
    """A small file as a whole. Raises as ``fetch`` does; BuildError where it is longer than ``limit``
    bytes."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="lvslab-") as made:
        part = Path(made) / "part"
        fetch(url, part)
        if _size(part) > limit:
            raise BuildError(f"{url} is longer than {limit} bytes: it is not what it should be")
        return part.read_bytes()


def _copy(url: str, part: Path) -> None:
    path = Path(unquote(urlsplit(url).path))
    try:
        source = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotThere(f"there is no file {path}") from None
    except PermissionError:
        raise BuildError(f"{path} may not be read") from None
    with source, part.open("wb") as target, _room_for(part, path.stat().st_size):
        shutil.copyfileobj(source, target, MIB)


def _once(url: str, part: Path) -> None:
    """What one connection brings. Raises Unreachable where it ends before its time."""
    # 150 ms that only a download has to wait for.
    import requests
    import urllib3

    there = _size(part)
    # Compression on the way would make ranges and lengths those of something else.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={there}-"} if there else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT, SILENT)) as answer:
            match answer.status_code:
                case 200:
                    there = 0
                case 206 if _begins(answer) == there:
                    pass
                case 416 if answer.headers.get("Content-Range") == f"bytes */{there}":
                    return  # it was complete
                case 206 | 416:
                    # The part is of another file. Without it the server will send all.
                    part.unlink()
                    raise Unreachable(f"{url} cannot be continued after {there} bytes")
                case 404 | 410:
                    raise NotThere(f"{_host(url)} has no {urlsplit(url).path}")
                case status if 400 <= status < 500:  # some say that nobody may have what is not there
                    raise NotThere(f"{_host(url)} answers {status} {answer.reason} for {url}")
                case status:
                    raise Unreachable(f"{_host(url)} answers {status} {answer.reason}")
            length = answer.headers.get("Content-Length", "")
            total = there + int(length) if length.isdigit() else None
            _take(answer, part, there, total)
    except requests.exceptions.ConnectTimeout:
        raise Unreachable(f"{_host(url)} does not answer within {CONNECT:g} s") from None
    except (requests.exceptions.Timeout, urllib3.exceptions.HTTPError):
        raise Unreachable(f"{_host(url)} broke off after {_size(part)} bytes of {_name(url)}") from None
    except requests.exceptions.ConnectionError as broken:
        # Behind a cut connection as well as behind one that never was.
        if _size(part) > there:
            raise Unreachable(f"{_host(url)} broke off after {_size(part)} bytes of {_name(url)}") from None
        raise Unreachable(f"{_host(url)} cannot be reached: {_reason(broken)}") from None
    except (requests.exceptions.RequestException, ValueError) as wrong:
        raise BuildError(f"{url} cannot be downloaded: {wrong}") from None


def _take(answer: Response, part: Path, there: int, total: int | None) -> None:
    tell = _teller(_name(answer.url), total)
    with _room_for(part, (total or 0) - there), part.open("r+b" if there else "wb") as stream:
        stream.seek(there)
        stream.truncate()
        # Not iter_content: of a connection that is cut it drops what is less than a chunk.
        while chunk := answer.raw.read1(64 << 10, decode_content=False):
            stream.write(chunk)
            there += len(chunk)
            tell(there)
    if total is not None and there != total:
        raise Unreachable(f"{_host(answer.url)} broke off after {there} of {total} bytes")


class _room_for:
    """Raises BuildError where the disk of ``part`` has no room for so many more bytes, now or in the
    block."""

    def __init__(self, part: Path, size: int) -> None:
        self._part = part
        free = shutil.disk_usage(part.parent).free
        if size + SPARE > free:
            self._refuse(f"{size / MIB:.0f} MiB are needed, {free / MIB:.0f} are free")

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        if isinstance(value, OSError) and value.errno in (errno.ENOSPC, errno.EDQUOT):
            self._refuse("what came is kept")

    def _refuse(self, why: str) -> None:
        raise BuildError(
            f"there is no room on the disk of {self._part.parent}: {why}",
            "make room, or set LVSLAB_CACHE to a folder elsewhere; the download then goes on",
        ) from None


def _teller(name: str, total: int | None) -> Callable[[int], None]:
    """Logs how far a download is, some times a second, as passing news: see ``show.Progress``."""
    began = spoke = time.monotonic()
    first: int | None = None

    def tell(there: int) -> None:
        nonlocal spoke, first
        now = time.monotonic()
        first = there if first is None else first
        if now - spoke < 0.2:
            return
        spoke = now
        log.info(far(name, there, total, (there - first) / (now - began)), extra={"passing": True})

    return tell


def far(name: str, there: int, total: int | None, speed: float) -> str:
    """How far a download is, in words: sizes in bytes, ``speed`` in bytes a second."""
    whole = f" of {total / MIB:.1f}" if total else ""
    left = f", {(total - there) / speed:.0f} s left" if total and speed > 0 else ""
    return f"{name}: {there / MIB:.1f}{whole} MiB, {speed / MIB:.1f} MiB/s{left}"


def _begins(answer: Response) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found.group(1)) if found else -1


def _reason(error: BaseException) -> str:
    """The innermost cause of an error of requests, which has the system's own words."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    queue: list[object] = [error]
    while queue:
        cause = queue.pop()
        if isinstance(cause, BaseException):
            queue += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
            yield cause


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]
