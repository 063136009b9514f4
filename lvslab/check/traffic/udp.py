"""Datagrams to the lab's UDP servers, from inside a client's network namespace.

A request is one datagram with the request's id as its only line. The answer's first line is the server's
name; the rest is the datagram as the server got it. No datagram is sent twice: a lost one is a failure.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import ports
from lvslab.check.traffic.request import (
    TIMEOUT,
    Failure,
    Place,
    Reply,
    RequestFailed,
    failed,
    failure_kind,
    in_turn,
)
from lvslab.closing import Closing

# include/uapi/linux/in.h and in6.h: ICMP's errors come to sockets that are not connected as well.
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_MOST = 65535

_SAID = {
    "no-reply": (
        "no answer from {place} within {seconds:g} s",
        "datagrams are lost on the way there or back: a director that sends them to a server that is gone, "
        "a real server whose replies take another way, or a filter that drops them",
    ),
    "refused": (
        "{place} refused the datagram: the port is closed",
        "nothing listens there: no such virtual service on the director, a service without a real server of "
        "weight above 0, or a stopped server on the real server that was chosen",
    ),
}


class UdpSocket(Closing):
    """A socket of the client for datagrams to one address and port.

    ``source_port`` is the client's, a fresh one for 0. The socket belongs to the network namespace of the
    thread that makes it. Raises RequestFailed.
    """

    def __init__(self, address: str, port: int, *, source_port: int = 0, seconds: float = TIMEOUT) -> None:
        self._target, self._seconds = endpoint(address, port), seconds
        try:
            self._to: tuple[Any, ...]
            family, _, _, _, self._to = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
            self.source_address = _own_address(family, self._to)

            def bound(own: int) -> socket.socket:
                return _bound(family, (self.source_address, own))

            self.socket = bound(source_port) if source_port else ports.on_fresh(bound, udp=True)
        except OSError as error:
            raise self.failure(error, "") from error
        self.source_port = int(self.socket.getsockname()[1])

    def ask(self, request_id: str) -> Reply:
        """Send one datagram and return its answer. Raises RequestFailed."""
        sent, began = f"{request_id}\n".encode(), time.monotonic()
        try:
            self.socket.sendto(sent, self._to)
            server, source = self._answer(sent, began + self._seconds)
        except OSError as error:
            raise self.failure(error, request_id) from error
        if source[:2] != self._to[:2]:
            where = endpoint(source[0], source[1])
            raise failed("other-source", request_id, self._target, self._seconds, where)
        seconds = time.monotonic() - began
        return Reply(server, 0, request_id, request_id, seconds, self.source_address, self.source_port)

    def close(self) -> None:
        """Close the socket. A second time does nothing."""
        self.socket.close()

    def _answer(self, sent: bytes, deadline: float) -> tuple[str, tuple[Any, ...]]:
        """Return the name in the answer to ``sent``, and its source. Raises OSError."""
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            answer, source = self.socket.recvfrom(_MOST)
            name, _, echo = answer.partition(b"\n")
            if echo == sent:  # else a late answer to an earlier datagram
                return name.decode(errors="replace"), source
        raise TimeoutError

    def failure(self, error: OSError, request_id: str) -> RequestFailed:
        """Return the failure of a request that ended with ``error``."""
        kind: Failure = failure_kind(error, connected=True)
        if kind not in _SAID:
            return failed(kind, request_id, self._target, self._seconds, error)
        message, hint = _SAID[kind]
        return RequestFailed(
            kind, request_id, message.format(place=self._target, seconds=self._seconds), hint
        )


def ask(address: str, port: int, request_id: str) -> Reply:
    """Ask once, from a port of its own, in the caller's network namespace. Raises RequestFailed."""
    with UdpSocket(address, port) as asking:
        return asking.ask(request_id)


def ask_from_one_port(namespace: Place, address: str, port: int, count: int) -> tuple[Reply, ...]:
    """Ask ``count`` times from one port, each datagram answered before the next. Raises RequestFailed."""
    with namespace.call(UdpSocket, address, port) as asking:
        return in_turn(namespace, asking.ask, count)


def _own_address(family: int, target: tuple[Any, ...]) -> str:
    """Return the address from which datagrams to ``target`` would go. Raises OSError."""
    with socket.socket(family, socket.SOCK_DGRAM) as unsent:
        unsent.connect(target)
        return str(unsent.getsockname()[0])


def _bound(family: int, own: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        # Not connected: the kernel would drop an answer from another address.
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        made.bind(own)
    except BaseException:
        made.close()
        raise
    return made
