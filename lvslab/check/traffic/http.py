"""HTTP traffic from inside a client's network namespace, one TCP connection for each request.

A request is finished only when its connection is: the reply is read to the end of the stream, so the
server's FIN has passed the director and the connection is inactive there (see `lvslab.check.schedulers`);
only then does the client close its own side. So requests in turn meet a scheduler that counts exactly.
"""

from __future__ import annotations

import errno
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import ports
from lvslab.errors import CheckFailed

SERVER_HEADER = "X-Real-Server"
ID_HEADER = "X-Request-ID"
TIMEOUT = 5.0
"""Seconds to wait for a connection, and for each piece of a reply."""

P = ParamSpec("P")
T = TypeVar("T")

Failure = Literal["no-connection", "no-reply", "refused", "unreachable", "broken-off", "not-closed", "other"]


class Place(Protocol):
    """A place where traffic is made: `namespace.NamespaceThread`, or anything that calls a function."""

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...


@dataclass(frozen=True)
class Reply:
    """What came back. ``server`` is the real server's name, "" when the reply does not say.

    ``seconds`` run from before the connection to the end of the stream; ``source_address`` and
    ``source_port`` are the client's side of the connection.
    """

    server: str
    status: int
    body: str
    request_id: str
    seconds: float
    source_address: str
    source_port: int


class RequestFailed(CheckFailed):
    """A request got no whole reply. ``kind`` says how it ended, ``request_id`` which one it was, ``before``
    holds the replies to the requests before it."""

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


def new_request_id(index: int = 0) -> str:
    """An id that no other request has; ``index`` counts the requests of one round, and ends the id."""
    return f"{uuid.uuid4().hex}-{index}"


def get(
    url: str,
    *,
    request_id: str | None = None,
    connect_timeout: float = TIMEOUT,
    read_timeout: float = TIMEOUT,
) -> Reply:
    """Ask for ``url`` (http) once, on a connection of its own, and read to the end of the stream.

    Any status is a reply. Timeouts are in seconds. Raises RequestFailed when there is no whole reply.
    """
    request_id = request_id or new_request_id()
    sockets: list[socket.socket] = []
    started = time.monotonic()
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("http://", _Adapter(sockets))
            response = session.get(
                url,
                headers={ID_HEADER: request_id, "Connection": "close"},
                timeout=(connect_timeout, read_timeout),
                allow_redirects=False,
            )
        address, port = sockets[-1].getsockname()[:2]
        _read_to_end(sockets[-1], read_timeout)
    except (requests.RequestException, OSError) as error:
        raise _failure(error, _place(url), request_id, connect_timeout, read_timeout) from error
    finally:
        for opened in sockets:
            opened.close()
    return Reply(
        server=response.headers.get(SERVER_HEADER, ""),
        status=response.status_code,
        body=response.text,
        request_id=request_id,
        seconds=time.monotonic() - started,
        source_address=str(address),
        source_port=int(port),
    )


def requests_in_turn(
    namespace: Place,
    url: str,
    count: int,
    *,
    connect_timeout: float = TIMEOUT,
    read_timeout: float = TIMEOUT,
) -> tuple[Reply, ...]:
    """Ask ``count`` times, each request finished before the next begins, and return the replies in order.

    All of it happens in ``namespace``. Raises RequestFailed at the first request without a whole reply.
    """
    return namespace.call(_in_turn, url, count, connect_timeout, read_timeout)


def _in_turn(url: str, count: int, connect_timeout: float, read_timeout: float) -> tuple[Reply, ...]:
    replies: list[Reply] = []
    for index in range(count):
        try:
            replies.append(
                get(
                    url,
                    request_id=new_request_id(index),
                    connect_timeout=connect_timeout,
                    read_timeout=read_timeout,
                )
            )
        except RequestFailed as failed:
            raise RequestFailed(
                failed.kind,
                failed.request_id,
                f"request {index + 1} of {count}: {failed.message}",
                failed.hint,
                tuple(replies),
            ) from failed.__cause__
    return tuple(replies)


class _Adapter(HTTPAdapter):
    """Connects from fresh ports, and keeps a second descriptor of each connection, open until the server has
    closed its side."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        sockets = self._sockets

        class Connection(HTTPConnection):
            def connect(self) -> None:
                ports.on_fresh(self._connect_from)
                sockets.append(self.sock.dup())

            def _connect_from(self, port: int) -> None:
                self.source_address = ("", port)
                try:
                    super().connect()
                except NewConnectionError as failed:
                    if (cause := failed.__cause__) is not None and ports.is_taken(cause):
                        raise cause from None
                    raise

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        self.poolmanager.pool_classes_by_scheme = {"http": Pool}


class _NotClosed(OSError):
    """The server answered and kept its side of the connection open."""


def _read_to_end(connection: socket.socket, seconds: float) -> None:
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        raise _NotClosed from None


def _place(url: str) -> str:
    parts = urlsplit(url)
    return endpoint(parts.hostname or "", parts.port or 80)


def _failure(
    error: Exception, place: str, request_id: str, connect_timeout: float, read_timeout: float
) -> RequestFailed:
    """The failure in a student's words. Which case it is lies somewhere in the chain of what was raised."""
    chain = list(_chain(error))
    numbers = {cause.errno for cause in chain if isinstance(cause, OSError)}

    def failed(kind: Failure, message: str, hint: str) -> RequestFailed:
        return RequestFailed(kind, request_id, message, hint)

    if any(isinstance(cause, _NotClosed) for cause in chain):
        return failed(
            "not-closed",
            f"{place} answered, but did not close the connection within {read_timeout:g} s",
            "the client asked for it (Connection: close): was the end of the connection lost on its way?",
        )
    if any(isinstance(cause, requests.ConnectTimeout) for cause in chain):
        return failed(
            "no-connection",
            f"no answer from {place} within {connect_timeout:g} s: the connection was never made",
            "packets are lost on the way there or on the way back: a director that does not forward, a real "
            "server whose replies take another way, or a filter that drops them",
        )
    if any(isinstance(cause, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError) for cause in chain):
        return failed(
            "no-reply",
            f"no answer from {place} within {read_timeout:g} s: the connection was made, but no reply came",
            "the real server accepts connections and does not answer: is its web server stuck?",
        )
    if errno.ECONNREFUSED in numbers:
        return failed(
            "refused",
            f"connection refused by {place}",
            "nothing listens there: no such virtual service on the director, a service without a real "
            "server of weight above 0, or a stopped web server on the real server that was chosen",
        )
    if numbers & {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return failed(
            "unreachable",
            f"{place} cannot be reached from here: no route, or nobody on the network has the address",
            "is the virtual address on the director's interface, and does the client have a route to it?",
        )
    if (
        errno.ECONNRESET in numbers
        or errno.EPIPE in numbers
        or any(isinstance(cause, urllib3.exceptions.ProtocolError) for cause in chain)
    ):
        return failed(
            "broken-off",
            f"the connection to {place} broke off before the reply was whole",
            "the real server died, or the director forgot the connection (its real server was removed?)",
        )
    return RequestFailed("other", request_id, f"the request to {place} failed: {error}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        waiting += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
