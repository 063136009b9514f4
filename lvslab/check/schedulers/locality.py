"""Models of the schedulers that remember the servers of an address: lblc and lblcr, for clusters of caches.

Expiry is modelled only where a sysctl can show it: a set of lblcr that has not changed for
``lblcr_expiration`` (a day) loses a server. Unused entries are collected every minute, but only where there
are more than 16384, or after a day (CHECK_EXPIRE_INTERVAL, ``max_size`` and COUNT_FOR_FULL_EXPIRATION in
ip_vs_lblc.c of 2.4.37.11 to 6.12): no check is that long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from lvslab.check.schedulers.least_connection import active_cost, least_loaded, overhead
from lvslab.check.schedulers.model import Build, Choice, Model, Moment, Server, Version, index_of

EXPIRATION = 86400.0
"""Seconds: ``sysctl_ip_vs_lblcr_expiration`` in ip_vs_lblcr.c of 2.4.37.11, DEFAULT_EXPIRATION of 2.6.39 to
6.12."""


@dataclass(frozen=True)
class Cache:
    """Memory of lblc: the server of each requested address."""

    server: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Servers:
    """Set of lblcr: an address's servers, the last one that joined first, and when it last changed."""

    names: tuple[str, ...]
    changed: float


@dataclass(frozen=True)
class Sets:
    """Memory of lblcr: the servers of each requested address."""

    servers: Mapping[str, Servers] = field(default_factory=dict)


def lblc(moment: Moment, *, active_cost: int = 256) -> Choice:
    """Locality-based least connection: the address's last server, or a new one, chosen as by wlc.

    The server is kept while it is there, has a weight above 0, and is not overloaded: with more active
    connections than its weight while another has less than half of its own. Thresholds (-x) count only where
    a new one is looked for. ``ip_vs_lblc_schedule`` in net/ipv4/ipvs/ip_vs_lblc.c (2.4.37.11 to 2.6.18) and
    net/netfilter/ipvs/ip_vs_lblc.c (2.6.32 to 6.12). See `overhead` for ``active_cost``.
    """
    memory = moment.memory if isinstance(moment.memory, Cache) else Cache()
    place = index_of(moment.servers, memory.server.get(moment.destination, ""))
    if place != -1 and moment.servers[place].weight > 0 and not _is_busy(moment, moment.servers[place]):
        return Choice(place, memory)
    found = least_loaded(moment.servers, lambda server: overhead(server, active_cost))
    if found is None:
        return Choice(None, memory)
    return Choice(found, Cache({**memory.server, moment.destination: moment.servers[found].name}))


def lblcr(
    moment: Moment, *, active_cost: int = 256, expiration: float = EXPIRATION, shrinks_last: bool = False
) -> Choice:
    """lblc with replication: an address has a set of servers; the least loaded of them gets the connection.

    Where that one is overloaded, as for lblc, the server that wlc finds joins the set. A set of several that
    has not changed for ``expiration`` seconds loses its most loaded server: after the choice in 2.4.37.11 to
    2.6.18 (``shrinks_last``), before it is known whether the chosen one is overloaded in 2.6.32 and later.
    ``ip_vs_lblcr_schedule`` in net/ipv4/ipvs/ip_vs_lblcr.c (2.4.37.11 to 2.6.18) and
    net/netfilter/ipvs/ip_vs_lblcr.c (2.6.32 to 6.12). A server that was removed from the service is passed
    over; the kernel may drop it from the set first. See `overhead` for ``active_cost``.
    """
    memory = moment.memory if isinstance(moment.memory, Sets) else Sets()
    known = memory.servers.get(moment.destination)

    def remembering(servers: Servers) -> Sets:
        return Sets({**memory.servers, moment.destination: servers})

    chosen: int | None = None
    if known is not None:
        chosen = _least_of(moment, known, active_cost)
        if not shrinks_last:
            known = _shrunk(moment, known, active_cost, expiration)
            memory = remembering(known)
    if chosen is None or _is_busy(moment, moment.servers[chosen]):
        chosen = least_loaded(moment.servers, lambda server: overhead(server, active_cost))
        if chosen is None:
            return Choice(None, memory)
        known = _joined(known, moment.servers[chosen].name, moment.now)
        memory = remembering(known)
    if shrinks_last and known is not None:
        memory = remembering(_shrunk(moment, known, active_cost, expiration))
    return Choice(chosen, memory)


def _is_busy(moment: Moment, server: Server) -> bool:
    """``is_overloaded`` of ip_vs_lblc.c and ip_vs_lblcr.c, the same from 2.4.37.11 to 6.12."""
    return server.active > server.weight and any(other.active * 2 < other.weight for other in moment.servers)


def _joined(known: Servers | None, name: str, now: float) -> Servers:
    if known is None:
        return Servers((name,), now)
    return known if name in known.names else Servers((name, *known.names), now)


def _least_of(moment: Moment, known: Servers, active_cost: int) -> int | None:
    """``ip_vs_dest_set_min``: as wlc chooses, in the order of the set."""
    there = [place for name in known.names if (place := index_of(moment.servers, name)) != -1]
    servers = [moment.servers[place] for place in there]
    found = least_loaded(servers, lambda server: overhead(server, active_cost))
    return None if found is None else there[found]


def _shrunk(moment: Moment, known: Servers, active_cost: int, expiration: float) -> Servers:
    """``ip_vs_dest_set_max`` and ``ip_vs_dest_set_erase``: without the most loaded, when it is time."""
    if len(known.names) < 2 or moment.now - known.changed <= expiration:
        return known
    most: Server | None = None
    for name in known.names:
        place = index_of(moment.servers, name)
        if place == -1 or moment.servers[place].weight <= 0:
            continue
        server = moment.servers[place]
        if most is None or (
            overhead(most, active_cost) * server.weight < overhead(server, active_cost) * most.weight
        ):
            most = server
    if most is None:
        return known
    return replace(known, names=tuple(name for name in known.names if name != most.name), changed=moment.now)


def _cost(version: Version) -> int:
    return 50 if version < (2, 6, 39) else active_cost(version)


def _lblc_model(version: Version, flags: Collection[str]) -> Model:
    return Model(partial(lblc, active_cost=_cost(version)), remembers=True)


def _lblcr_model(version: Version, flags: Collection[str]) -> Model:
    # Between 2.6.18 and 2.6.32; which of the releases in between was the first is not known.
    choose = partial(lblcr, active_cost=_cost(version), shrinks_last=version < (2, 6, 28))
    return Model(choose, remembers=True)


SCHEDULERS: Mapping[str, Build] = MappingProxyType({"lblc": _lblc_model, "lblcr": _lblcr_model})
