"""Executable models of the kernel's IPVS schedulers.

A model is one pure function from a `Moment` (what the kernel's scheduler can see when a connection begins)
to a `Choice`. Adding a scheduler is one such function and its test; one that remembers something between
connections (rr, wrr) keeps it in ``memory``, one that hashes reads ``client``.

What decides whether a connection counts as active (TCP, masquerading):

* since 4.8 (be2cef49904b): SYN_RECV, SYN_SENT, SYNACK and ESTABLISHED, that is from the first SYN on
  (``tcp_state_active_table``, net/netfilter/ipvs/ip_vs_proto_tcp.c, 6.1);
* before: ESTABLISHED alone, so a half-open connection is inactive (``set_tcp_state`` in the same file of
  2.6.39; ``vs_tcp_state`` in net/ipv4/ipvs/ip_vs_conn.c of 2.4.37.11).

In all of them a connection turns inactive with the *first FIN* that passes the director: the server's
(ESTABLISHED to FIN_WAIT) or the client's (to CLOSE_WAIT). The state changes before the packet is sent on,
so a client that has read to the end of the stream knows that its connection is inactive. A RST makes it
inactive too (CLOSE). Inactive connections are forgotten `FORGOTTEN_AFTER` seconds after their last packet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from lvslab.check.ipvs_listing import ServiceConnections
from lvslab.check.ipvs_table import Service, scan_order
from lvslab.errors import LvsLabError

NOBODY = "(no destination available)"
"""Stands in a sequence for a connection that the scheduler gives to no server."""

FORGOTTEN_AFTER: Mapping[str, int] = MappingProxyType(
    {"SYN_RECV": 60, "FIN_WAIT": 120, "TIME_WAIT": 120, "CLOSE": 10, "CLOSE_WAIT": 60, "LAST_ACK": 30}
)
"""Seconds without a packet after which a connection is forgotten, by its state: ``tcp_timeouts`` of
net/netfilter/ipvs/ip_vs_proto_tcp.c (2.6.39, 6.1), ``vs_timeout_table`` of net/ipv4/ipvs/ip_vs_conn.c
(2.4.37.11). A finished HTTP request ends in TIME_WAIT, a refused one in CLOSE. ``ipvsadm --set`` changes
FIN_WAIT; the secure_tcp defence of 2.4 halves FIN_WAIT and TIME_WAIT."""

Memory = tuple[int, ...]


@dataclass(frozen=True)
class Server:
    """A destination as a scheduler sees it: its weight and its connections at this moment."""

    name: str
    weight: int
    active: int = 0
    inactive: int = 0
    overloaded: bool = False


@dataclass(frozen=True)
class Moment:
    """A connection begins. ``servers`` are in the kernel's order: the last one added first.

    ``memory`` is what the scheduler's last choice left behind, () at first; ``client`` is the address that
    the connection comes from.
    """

    servers: tuple[Server, ...]
    client: str = ""
    memory: Memory = ()


@dataclass(frozen=True)
class Choice:
    """The index of the chosen server in ``Moment.servers``, or None when there is no one to choose."""

    server: int | None
    memory: Memory = ()


Scheduler = Callable[[Moment], Choice]


@dataclass(frozen=True)
class Forecast:
    """The servers' ``names`` in the order of the requests, and the ``servers`` as they stand after them."""

    names: tuple[str, ...]
    servers: tuple[Server, ...]


def wlc(moment: Moment, *, active_cost: int = 256) -> Choice:
    """Weighted least connection: the least overhead for each unit of weight; the first one found wins a tie.

    The overhead is ``active * active_cost + inactive``: 256 in ``ip_vs_wlc_dest_overhead`` (2.4.37.11,
    net/ipv4/ipvs/ip_vs_wlc.c) and ``ip_vs_dest_conn_overhead`` (2.6.39, include/net/ip_vs.h); 257 where the
    kernel counts total connections in place of inactive ones (seen in 6.1.192, "ipvs: add totalconns for
    dest", in 6.1.y since 6.1.183). Servers of weight 0 are passed over, overloaded ones as well (2.4 has no
    thresholds, so none is). A later server displaces the best so far only if
    ``least_overhead * its_weight > its_overhead * least_weight``, strictly. The overflow of that product on
    kernels before 3.11 (c16526a7b99c) is not modelled.
    """
    best: int | None = None
    for index, server in enumerate(moment.servers):
        if server.overloaded or server.weight <= 0:
            continue
        if best is None:
            best = index
            continue
        least = moment.servers[best]
        if _overhead(least, active_cost) * server.weight > _overhead(server, active_cost) * least.weight:
            best = index
    return Choice(best)


def _overhead(server: Server, active_cost: int) -> int:
    return server.active * active_cost + server.inactive


SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType({"wlc": wlc})
"""The models by the name that ``ipvsadm -s`` knows them by."""


def forecast(schedule: Scheduler, servers: Sequence[Server], count: int, *, client: str = "") -> Forecast:
    """What ``schedule`` does with ``count`` requests, each of which is finished before the next one begins.

    Each request leaves one inactive connection on its server. ``servers`` are in the kernel's order, with
    the counts that were read before the first request. It holds while no connection is forgotten on the way
    (`FORGOTTEN_AFTER`): compare the ``servers`` of the result with a second reading to see whether one was.
    """
    state = tuple(servers)
    memory: Memory = ()
    names: list[str] = []
    for _ in range(count):
        choice = schedule(Moment(state, client, memory))
        memory = choice.memory
        if choice.server is None:
            names.append(NOBODY)
            continue
        chosen = state[choice.server]
        names.append(chosen.name)
        state = tuple(
            replace(server, inactive=server.inactive + 1) if index == choice.server else server
            for index, server in enumerate(state)
        )
    return Forecast(tuple(names), state)


def sequence(
    schedule: Scheduler, servers: Sequence[Server], count: int, *, client: str = ""
) -> tuple[str, ...]:
    """The names of the servers that answer ``count`` requests in turn; see `forecast`."""
    return forecast(schedule, servers, count, client=client).names


def servers_of(
    service: Service, connections: ServiceConnections, names: Mapping[str, str]
) -> tuple[Server, ...]:
    """A service's servers in the kernel's order, with the weights and counts that the director reports now.

    ``service`` comes from the steps as they were typed, which alone tell the order (see `scan_order`);
    ``connections`` from ``ipvsadm -Ln``, sorted or not. ``names`` maps a real server's address to its name;
    an address that it lacks stands for itself. Raises LvsLabError where one has a server the other lacks.
    """
    rows = {str(row): row for row in connections.servers}
    wanted = {str(destination) for destination in service.destinations}
    if rows.keys() != wanted:
        raise LvsLabError(
            f"the director's servers for {service} are {', '.join(sorted(rows)) or '(none)'}; "
            f"the steps add {', '.join(sorted(wanted)) or '(none)'}",
            "compare the tables first",
        )
    return tuple(
        Server(
            name=names.get(destination.address, destination.address),
            weight=rows[str(destination)].weight,
            active=rows[str(destination)].active,
            inactive=rows[str(destination)].inactive,
        )
        for destination in scan_order(service)
    )
