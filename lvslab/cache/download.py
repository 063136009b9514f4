"""Download a file with curl, and continue where an earlier attempt broke off."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import select
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lvslab.errors import BuildError
from lvslab.run import PIPE, ended, spawn

log = logging.getLogger("lvslab.progress.download")

CONNECT = 10  # seconds until a server counts as unreachable
SILENT = 60  # seconds without a byte after which a connection counts as dead
ATTEMPTS = 3  # how many connections in a row may bring nothing
MIB = 1 << 20
OFTEN = 0.2  # seconds between two lines of progress
SPARE = 16 * MIB  # disk space that a download leaves free

# Exit statuses of curl, as in its manual.
_WRITE_ERROR, _TIMEOUT, _NO_RANGES, _TOO_LARGE = 23, 28, 33, 63
_UNREACHABLE = (5, 6, 7, 35, 60)  # proxy, host name, connection, TLS, certificate
_BROKEN_OFF = (16, 18, 52, 55, 56, 92)  # HTTP/2, partial file, empty answer, send, receive, HTTP/2 stream


class NotThere(BuildError):
    """The server does not have the file."""


class Unreachable(BuildError):
    """The server does not answer, or breaks off."""


def fetch(url: str, part: Path) -> None:
    """Complete ``part``, which may hold the beginning of the file at ``url``.

    ``url`` begins with http, https or file. Logs its progress. If the rest does not arrive, ``part`` keeps
    what has. Raises NotThere, Unreachable, and BuildError where the disk is full.
    """
    if urlsplit(url).scheme == "file":
        return _copy(url, part)
    attempts, largest = ATTEMPTS, _size(part)
    while True:
        try:
            return _once(url, part)
        except Unreachable as cut:
            size = _size(part)
            attempts = ATTEMPTS if size > largest else attempts - 1
            largest = max(largest, size)
            if attempts == 0:
                raise
            log.debug("%s; going on after %d bytes", cut.message, size)


def content(url: str, limit: int = 16 * MIB) -> bytes:
    """Return the content of a small file. Raises as `fetch`; BuildError where it exceeds ``limit`` bytes."""
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
        with path.open("rb") as source:
            _need_room(part, path.stat().st_size)
            with part.open("wb") as target:
                shutil.copyfileobj(source, target, MIB)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotThere(f"there is no file {path}") from None
    except PermissionError:
        raise BuildError(f"{path} may not be read") from None
    except OSError as full:
        if full.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(part, "what came is kept") from None


def _once(url: str, part: Path) -> None:
    """Continue ``part`` over one connection. Raises Unreachable where it ends early."""
    there, room = _size(part), shutil.disk_usage(part.parent).free - SPARE
    # No --retry: it would drop what the attempt before it has brought.
    headers, about = _curl(
        *("--fail", "--location", "--proto", "=http,https", "--connect-timeout", str(CONNECT)),
        *("--speed-limit", "1", "--speed-time", str(SILENT), "--max-filesize", str(max(room, 1))),
        *("--continue-at", "-", "--output", str(part), "--url", url),
        part=part,
    )
    code, status, host = about["exitcode"], about["http_code"], urlsplit(url).netloc.rpartition("@")[2]
    length = _length(headers)
    if status == 416:  # the part is complete, or too long
        code = 0 if _header(headers, "Content-Range") == f"bytes */{there}" else _NO_RANGES
    if code == 0:
        part.touch()
    elif code == _NO_RANGES:  # without the part the server will send all
        part.unlink()
        raise Unreachable(f"{url} cannot be continued after {there} bytes")
    elif status in (404, 410):
        raise NotThere(f"{host} has no {urlsplit(url).path}")
    elif status >= 400:  # some servers forbid what they do not have
        said = headers.partition("\n")[0].partition(" ")[2].strip()
        if status < 500:
            raise NotThere(f"{host} answers {said} for {url}")
        raise Unreachable(f"{host} answers {said}")
    elif code == _TOO_LARGE:
        _need_room(part, length or 0)
        raise Unreachable(f"{host} broke off after {_size(part)} bytes")  # room was made just now
    elif code == _WRITE_ERROR:
        raise _no_room(part, "what came is kept")
    elif code in _BROKEN_OFF or (code == _TIMEOUT and about["time_connect"]):
        total = "" if length is None else f" of {there + length}"
        raise Unreachable(f"{host} broke off after {_size(part)}{total} bytes of {_name(url)}")
    elif code == _TIMEOUT:
        raise Unreachable(f"{host} does not answer within {CONNECT} s")
    elif code in _UNREACHABLE:
        raise Unreachable(f"{host} cannot be reached: {about['errormsg']}")
    else:
        raise BuildError(f"{url} cannot be downloaded: {about['errormsg']}")


def _curl(*options: str, part: Path) -> tuple[str, dict[str, Any]]:
    """Run curl and log how ``part`` grows. Return the last answer's headers and ``%{json}`` of curl."""
    command = ["curl", "--disable", "--globoff", "--silent", "--dump-header", "-", *options]
    before, said = _size(part), b""
    began = spoke = time.monotonic()
    with spawn([*command, "--write-out", r"\n%{json}"], stdout=PIPE) as curl:
        assert curl.stdout is not None
        while True:
            if select.select([curl.stdout], [], [], OFTEN)[0]:
                if not (chunk := os.read(curl.stdout.fileno(), 1 << 16)):
                    break
                said += chunk
            if (now := time.monotonic()) - spoke >= OFTEN:
                spoke, there, length = now, _size(part), _length(_last_headers(said))
                total = None if length is None else before + length
                progress = far(_name(options[-1]), there, total, (there - before) / (now - began))
                log.info(progress, extra={"passing": True})
        status = curl.wait()
    if status < 0:
        raise BuildError(ended("curl", status))
    return _last_headers(said), json.loads(said.rpartition(b"\n")[2])


def _last_headers(said: bytes) -> str:
    """Return the headers of the last answer; those before it are of redirections and proxies."""
    return f"\n{said.decode('latin-1')}".rpartition("\nHTTP/")[2]


def _header(headers: str, name: str) -> str:
    found = re.search(rf"^{name}:[ \t]*(.*?)\r?$", headers, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else ""


def _length(headers: str) -> int | None:
    announced = _header(headers, "Content-Length")
    return int(announced) if announced.isdigit() else None


def _need_room(part: Path, size: int) -> None:
    """Raise BuildError where the disk of ``part`` has no room for ``size`` more bytes."""
    free = shutil.disk_usage(part.parent).free
    if size + SPARE > free:
        raise _no_room(part, f"{size / MIB:.0f} MiB are needed, {free / MIB:.0f} are free")


def _no_room(part: Path, why: str) -> BuildError:
    return BuildError(
        f"there is no room on the disk of {part.parent}: {why}",
        "make room, or set LVSLAB_CACHE to a folder elsewhere; the download then goes on",
    )


def far(name: str, there: int, total: int | None, speed: float) -> str:
    """Describe the progress: sizes in bytes, ``speed`` in bytes a second."""
    whole = f" of {total / MIB:.1f}" if total else ""
    left = f", {(total - there) / speed:.0f} s left" if total and speed > 0 else ""
    return f"{name}: {there / MIB:.1f}{whole} MiB, {speed / MIB:.1f} MiB/s{left}"


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]
