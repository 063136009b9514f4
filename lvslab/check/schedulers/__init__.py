"""Executable models of the kernel's IPVS schedulers, and forecasts by them.

`model_for` returns the model of a scheduler in a kernel. A new scheduler is a module here that registers it
(see `registry`), its test, and a row of kind "scheduler" in lvslab/kernel/catalogue/features.toml.

A connection counts as active (TCP, masquerading):

* since 4.8 (be2cef49904b): SYN_RECV, SYN_SENT, SYNACK and ESTABLISHED, that is from the first SYN on
  (``tcp_state_active_table``, net/netfilter/ipvs/ip_vs_proto_tcp.c, 6.1);
* before: ESTABLISHED alone, so a half-open connection is inactive (``set_tcp_state`` in the same file of
  2.6.39; ``vs_tcp_state`` in net/ipv4/ipvs/ip_vs_conn.c of 2.4.37.11).

In all of them a connection turns inactive with the *first FIN* that passes the director: the server's
(ESTABLISHED to FIN_WAIT) or the client's (to CLOSE_WAIT). The state changes before the packet is sent on,
so a client that has read to the end of the stream knows that its connection is inactive. A RST makes it
inactive too (CLOSE).

A connection is forgotten some seconds after its last packet: 120 in FIN_WAIT and TIME_WAIT, 60 in SYN_RECV
and CLOSE_WAIT, 30 in LAST_ACK, 10 in CLOSE (``tcp_timeouts`` of net/netfilter/ipvs/ip_vs_proto_tcp.c, 2.6.39
and 6.1; ``vs_timeout_table`` of net/ipv4/ipvs/ip_vs_conn.c, 2.4.37.11). A finished HTTP request ends in
TIME_WAIT, a refused one in CLOSE. ``ipvsadm --set`` changes FIN_WAIT; the secure_tcp defence of 2.4 halves
FIN_WAIT and TIME_WAIT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvslab.check import former_names
from lvslab.check.schedulers.model import Model, Moment, Scheduler, Server
from lvslab.check.schedulers.registry import TUTORIAL, later, model_for
from lvslab.check.schedulers.simulated import NOBODY, SimulatedService

__all__ = [
    "NOBODY",
    "TUTORIAL",
    "Model",
    "Moment",
    "Server",
    "SimulatedService",
    "forecast",
    "later",
    "memories",
    "model_for",
    "remembered",
]


@dataclass(frozen=True)
class Forecast:
    """Forecast of a sequence of requests.

    ``names`` are the servers in the order of the requests; ``servers`` (with their connections) and
    ``memory`` (of the scheduler) are the state after them.
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
    forgotten: bool = False,
) -> Forecast:
    """Forecast which servers ``schedule`` chooses for ``count`` requests.

    Each request is finished before the next one begins, and leaves one inactive connection on its server, or
    none where it is ``forgotten`` at once; with ``held``, connections stay open and active until all are
    made. ``servers`` are in the kernel's
    order, with the counts before the first request; ``memory`` is the scheduler's at that time. The forecast
    holds while no connection is forgotten meanwhile: compare the ``servers`` of the
    result with a second reading to see whether one was.
    """
    service, names = SimulatedService(Model(schedule), tuple(servers), memory), list[str]()
    for _ in range(count):
        name, after = service.connect(client, destination)
        names.append(name)
        if forgotten:
            service = replace(after, servers=service.servers)
        else:
            service = after.finish(name) if name != NOBODY and not held else after
    return Forecast(tuple(names), service.servers, service.memory)


def memories(
    model: Model, servers: Sequence[Server], *, client: str = "", destination: str = ""
) -> Iterator[object]:
    """Yield memories that a scheduler may have, after changes and requests that nobody has counted.

    They are those that requests to ``servers`` lead to, and those that name one of them.
    """
    for server in servers:
        yield from model.naming(server.name, destination)
    service, seen = SimulatedService(model, tuple(servers)), list[object]()
    for _ in range(2 * sum(server.weight for server in servers) + 1):
        if service.memory in seen:
            break
        seen.append(service.memory)
        yield service.memory
        service = replace(service.connect(client, destination)[1], servers=service.servers)


def remembered(model: Model, servers: Sequence[Server], count: int, *, destination: str = "") -> object:
    """Return the memory of a scheduler after ``count`` requests in turn to a new service.

    The service was made with ``servers``, which are in the kernel's order, and has not changed since.
    """
    service = SimulatedService(model)
    for server in reversed(servers):
        service = service.add(replace(server, active=0, inactive=0))
    return forecast(
        model.choose, service.servers, count, destination=destination, memory=service.memory
    ).memory


if not TYPE_CHECKING:
    __getattr__ = former_names(__name__)
