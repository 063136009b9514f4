"""Models of lblc and lblcr, for clusters of caches: they remember the servers of an address.

Expiry is modelled only where a sysctl can show it: a set of lblcr that has not changed for
``lblcr_expiration`` (a day) loses a server. Unused entries are collected every minute, but only where there
are more than 16384, or after a day (CHECK_EXPIRE_INTERVAL, ``max_size`` and COUNT_FOR_FULL_EXPIRATION in
ip_vs_lblc.c of 2.4.37.11 to 6.12): no check is that long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from lvslab.check.schedulers.least_connection import active_cost, least_loaded, overhead
from lvslab.check.schedulers.model import Build, Choice, Model, Moment, Server, Version, index_of

EXPIRATION = 86400.0
"""Seconds: ``sysctl_ip_vs_lblcr_expiration`` in ip_vs_lblcr.c of 2.4.37.11, DEFAULT_EXPIRATION of 2.6.39 to
6.12."""


@dataclass(frozen=True)
class Servers:
    """Set of lblcr: an address's servers, the last one that joined first, and when it last changed."""

    names: tuple[str, ...] = ()
    changed: float = 0.0


def lblc(moment: Moment, *, active_cost: int = 256) -> Choice:
    """Locality-based least connection: the address's last server, or a new one, chosen as by wlc.

    ``memory`` maps each requested address to its server.

    The server is kept while it is there, has a weight above 0, and is not overloaded: with more active
    connections than its weight while another has less than half of its own. Thresholds (-x) count only where
    a new one is looked for. ``ip_vs_lblc_schedule`` in net/ipv4/ipvs/ip_vs_lblc.c (2.4.37.11 to 2.6.18) and
    net/netfilter/ipvs/ip_vs_lblc.c (2.6.32 to 6.12). See `overhead` for ``active_cost``.
    """
    memory: Mapping[str, str] = moment.memory if isinstance(moment.memory, dict) else {}
    place = index_of(moment.servers, memory.get(moment.destination, ""))
    if place != -1 and moment.servers[place].weight > 0 and not _is_busy(moment, moment.servers[place]):
        return Choice(place, memory)
    found = least_loaded(moment.servers, lambda server: overhead(server, active_cost))
    if found is None:
        return Choice(None, memory)
    return Choice(found, {**memory, moment.destination: moment.servers[found].name})


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
    memory: Mapping[str, Servers] = moment.memory if isinstance(moment.memory, dict) else {}
    known = memory.get(moment.destination, Servers())
    chosen = _least_of(moment, known, active_cost)
    if not shrinks_last:
        known = _shrunk(moment, known, active_cost, expiration)
    if chosen is None or _is_busy(moment, moment.servers[chosen]):
        chosen = least_loaded(moment.servers, lambda server: overhead(server, active_cost))
        if chosen is not None and (name := moment.servers[chosen].name) not in known.names:
            known = Servers((name, *known.names), moment.now)
    if shrinks_last and chosen is not None:
        known = _shrunk(moment, known, active_cost, expiration)
    return Choice(chosen, {**memory, moment.destination: known})


def _is_busy(moment: Moment, server: Server) -> bool:
    """``is_overloaded`` of ip_vs_lblc.c and ip_vs_lblcr.c, the same from 2.4.37.11 to 6.12."""
    return server.active > server.weight and any(other.active * 2 < other.weight for other in moment.servers)


def _servers(moment: Moment, known: Servers) -> list[Server]:
    """Return the present servers of the set, in its order."""
    there = {server.name: server for server in moment.servers}
    return [there[name] for name in known.names if name in there]


def _least_of(moment: Moment, known: Servers, active_cost: int) -> int | None:
    """``ip_vs_dest_set_min``: as wlc chooses, in the order of the set."""
    servers = _servers(moment, known)
    found = least_loaded(servers, lambda server: overhead(server, active_cost))
    return None if found is None else moment.servers.index(servers[found])


def _shrunk(moment: Moment, known: Servers, active_cost: int, expiration: float) -> Servers:
    """``ip_vs_dest_set_max`` and ``ip_vs_dest_set_erase``: without the most loaded, when it is time."""
    if len(known.names) < 2 or moment.now - known.changed <= expiration:
        return known
    able = [server for server in _servers(moment, known) if server.weight > 0]
    most = max(able, key=lambda server: Fraction(overhead(server, active_cost), server.weight), default=None)
    if most is None:
        return known
    return Servers(tuple(name for name in known.names if name != most.name), moment.now)


def _cost(version: Version) -> int:
    return 50 if version < (2, 6, 39) else active_cost(version)


SCHEDULERS: Mapping[str, Build] = {
    "lblc": lambda version, flags: Model(
        partial(lblc, active_cost=_cost(version)),
        remembers=True,
        naming=lambda server, destination: [{destination: server}],
    ),
    # Between 2.6.18 and 2.6.32; which of the releases in between was the first is not known.
    "lblcr": lambda version, flags: Model(
        partial(lblcr, active_cost=_cost(version), shrinks_last=version < (2, 6, 28)),
        remembers=True,
        naming=lambda server, destination: [{destination: Servers((server,))}],
    ),
}
