"""FTP traffic from inside a client's network namespace, by Python's ftplib.

A session is one control connection. Each transfer has a data connection of its own, made in one of these
ways:

======  ==============================================================  ==================
PASV    the server's reply names an address and a port to connect to    RFC 959
EPSV    the reply names a port; the address is the control connection's RFC 2428
PORT    the client names an address and a port that it listens on       RFC 959
EPRT    the same, for IPv6 too                                          RFC 2428
======  ==============================================================  ==================

A session connects to the address in a reply to PASV, as clients did for decades. Many of today connect to
the server's known address instead, and so do not notice that a director has not rewritten the reply.
"""

from __future__ import annotations

import ftplib
import io
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, get_args

from lvslab.check.ipvs.table import address_of, endpoint
from lvslab.check.traffic import http, ports
from lvslab.check.traffic.http import Place
from lvslab.check.traffic.request import Here, Reply, RequestFailed
from lvslab.closing import Closing
from lvslab.errors import CheckFailed

TIMEOUT = 8.0
"""Seconds to wait for a connection, a reply, and each piece of a file. The lab's servers give up a data
connection earlier, so that their reply says so."""

Method = Literal["PASV", "EPSV", "PORT", "EPRT"]
PASSIVE: frozenset[Method] = frozenset({"PASV", "EPSV"})

Failure = http.Failure | Literal["bad-reply", "no-data"]
_MESSAGES: Mapping[Failure, str] = {
    "no-connection": "{what}: no answer in time",
    "refused": "{what} was refused",
    "unreachable": "{what}: no route to the address, or no node has it",
}

_SHORT = 1 << 16


@dataclass(frozen=True)
class DataConnection:
    """A data connection.

    ``announced`` is the endpoint in the server's reply, or in the client's command; ``client`` and ``other``
    are its two ends as the client saw them, "" where it was not made.
    """

    method: Method
    announced: str
    client: str = ""
    other: str = ""


@dataclass(frozen=True)
class Transfer:
    """One complete transfer of the file or folder ``name``.

    ``size`` is in bytes; ``content`` is what was received, empty where that is more than 64 KiB.
    """

    name: str
    data: DataConnection
    size: int
    sha256: str
    seconds: float
    content: bytes = field(default=b"", repr=False)


class FtpFailed(CheckFailed):
    """A failed FTP session.

    ``kind`` says how it ended; ``server`` and ``control`` are as in `Session`, "" where there was no
    connection; ``data`` is the data connection that was tried, if any.
    """

    def __init__(
        self,
        kind: Failure,
        message: str,
        hint: str | None = None,
        *,
        server: str = "",
        control: str = "",
        data: DataConnection | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.kind: Failure = kind
        self.server = server
        self.control = control
        self.data = data


class Session(Closing):
    """One control connection from ``place`` to ``address`` and ``port``, logged in as anonymous.

    ``server`` is the real server's name, from its greeting; ``control`` the client's end of the connection.
    With ``trusting`` false the address in a reply to PASV is ignored. The connection is closed at the end of
    the ``with`` block. All of it raises FtpFailed.
    """

    def __init__(
        self,
        place: Place,
        address: str,
        port: int = 21,
        *,
        timeout: float = TIMEOUT,
        trusting: bool = True,
    ) -> None:
        self._place = place
        self._virtual = endpoint(address, port)
        self._client = _Client(timeout, trusting)
        self.server = self.control = ""
        place.call(self._begin, address, port)

    def retrieve(self, name: str, method: Method = "PASV") -> Transfer:
        """Retrieve the file ``name``."""
        return self._place.call(self._transfer, f"RETR {name}", name, method)

    def listing(self, folder: str = "", method: Method = "PASV") -> tuple[str, ...]:
        """List the names in ``folder``, sorted."""
        got = self._place.call(self._transfer, f"NLST {folder}".rstrip(), folder, method)
        return tuple(sorted(got.content.decode(errors="replace").split("\r\n")[:-1]))

    def store(self, name: str, content: bytes, method: Method = "PASV") -> Transfer:
        """Store ``content`` as the file ``name`` on the server."""
        return self._place.call(self._store, name, content, method)

    def quit(self) -> None:
        """Send QUIT and wait for the end of the stream: the server's FIN has passed the director."""
        self._place.call(self._quit)

    def close(self) -> None:
        """Close the connection, if it is open."""
        self._client.close()

    def _begin(self, address: str, port: int) -> None:
        with self._told(f"the control connection to {self._virtual}"):
            greeting = ports.on_fresh(
                lambda own: self._client.connect(address, port, source_address=("", own))
            )
            self.server = greeting.partition(" ")[2].split("\n")[0].strip()
            self.control = _end(self._client.control.getsockname())
            self._client.login()

    def _transfer(self, command: str, name: str, method: Method) -> Transfer:
        digest, size, kept = sha256(), 0, bytearray()

        def take(piece: bytes) -> None:
            nonlocal size
            digest.update(piece)
            size += len(piece)
            if len(kept) <= _SHORT:
                kept.extend(piece)

        self._client.begin(method)
        begun = time.monotonic()
        with self._told(f"{command} by {method}"):
            self._client.retrbinary(command, take, 1 << 16)
        seconds, content = time.monotonic() - begun, bytes(kept) if size <= _SHORT else b""
        return Transfer(name, self._client.data, size, digest.hexdigest(), seconds, content)

    def _store(self, name: str, content: bytes, method: Method) -> Transfer:
        self._client.begin(method)
        begun = time.monotonic()
        with self._told(f"STOR {name} by {method}"):
            self._client.storbinary(f"STOR {name}", io.BytesIO(content), 1 << 16)
        seconds = time.monotonic() - begun
        return Transfer(name, self._client.data, len(content), sha256(content).hexdigest(), seconds)

    def _quit(self) -> None:
        with self._told("QUIT"):
            self._client.voidcmd("QUIT")
            while self._client.control.recv(4096):
                pass
        self._client.close()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Raise FtpFailed for an error in the block, which does ``what``."""
        try:
            yield
        except (OSError, EOFError, ftplib.Error) as error:
            about = {"server": self.server, "control": self.control}
            data = self._client.data if self._client.data.announced else None
            kind, message, hint = _explained(what, error, data, self._client.sock is not None)
            self._client.close()
            raise FtpFailed(kind, message, hint, **about, data=data) from error


def ask(address: str, port: int, request_id: str) -> Reply:
    """Log in and QUIT from the calling thread's network. Raises RequestFailed.

    ``status`` and ``body`` of the reply are the greeting's. The server does not log ``request_id``.
    """
    began = time.monotonic()
    try:
        with Session(Here(), address, port, timeout=TIMEOUT) as session:
            session.quit()
    except FtpFailed as failure:
        kind: http.Failure = next((each for each in get_args(http.Failure) if each == failure.kind), "other")
        raise RequestFailed(kind, request_id, failure.message, failure.hint) from failure
    own = address_of(session.control), int(session.control.rpartition(":")[2])
    return Reply(session.server, 220, session.server, request_id, time.monotonic() - began, *own)


class _Client(ftplib.FTP):
    """ftplib's client, with all four ways to make a data connection, for IPv4 and IPv6."""

    def __init__(self, timeout: float, trusting: bool) -> None:
        super().__init__(timeout=timeout)
        self.trusting = trusting
        self.data = DataConnection("PASV", "")

    @property
    def control(self) -> socket.socket:
        """The control connection."""
        assert self.sock is not None
        return self.sock

    def begin(self, method: Method) -> None:
        """Make the next data connections by ``method``."""
        self.data = DataConnection(method, "")

    def makepasv(self) -> tuple[str, int]:
        known = self.control.getpeername()
        if self.data.method == "EPSV":
            host, port = ftplib.parse229(self.sendcmd("EPSV"), known)
        else:
            host, port = ftplib.parse227(self.sendcmd("PASV"))
        self.data = DataConnection(self.data.method, endpoint(host, port))
        return (host if self.trusting else str(known[0])), port

    def makeport(self) -> socket.socket:
        host = str(self.control.getsockname()[0])
        listener = ports.on_fresh(
            lambda port: socket.create_server((host, port), family=self.control.family, backlog=1)
        )
        port = int(listener.getsockname()[1])
        listener.settimeout(self.timeout)
        self.data = DataConnection(self.data.method, endpoint(host, port))
        try:
            if self.data.method == "EPRT":
                self.voidcmd(f"EPRT |{2 if ':' in host else 1}|{host}|{port}|")
            else:
                self.sendport(host, port)
        except BaseException:
            listener.close()
            raise
        return listener

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        # ftplib's own does not tell of a data connection that was made where the command then failed.
        if self.data.method in PASSIVE:
            connection = socket.create_connection(self.makepasv(), self.timeout)
            self._made(connection)
            try:
                self._ask(cmd)
            except BaseException:
                connection.close()
                raise
        else:
            with self.makeport() as listener:
                self._ask(cmd)
                connection, _ = listener.accept()
            connection.settimeout(self.timeout)
            self._made(connection)
        return connection, None

    def _ask(self, command: str) -> None:
        if not (reply := self.sendcmd(command)).startswith("1"):
            raise ftplib.error_reply(reply)

    def _made(self, connection: socket.socket) -> None:
        with suppress(OSError):  # it may be broken already
            ends = _end(connection.getsockname()), _end(connection.getpeername())
            self.data = DataConnection(self.data.method, self.data.announced, *ends)


def _end(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    return endpoint(str(name[0]), int(name[1]))


def _explained(
    what: str, error: Exception, data: DataConnection | None, connected: bool
) -> tuple[Failure, str, str | None]:
    """Return the kind of failure, a message and a hint. ``connected``: the control connection was made."""
    if isinstance(error, ftplib.Error):
        if str(error).startswith("425"):
            return "no-data", f"{what}: the server could not make the data connection ({error})", None
        return "bad-reply", f"{what}: the server replied {str(error)!r}", None
    if data is not None and data.method in PASSIVE and not data.client:
        where = f"{what}: the reply named {data.announced}, and the client cannot connect there"
        return "no-data", f"{where}: {_reason(error)}", None
    kind = http.failure_kind(error, connected=connected)
    if kind in _MESSAGES:
        return kind, _MESSAGES[kind].format(what=what), http.EXPLANATIONS[kind][1]
    if kind == "no-reply":
        said = "no greeting" if "control connection" in what else "no reply, or no data,"
        return kind, f"{what}: {said} in time", None
    return "broken-off", f"{what}: the connection broke off ({_reason(error)})", None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
