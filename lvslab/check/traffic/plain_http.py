"""One HTTP request on a connection of its own, over a plain socket, and how it ended.

Nothing here raises for a request that fails: whoever makes hundreds of them during maintenance wants to
count them all. `lvslab.check.traffic.http` is for requests each of which must be answered.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import ports
from lvslab.check.traffic.http import ID_HEADER, SERVER_HEADER, Failure, Place

Failed = Failure | Literal["status"]
"""How a request can fail: as those of `lvslab.check.traffic.http` do, or with another status than 200."""

PATIENCE = 4.0
"""Seconds to wait for a connection, and for each piece of a reply."""

_LINE_EVERY = 0.1


@dataclass(frozen=True)
class Answer:
    """What came of one request. ``server`` is the real server that names itself in the reply, "" for none;
    ``source`` the client's end of the connection as ``address:port``, "" where it had none; ``status`` is 0
    where no whole head of a reply came; ``began`` and ``ended`` are readings of the monotonic clock."""

    request_id: str
    source: str
    server: str
    status: int
    body: bytes
    began: float
    ended: float
    failure: Failed | None


@dataclass(frozen=True)
class Reply:
    """A reply as it came over the wire; ``length`` is what Content-Length says, None where it is not
    there."""

    status: int
    server: str
    length: int | None
    body: bytes

    @property
    def whole(self) -> bool:
        return self.length is None or len(self.body) == self.length


def ask(
    place: Place,
    address: str,
    port: int,
    request_id: str,
    *,
    path: str = "/",
    seconds: float = 0.0,
    enough: Callable[[], bool] = lambda: False,
    patience: float = PATIENCE,
    source_port: int = 0,
    connected: Callable[[], None] = lambda: None,
) -> Answer:
    """Ask ``address``:``port`` for ``path`` from ``place``, and read to the end of the stream. The client's
    port is a fresh one, or ``source_port``. ``connected`` is called when the connection is there, which is
    when a director has chosen its server.

    A request of some ``seconds`` is a slow client's: it is connected at once, and sends a line of its head
    now and then until the time is over or ``enough`` says so. Meanwhile its connection is in use.
    """
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    began, source, received = time.monotonic(), "", b""
    failure: Failed | None = None
    # The socket belongs to the namespace in which it is made; what is done with it may be done elsewhere.
    with place.call(socket.socket, family, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        try:
            if source_port:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                connection.bind(("", source_port))
            else:
                ports.on_fresh(lambda own: connection.bind(("", own)))
            connection.connect((address, port))
            source = endpoint(*connection.getsockname()[:2])
            connected()
            _send(connection, endpoint(address, port), path, request_id, seconds, enough)
            while part := connection.recv(1 << 16):
                received += part
        except OSError as error:
            failure = reason(error, connected=bool(source), received=received)
    reply = parse(received)
    if failure is None:
        failure = None if reply is not None and reply.whole else "broken-off"
    if failure is None and reply is not None and reply.status != 200:
        failure = "status"
    return Answer(
        request_id,
        source,
        reply.server if reply else "",
        reply.status if reply else 0,
        reply.body if reply else b"",
        began,
        time.monotonic(),
        failure,
    )


def _send(
    connection: socket.socket,
    host: str,
    path: str,
    request_id: str,
    seconds: float,
    enough: Callable[[], bool],
) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{ID_HEADER}: {request_id}\r\nConnection: close\r\n"
    connection.sendall(head.encode())
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not enough():
        # A client's pace is what this makes, and nothing to wait for.
        time.sleep(min(_LINE_EVERY, left))
        connection.sendall(b"X-Slow: yes\r\n")
    connection.sendall(b"\r\n")


def reason(error: OSError, *, connected: bool, received: bytes) -> Failed:
    """How a request failed whose socket raised ``error``."""
    if isinstance(error, TimeoutError) and error.errno in (None, errno.ETIMEDOUT):
        if not connected:
            return "no-connection"
        reply = parse(received)
        if reply is None:
            return "no-reply" if not received else "broken-off"
        return "not-closed" if reply.whole else "broken-off"
    if error.errno == errno.ECONNREFUSED:
        return "refused"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "broken-off"
    return "other"


def parse(received: bytes) -> Reply | None:
    """A reply, None where its head is not whole or is no HTTP."""
    head, found, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split()
    if not found or len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
        return None
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in lines)
    }
    length = fields.get("content-length", "")
    return Reply(
        int(words[1]),
        fields.get(SERVER_HEADER.lower(), ""),
        int(length) if length.isdecimal() else None,
        body,
    )
