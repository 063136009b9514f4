"""HTTP requests from inside a client's network namespace.

A `Connection` is the only HTTP client: Python's ``http.client`` reads replies from a socket that is made and
connected here, so nothing follows redirects, asks a proxy or tries again. On top of it are `get` and
`requests_in_turn`, which raise where a request fails; `attempt`, which records it; and
`lvslab.check.traffic.held`, whose connections stay open.

A request is finished when its connection is. The reply is read to the end of the stream, so the server's FIN
has passed the director and the connection is inactive there (see `lvslab.check.schedulers`); only then does
the client close its own side. So requests in turn meet a scheduler that counts exactly.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic.request import EXPLANATIONS as EXPLANATIONS
from lvslab.check.traffic.request import TIMEOUT as TIMEOUT
from lvslab.check.traffic.request import Failure as Failure
from lvslab.check.traffic.request import Here as Here
from lvslab.check.traffic.request import Place as Place
from lvslab.check.traffic.request import Reply as Reply
from lvslab.check.traffic.request import RequestFailed as RequestFailed
from lvslab.check.traffic.request import connect, failed, in_turn
from lvslab.check.traffic.request import failure_kind as failure_kind
from lvslab.check.traffic.request import new_request_id as new_request_id
from lvslab.closing import Closing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SERVER_HEADER = "X-Real-Server"
ID_HEADER = "X-Request-ID"
PATIENCE = 4.0
"""Seconds that `attempt` waits for a connection, and for each piece of a reply."""

_LINE_EVERY = 0.1
_PADDING_LINE = 1000
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_KEPT_IN_PATHS = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True)
class Attempt:
    """One request and how it ended.

    ``server`` is the real server that the reply names, "" for none; ``source`` the client's end of the
    connection as ``address:port``, "" where no connection was made; ``status`` is 0 where no whole head of a
    reply came, and ``body`` is empty where the reply is not whole; ``began`` and ``ended`` are readings of
    the monotonic clock.
    """

    request_id: str
    source: str
    server: str
    status: int
    body: bytes
    began: float
    ended: float
    failure: Failure | None


class _Received(io.RawIOBase):
    """The file from which http.client reads a reply; ``data`` is all that has been read."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self.data = bytearray()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = self._stream.recv_into(buffer)
        self.data += memoryview(buffer)[:count]
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


def padded(size: int) -> bytes:
    """Return header lines without a meaning, of ``size`` bytes at least."""
    # Servers limit the length of a line, and of the whole head (32 KiB: nginx, busybox httpd).
    line = b"X-Padding: " + b"0" * _PADDING_LINE + b"\r\n"
    return line * -(-size // len(line))


def unverified() -> ssl.SSLContext:
    """Return TLS settings that take any certificate: those of the lab's servers are signed by nobody."""
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    settings.check_hostname = False
    settings.verify_mode = ssl.CERT_NONE
    return settings


class Connection(Closing):
    """A connection to a web server, and the requests that are made on it.

    The addresses of ``host`` are tried in the order of getaddrinfo. Only the socket is made in ``place``,
    where it belongs from then on. The client's end is ``source`` (any of its addresses where none is given)
    and ``source_port`` (a fresh port for 0). ``timeouts`` are the seconds to wait for each address and for
    each piece of a reply. With ``tls`` it is one of https. ``server``, ``status`` and ``body`` are the last
    reply's: "", 0 and empty where none has come. All of it raises RequestFailed.
    """

    def __init__(
        self,
        place: Place,
        host: str,
        port: int,
        *,
        source: str = "",
        source_port: int = 0,
        request_id: str = "",
        timeouts: tuple[float, float] = (TIMEOUT, TIMEOUT),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target, self._request_id = endpoint(host, port), request_id
        self._whole = self._surplus = self._begun = False
        self.server, self.status, self.body = "", 0, b""
        try:
            stream = connect(place, (host, port), (source, source_port), timeouts[0])
        except OSError as error:
            raise self._failure(error, timeouts[0], connected=False) from error
        self.source_address, self.source_port = stream.getsockname()[:2]
        self._stream, self._read_timeout = stream, timeouts[1]
        stream.settimeout(self._read_timeout)
        if tls is not None:
            try:
                self._stream = tls.wrap_socket(stream, server_hostname=host)
            except OSError as error:
                stream.close()
                raise self._failure(error, self._read_timeout) from error

    @property
    def is_open(self) -> bool:
        """True until `close`."""
        return self._stream.fileno() >= 0

    def request(
        self,
        path: str = "/",
        *,
        last: bool = True,
        seconds: float = 0.0,
        enough: Callable[[], bool] = lambda: False,
        padding: int = 0,
    ) -> None:
        """Ask for ``path`` and read the whole reply; any status will do.

        ``padding`` are bytes by which the head is longer than it need be, up to 30000.
        With ``last`` the server is told to close the connection after it. A request of some ``seconds`` is a
        slow client's: a line of its head is sent now and then until they are over or ``enough`` says so.
        """
        self._whole = self._surplus = self._begun = False
        try:
            self._send(path, last, seconds, enough, padding)
            self._receive()
        except (OSError, HTTPException) as error:
            raise self._failure(error, self._read_timeout) from error

    def await_end(self) -> bool:
        """Wait until the server has closed its side; return True if more data came."""
        try:
            while self._stream.recv(1 << 16):
                self._surplus = True
            # Over TLS the server has said that no more data will come; its FIN is not read yet.
            while socket.socket.recv(self._stream, 1 << 16):
                pass
        except OSError as error:
            raise self._failure(error, self._read_timeout) from error
        return self._surplus

    def close(self) -> None:
        """Close the client's side and wait for nothing. A second time does nothing."""
        self._stream.close()

    def _send(self, path: str, last: bool, seconds: float, enough: Callable[[], bool], padding: int) -> None:
        lines = [f"GET {quote(path, safe=_KEPT_IN_PATHS)} HTTP/1.1", f"Host: {self._target}"]
        lines += [f"{ID_HEADER}: {self._request_id}"] if self._request_id else []
        lines += ["Connection: close"] if last else []
        head = "".join(f"{line}\r\n" for line in lines).encode() + padded(padding)
        if seconds:
            self._stream.sendall(head)
            head, end = b"", time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0 and not enough():
                # This makes a client's pace; it does not wait for anything.
                time.sleep(min(_LINE_EVERY, left))
                self._stream.sendall(b"X-Slow: yes\r\n")
        # In one piece: a second one would wait until the first is acknowledged.
        self._stream.sendall(head + b"\r\n")

    def _receive(self) -> None:
        received = _Received(self._stream)
        reply = HTTPResponse(received, method="GET")  # type: ignore[arg-type]  # it only calls makefile
        try:
            reply.begin()
            if not (head := _END_OF_HEAD.search(received.data)):
                raise IncompleteRead(b"")  # http.client takes the end of the stream for that of the head
            self.server, self.status = reply.headers.get(SERVER_HEADER, ""), reply.status
            # A reply of unknown length is whole whenever the server closes the connection.
            self._whole = reply.length is None and not reply.chunked
            self.body = reply.read()
            self._surplus = not reply.chunked and len(received.data) > head.end() + len(self.body)
            self._whole = True
        finally:
            self._begun = bool(received.data)
            reply.close()

    def _failure(self, error: Exception, seconds: float, *, connected: bool = True) -> RequestFailed:
        kind = failure_kind(error, connected=connected, begun=self._begun, whole=self._whole)
        return failed(kind, self._request_id, self._target, seconds, error)


def get(
    url: str,
    *,
    request_id: str | None = None,
    connect_timeout: float = TIMEOUT,
    read_timeout: float = TIMEOUT,
    tls: ssl.SSLContext | None = None,
    padding: int = 0,
) -> Reply:
    """Request ``url`` (http or https) once, in the caller's network namespace.

    The request has a connection of its own. Any status is a reply. Timeouts are in seconds. ``tls`` are the
    settings for https, `unverified` by default; ``padding`` is as for `Connection.request`. Raises
    RequestFailed where no whole reply comes.
    """
    request_id = request_id or new_request_id()
    started = time.monotonic()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestFailed("other", request_id, f"the request to {url} failed: this is not an http URL")
    port, timeouts = parts.port or 80, (connect_timeout, read_timeout)
    if parts.scheme == "https":
        port, tls = parts.port or 443, tls or unverified()
    else:
        tls = None
    with Connection(
        Here(), parts.hostname, port, request_id=request_id, timeouts=timeouts, tls=tls
    ) as connection:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(path, padding=padding)
        connection.await_end()
    return Reply(
        server=connection.server,
        status=connection.status,
        body=connection.body.decode(errors="replace"),
        request_id=request_id,
        seconds=time.monotonic() - started,
        source_address=connection.source_address,
        source_port=connection.source_port,
    )


def requests_in_turn(namespace: Place, url: str, count: int) -> tuple[Reply, ...]:
    """Request ``url`` ``count`` times from ``namespace``, each request finished before the next begins.

    Returns the replies in order. Raises RequestFailed at the first request without a whole reply.
    """
    return in_turn(namespace, lambda request_id: get(url, request_id=request_id), count)


def attempt(
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
) -> Attempt:
    """Make one request from ``place`` on a connection of its own and record the result.

    It is for traffic of which some may fail: a failure is counted, not raised. ``connected`` is called when
    the connection is made, which is when a director has chosen its server. The other arguments are as in
    `Connection`; ``patience`` is both of its timeouts.
    """
    began, timeouts = time.monotonic(), (patience, patience)
    source, server, status, body = "", "", 0, b""
    failure: Failure | None = None
    try:
        with Connection(
            place, address, port, source_port=source_port, request_id=request_id, timeouts=timeouts
        ) as connection:
            source = endpoint(connection.source_address, connection.source_port)
            connected()
            try:
                connection.request(path, seconds=seconds, enough=enough)
                surplus = connection.await_end()
            finally:
                server, status, body = connection.server, connection.status, connection.body
        failure = "broken-off" if surplus else None if status == 200 else "status"
    except RequestFailed as failed:
        failure = failed.kind
    return Attempt(request_id, source, server, status, body, began, time.monotonic(), failure)
