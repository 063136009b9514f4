"""Requests to a service, of whatever kind: replies, failures, and requests one after the other.

`lvslab.check.traffic.clients` has the kinds.
"""

from __future__ import annotations

import errno
import socket
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from typing import Any, Literal, ParamSpec, Protocol, TypeVar

from lvslab.check.traffic import ports
from lvslab.errors import CheckFailed

TIMEOUT = 5.0
"""Seconds to wait for a connection, and for each piece of a reply."""

P = ParamSpec("P")
T = TypeVar("T")

Failure = Literal[
    "no-connection",
    "no-reply",
    "refused",
    "unreachable",
    "broken-off",
    "not-closed",
    "other-source",
    "status",
    "other",
]
"""How a request can fail.

``other-source``: an answer to a datagram came from another address or port than the one asked. ``status``
(another status than 200) is a failure of an `Attempt` only.
"""

EXPLANATIONS: Mapping[Failure, tuple[str, str | None]] = {
    "no-connection": (
        "no answer from {place} within {seconds:g} s: the connection was never made",
        "packets are lost on the way there or back: a director that does not forward, a real server whose "
        "replies take another way, or a filter that drops them",
    ),
    "no-reply": (
        "no answer from {place} within {seconds:g} s: the connection was made, but no reply came",
        "the real server accepts connections and does not answer: is it stuck?",
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
        "the client asked for it: was the end of the connection lost on its way?",
    ),
    "other-source": (
        "{place} was asked, and the answer came from {error}",
        "does the reply take another way than through the director, or does the server not answer from the "
        "address that was asked?",
    ),
    "other": ("the request to {place} failed: {error}", None),
}
"""Message and hint for each kind of failure of a connection."""


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

    ``server`` is the real server's name, "" where the reply does not give one; ``status`` is 0 where the
    protocol has none; ``body`` is decoded as UTF-8. ``seconds`` run from before the connection to the end of
    the stream; ``source_address`` and ``source_port`` are the client's end of the connection.
    """

    server: str
    status: int
    body: str
    request_id: str
    seconds: float
    source_address: str
    source_port: int


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
    ended = isinstance(error, HTTPException | EOFError | ssl.SSLEOFError | ssl.SSLZeroReturnError)
    if ended or number in (errno.ECONNRESET, errno.EPIPE):
        return "broken-off"
    return "other"


def new_request_id(index: int = 0) -> str:
    """Make a unique request id, which ends with ``index``, the request's number in its round."""
    return f"{uuid.uuid4().hex}-{index}"


def failed(kind: Failure, request_id: str, target: str, seconds: float, error: object = "") -> RequestFailed:
    """Return the failure of the request to ``target`` (``10.0.0.1:80``), with its explanation."""
    message, hint = EXPLANATIONS[kind]
    return RequestFailed(kind, request_id, message.format(place=target, seconds=seconds, error=error), hint)


def connect(
    place: Place, target: tuple[str, int], own: tuple[str, int], seconds: float, protocol: int = 0
) -> socket.socket:
    """Connect a stream to the first address of ``target`` that accepts. Raises OSError, the last address's.

    Only the socket is made in ``place``. ``own`` are the client's address, "" for any, and its port, 0 for a
    fresh one. ``protocol`` is as for socket(2).
    """
    source, source_port = own

    def to(family: int, address: tuple[Any, ...], port: int) -> socket.socket:
        stream = place.call(socket.socket, family, socket.SOCK_STREAM, protocol)
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
    for family, _, _, _, address in socket.getaddrinfo(*target, type=socket.SOCK_STREAM):
        connected = partial(to, family, address)
        try:
            return connected(source_port) if source_port else ports.on_fresh(connected)
        except OSError as error:
            failed = error
    assert failed is not None, "getaddrinfo raises where it finds none"
    raise failed


def in_turn(place: Place, ask: Callable[[str], Reply], count: int) -> tuple[Reply, ...]:
    """Call ``ask`` with ``count`` request ids in ``place``, each request finished before the next begins.

    Returns the replies in order. Raises RequestFailed at the first request without a whole reply.
    """
    replies: list[Reply] = []

    def all_of_them() -> None:
        for index in range(count):
            replies.append(ask(new_request_id(index)))

    try:
        place.call(all_of_them)
    except RequestFailed as failure:
        message = f"request {len(replies) + 1} of {count}: {failure.message}"
        raise RequestFailed(
            failure.kind, failure.request_id, message, failure.hint, tuple(replies)
        ) from failure.__cause__
    return tuple(replies)
