"""SCTP requests from virtual machines, for machines whose own kernel does not have SCTP.

Each is made by socat on the virtual machine, which its agent runs.
"""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import ports
from lvslab.check.traffic.request import TIMEOUT, Failure, Here, Reply, failed, in_turn

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

KINDS = frozenset({"sctp"})
"""Kinds of servers that virtual machines can ask, by socat's address ``KIND-CONNECT``."""

_FAILURES: tuple[tuple[str, Failure], ...] = (
    ("refused", "refused"),
    ("unreachable", "unreachable"),
    ("timed out", "no-connection"),
)
"""Words of socat for what ended a connection."""


def can_ask(cluster: RunningLab, node: str) -> bool:
    """Return whether the virtual machine ``node`` has the program; old ones do not."""
    return bool(cluster.observe(node, "command -v socat || :").strip())


def has_route(cluster: RunningLab, node: str, address: str) -> bool:
    """Return whether the virtual machine ``node`` has a route to ``address``."""
    return bool(cluster.observe(node, f"if ip route get {address} 2> /dev/null; then :; fi").strip())


def ask_in_turn(
    cluster: RunningLab, node: str, kind: str, address: str, port: int, count: int
) -> tuple[Reply, ...]:
    """Ask a server of a ``kind`` of KINDS from ``node``, as `lvslab.check.traffic.clients.ask_in_turn`.

    Raises RequestFailed at the first request without a whole reply.
    """
    # The requests are the virtual machine's; where they are ordered from makes no difference.
    return in_turn(Here(), lambda request_id: ask(cluster, node, kind, address, port, request_id), count)


def ask(
    cluster: RunningLab,
    node: str,
    kind: str,
    address: str,
    port: int,
    request_id: str,
    *,
    seconds: float = TIMEOUT,
) -> Reply:
    """Ask once, and wait for each answer for ``seconds``. Raises RequestFailed."""
    place, own, began = endpoint(address, port), ports.fresh(), time.monotonic()
    said = cluster.observe(node, command(kind, place, own, request_id, seconds))
    output, _, status = said.rstrip().rpartition("status ")
    if status != "0":
        kinds = (failure for word, failure in _FAILURES if word in output)
        raise failed(next(kinds, "other"), request_id, place, seconds, output.strip())
    server, _, echo = output.partition("\n")
    if echo.strip() != request_id:
        raise failed("broken-off" if output else "no-reply", request_id, place, seconds)
    source = str(cluster.lab.source_address(node, ip_address(address)))
    return Reply(server, 0, echo, request_id, time.monotonic() - began, source, own)


def command(kind: str, place: str, own: int, request_id: str, seconds: float) -> str:
    """Return the shell command of a request from the port ``own``.

    The last word of its output is socat's status. The association is the server's to shut down: there are no
    half-closed ones (RFC 9260, section 9).
    """
    options = f"sourceport={own},connect-timeout={seconds:g}"
    asking = f"socat -T{seconds:g} -,ignoreeof {kind.upper()}-CONNECT:{place},{options}"
    return f"printf '%s\\n' {request_id} | {asking} 2>&1; echo status $?"
