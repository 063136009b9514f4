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

import errno
import re
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import ports
from lvslab.closing import Closing
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SERVER_HEADER = "X-Real-Server"
ID_HEADER = "X-Request-ID"
TIMEOUT = 5.0
"""Seconds to wait for a connection, and for each piece of a reply."""
PATIENCE = 4.0
"""The same for `attempt`."""

P = ParamSpec("P")
T = TypeVar("T")

Failure = Literal[
    "no-connection", "no-reply", "refused", "unreachable", "broken-off", "not-closed", "status", "other"
]
"""How a request can fail. ``status`` (another status than 200) is a failure of an `Attempt` only."""

_LINE_EVERY = 0.1
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_KEPT_IN_PATHS = "!#$%&'()*+,/:;=?@[]~"

EXPLANATIONS: Mapping[Failure, tuple[str, str | None]] = {
    "no-connection": (
        "no answer from {place} within {seconds:g} s: the connection was never made",
        "packets are lost on the way there or back: a director that does not forward, a real server whose "
        "replies take another way, or a filter that drops them",
    ),
    "no-reply": (
        "no answer from {place} within {seconds:g} s: the connection was made, but no reply came",
        "the real server accepts connections and does not answer: is its web server stuck?",
    ),
    "refused": (
        "connection refused by {place}",
        "nothing listens there: no such virtual service on the director, a service without a real server of "
        "weight above 0, or a stopped server on the real server that was chosen",
    ),
    "unreachable": (
        "{place} cannot be reached from here: no route, or no node on the network has the address",
        "is the virtual address on the director's interface, and does the client have a route to it?",
    ),
    "broken-off": (
        "the connection to {place} broke off before the reply was whole",
        "the real server died, or the director forgot the connection (its real server was removed?)",
    ),
    "not-closed": (
        "{place} answered, but did not close the connection within {seconds:g} s",
        "the client asked for it (Connection: close): was the end of the connection lost on its way?",
    ),
    "other": ("the request to {place} failed: {error}", None),
}
"""Message and hint for each kind of failure of a `Connection`."""


class Place(Protocol):
    """A network namespace that makes sockets: a `namespace.NamespaceThread`, or `Here`."""

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


class Here:
    """The network namespace of the calling thread."""

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function``."""
        return function(*args, **kwargs)


@dataclass(frozen=True)
class Reply:
    """A whole reply.

    ``server`` is the real server's name, "" where the reply does not give one; ``body`` is decoded as UTF-8.
    ``seconds`` run from before the connection to the end of the stream; ``source_address`` and
    ``source_port`` are the client's end of the connection.
    """

    server: str
    status: int
    body: str
    request_id: str
    seconds: float
    source_address: str
    source_port: int


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


class RequestFailed(CheckFailed):
    """A request that got no whole reply.

    ``kind`` says how it ended, ``request_id`` which one it was ("" on a held connection), and ``before``
    holds the replies to earlier requests of the same round.
    """

    def __init__(
        self,
        kind: Failure,
        request_id: str,
        message: str,
        hint: str | None = None,
        before: tuple[Reply, ...] = (),
    ) -> None:
        super().__init__(message, hint)
        self.kind: Failure = kind
        self.request_id = request_id
        self.before = before


class _Stream(socket.socket):
    """A socket that keeps what it has received."""

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self.received = bytearray()

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        count = super().recv_into(buffer, nbytes, flags)
        self.received += memoryview(buffer)[:count]
        return count


class Connection(Closing):
    """A TCP connection to a web server, and the requests that are made on it.

    The addresses of ``host`` are tried in the order of getaddrinfo. Only the socket is made in ``place``,
    where it belongs from then on. The client's end is ``source`` (any of its addresses where none is given)
    and ``source_port`` (a fresh port for 0). ``timeouts`` are the seconds to wait for each address and for
    each piece of a reply. ``server``, ``status`` and ``body`` are the last reply's: "", 0 and empty where
    none has come. All of it raises RequestFailed.
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
    ) -> None:
        self._target, self._request_id = endpoint(host, port), request_id
        self._whole = self._surplus = False
        self.server, self.status, self.body = "", 0, b""
        try:
            self._stream = _connected(place, (host, port), (source, source_port), timeouts[0])
        except OSError as error:
            raise self._failure(error, timeouts[0], connected=False) from error
        self.source_address, self.source_port = self._stream.getsockname()[:2]
        self._read_timeout = timeouts[1]
        self._stream.settimeout(self._read_timeout)

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
    ) -> None:
        """Ask for ``path`` and read the whole reply; any status will do.

        With ``last`` the server is told to close the connection after it. A request of some ``seconds`` is a
        slow client's: a line of its head is sent now and then until they are over or ``enough`` says so.
        """
        self._whole = self._surplus = False
        self._stream.received.clear()
        try:
            self._send(path, last, seconds, enough)
            self._receive()
        except (OSError, HTTPException) as error:
            raise self._failure(error, self._read_timeout) from error

    def await_end(self) -> bool:
        """Wait until the server has closed its side; return True if more data came."""
        try:
            while self._stream.recv(1 << 16):
                self._surplus = True
        except OSError as error:
            raise self._failure(error, self._read_timeout) from error
        return self._surplus

    def close(self) -> None:
        """Close the client's side and wait for nothing. A second time does nothing."""
        self._stream.close()

    def _send(self, path: str, last: bool, seconds: float, enough: Callable[[], bool]) -> None:
        lines = [f"GET {quote(path, safe=_KEPT_IN_PATHS)} HTTP/1.1", f"Host: {self._target}"]
        lines += [f"{ID_HEADER}: {self._request_id}"] if self._request_id else []
        lines += ["Connection: close"] if last else []
        head = "".join(f"{line}\r\n" for line in lines).encode()
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
        reply = HTTPResponse(self._stream, method="GET")
        try:
            reply.begin()
            if not (head := _END_OF_HEAD.search(self._stream.received)):
                raise IncompleteRead(b"")  # http.client takes the end of the stream for that of the head
            self.server, self.status = reply.headers.get(SERVER_HEADER, ""), reply.status
            # A reply of unknown length is whole whenever the server closes the connection.
            self._whole = reply.length is None and not reply.chunked
            self.body = reply.read()
            self._surplus = not reply.chunked and len(self._stream.received) > head.end() + len(self.body)
            self._whole = True
        finally:
            reply.close()

    def _failure(self, error: Exception, seconds: float, *, connected: bool = True) -> RequestFailed:
        begun = connected and bool(self._stream.received)
        kind = failure_kind(error, connected=connected, begun=begun, whole=self._whole)
        message, hint = EXPLANATIONS[kind]
        told = message.format(place=self._target, seconds=seconds, error=error)
        return RequestFailed(kind, self._request_id, told, hint)


def failure_kind(error: Exception, *, connected: bool, begun: bool = False, whole: bool = False) -> Failure:
    """Classify ``error`` of a connection on which a reply had ``begun`` or had come ``whole``."""
    if isinstance(error, TimeoutError):
        if not connected:
            return "no-connection"
        return "not-closed" if whole else "broken-off" if begun else "no-reply"
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        return "refused"
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    if isinstance(error, HTTPException) or number in (errno.ECONNRESET, errno.EPIPE):
        return "broken-off"
    return "other"


def _connected(place: Place, target: tuple[str, int], own: tuple[str, int], seconds: float) -> _Stream:
    """Connect to the first address of ``target`` that accepts. Raises OSError, the last address's."""
    source, source_port = own

    def connect(family: int, kind: int, address: tuple[Any, ...], port: int) -> _Stream:
        stream = place.call(_Stream, family, kind)
        try:
            if source_port:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.settimeout(seconds)
            stream.bind((source, port))
            stream.connect(address)
        except BaseException:
            stream.close()
            raise
        return stream

    failed: OSError | None = None
    for family, kind, _, _, address in socket.getaddrinfo(*target, type=socket.SOCK_STREAM):
        to_address = partial(connect, family, kind, address)
        try:
            return to_address(source_port) if source_port else ports.on_fresh(to_address)
        except OSError as error:
            failed = error
    assert failed is not None, "getaddrinfo raises where it finds none"
    raise failed


def new_request_id(index: int = 0) -> str:
    """Make a unique request id, which ends with ``index``, the request's number in its round."""
    return f"{uuid.uuid4().hex}-{index}"


def get(
    url: str,
    *,
    request_id: str | None = None,
    connect_timeout: float = TIMEOUT,
    read_timeout: float = TIMEOUT,
) -> Reply:
    """Request ``url`` (http) once, on a connection of its own, in the caller's network namespace.

    Any status is a reply. Timeouts are in seconds. Raises RequestFailed where no whole reply comes.
    """
    request_id = request_id or new_request_id()
    started = time.monotonic()
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise RequestFailed("other", request_id, f"the request to {url} failed: this is not an http URL")
    port, timeouts = parts.port or 80, (connect_timeout, read_timeout)
    with Connection(Here(), parts.hostname, port, request_id=request_id, timeouts=timeouts) as connection:
        connection.request((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
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
    replies: list[Reply] = []

    def in_turn() -> None:
        for index in range(count):
            replies.append(get(url, request_id=new_request_id(index)))

    try:
        namespace.call(in_turn)
    except RequestFailed as failed:
        message = f"request {len(replies) + 1} of {count}: {failed.message}"
        raise RequestFailed(
            failed.kind, failed.request_id, message, failed.hint, tuple(replies)
        ) from failed.__cause__
    return tuple(replies)


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
