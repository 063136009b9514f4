"""Executable models of the kernel's IPVS schedulers, and what they foresee.

`model_for` has the model of a scheduler in a kernel. Adding a scheduler is one function from a `Moment` to a
`Choice`, a row in models.py, and its test.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from lvslab.check.ipvs.listing import ServiceConnections
from lvslab.check.ipvs.table import Service, scan_order
from lvslab.check.schedulers.models import LATER, TUTORIAL, model_for
from lvslab.check.schedulers.moment import Change, Choice, Model, Moment, Scheduler, Server
from lvslab.check.schedulers.simulated import NOBODY, SimulatedService
from lvslab.errors import LvsLabError

__all__ = [
    "FORGOTTEN_AFTER",
    "LATER",
    "NOBODY",
    "TUTORIAL",
    "Change",
    "Choice",
    "Forecast",
    "Model",
    "Moment",
    "Scheduler",
    "Server",
    "SimulatedService",
    "forecast",
    "model_for",
    "remembered",
    "sequence",
    "servers_of",
]

FORGOTTEN_AFTER: Mapping[str, int] = MappingProxyType(
    {"SYN_RECV": 60, "FIN_WAIT": 120, "TIME_WAIT": 120, "CLOSE": 10, "CLOSE_WAIT": 60, "LAST_ACK": 30}
)
"""Seconds without a packet after which a connection is forgotten, by its state: ``tcp_timeouts`` of
net/netfilter/ipvs/ip_vs_proto_tcp.c (2.6.39, 6.1), ``vs_timeout_table`` of net/ipv4/ipvs/ip_vs_conn.c
(2.4.37.11). A finished HTTP request ends in TIME_WAIT, a refused one in CLOSE. ``ipvsadm --set`` changes
FIN_WAIT; the secure_tcp defence of 2.4 halves FIN_WAIT and TIME_WAIT."""


@dataclass(frozen=True)
class Forecast:
    """The servers' ``names`` in the order of the requests, and the ``servers`` as they stand after them.

    ``memory`` is what the scheduler remembers then.
    """

    names: tuple[str, ...]
    servers: tuple[Server, ...]
    memory: object = None


def forecast(
    schedule: Scheduler,
    servers: Sequence[Server],
    count: int,
    *,
    client: str = "",
    destination: str = "",
    memory: object = None,
    held: bool = False,
) -> Forecast:
    """What ``schedule`` does with ``count`` requests, each of which is finished before the next one begins,
    or with connections that are ``held`` until all are made.

    Each request leaves one inactive connection on its server, or one that is active. ``servers`` are in the
    kernel's order, with the counts that were read before the first request; ``memory`` is what the scheduler
    has in mind then. It holds while no connection is forgotten on the way (`FORGOTTEN_AFTER`): compare the
    ``servers`` of the result with a second reading to see whether one was.
    """
    service, names = SimulatedService(Model(schedule), tuple(servers), memory), list[str]()
    for _ in range(count):
        name, service = service.connect(client, destination)
        names.append(name)
        if name != NOBODY and not held:
            service = service.finish(name)
    return Forecast(tuple(names), service.servers, service.memory)


def sequence(
    schedule: Scheduler, servers: Sequence[Server], count: int, *, client: str = "", destination: str = ""
) -> tuple[str, ...]:
    """The names of the servers that answer ``count`` requests in turn; see `forecast`."""
    return forecast(schedule, servers, count, client=client, destination=destination).names


def remembered(model: Model, servers: Sequence[Server], count: int, *, destination: str = "") -> object:
    """What a scheduler remembers after ``count`` requests in turn to a service that was made with
    ``servers``, one after the other, and has not changed since; they are in the kernel's order.
    """
    service = SimulatedService(model)
    for server in reversed(servers):
        service = service.add(replace(server, active=0, inactive=0))
    return forecast(
        model.choose, service.servers, count, destination=destination, memory=service.memory
    ).memory


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
            address=destination.address,
            port=destination.port,
        )
        for destination in scan_order(service)
    )
