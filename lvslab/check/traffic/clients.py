"""Clients by the kind of a service: how each kind is asked, and who serves.

Every client makes one request in the calling thread's network namespace, and returns the reply or raises
RequestFailed. A request to an FTP server is a login; `lvslab.check.traffic.ftp` has sessions with data
connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import http, udp
from lvslab.check.traffic.request import Place, Reply, in_turn
from lvslab.errors import UsageError

Client = Callable[[str, int, str], Reply]
"""A function that asks an address and port, with a request id."""


def _http(address: str, port: int, request_id: str, padding: int = 0) -> Reply:
    return http.get(f"http://{endpoint(address, port)}/", request_id=request_id, padding=padding)


def _https(address: str, port: int, request_id: str) -> Reply:
    return http.get(f"https://{endpoint(address, port)}/", request_id=request_id)


def _smtp(address: str, port: int, request_id: str) -> Reply:
    from lvslab.check.traffic import greeting  # only where it is asked: it imports smtplib

    return greeting.ask_smtp(address, port, request_id)


def _sctp(address: str, port: int, request_id: str) -> Reply:
    from lvslab.check.traffic import greeting

    return greeting.ask_sctp(address, port, request_id)


def _dns(address: str, port: int, request_id: str) -> Reply:
    from lvslab.check.traffic import dns  # only where it is asked: it imports dnspython

    return dns.ask_identity(address, port, request_id)


def _ftp(address: str, port: int, request_id: str) -> Reply:
    from lvslab.check.traffic import ftp  # only where it is asked: it imports ftplib

    return ftp.ask(address, port, request_id)


CLIENTS: Mapping[str, Client] = MappingProxyType(
    {
        "http": _http,
        "https": _https,
        "udp": udp.ask,
        "smtp": _smtp,
        "sctp": _sctp,
        "dns": _dns,
        "ftp": _ftp,
    }
)
"""The clients by the ``kind`` of the services that they ask."""

LOGGED = frozenset({"http", "https", "udp", "smtp", "sctp"})
"""Kinds whose servers write each request's id to their logs (see `lvslab.check.traffic.access_log`)."""


def ask_in_turn(
    kind: str, namespace: Place, address: str, port: int, count: int, *, padding: int = 0
) -> tuple[Reply, ...]:
    """Ask a service of a ``kind`` ``count`` times, each request finished before the next begins.

    Each request has a client port of its own, and goes from ``namespace``. Requests of http can have a
    ``padding`` in bytes. Returns the replies in order. Raises RequestFailed at the first request without a
    whole reply, UsageError for a kind without a client.
    """
    if (client := CLIENTS.get(kind)) is None:
        raise UsageError(f"services of kind {kind} have no client", f"kinds that have: {', '.join(CLIENTS)}")
    if padding:
        if kind != "http":
            raise UsageError(f"requests of kind {kind} have no padding", "those of kind http can have one")
        client = partial(_http, padding=padding)
    return in_turn(namespace, lambda request_id: client(address, port, request_id), count)
