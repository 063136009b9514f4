"""Models of the schedulers that compare servers by their connections: lc, wlc, sed, nq, fo and ovf.

They have no memory. The overflow of products on kernels before 3.11 (c16526a7b99c) is not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import dropwhile

from lvslab.check.schedulers.model import Build, Choice, Model, Moment, Server, Version

TOTAL_CONNECTIONS: Mapping[Version, Version] = {(6, 1): (6, 1, 183), (6, 12): (6, 12, 104)}
"""First release that counts total connections, by series: an active connection costs 257 from there on."""

TOTAL_CONNECTIONS_SINCE: Version = (7, 2)
"""The same for all later series (7.2.13 does)."""


def lc(moment: Moment, *, active_cost: int = 256) -> Choice:
    """Least connection: the least overhead, for any weight but 0.

    ``ip_vs_lc_schedule`` in net/ipv4/ipvs/ip_vs_lc.c (2.4.37.11 to 2.6.18) and net/netfilter/ipvs/ip_vs_lc.c
    (2.6.32 to 6.12). The first one found wins a tie. See `overhead` for ``active_cost``.
    """
    able, servers = moment.available(), moment.servers
    return Choice(min(able, key=lambda index: overhead(servers[index], active_cost), default=None))


def wlc(moment: Moment, *, active_cost: int = 256) -> Choice:
    """Weighted least connection: the least overhead for each unit of weight; the first one found wins a tie.

    ``ip_vs_wlc_schedule`` in net/ipv4/ipvs/ip_vs_wlc.c (2.4.37.11 to 2.6.18) and
    net/netfilter/ipvs/ip_vs_wlc.c (2.6.32 to 6.12). Servers of weight 0 are passed over, overloaded ones as
    well. See `overhead` for ``active_cost``.
    """
    return Choice(least_loaded(moment.servers, lambda server: overhead(server, active_cost)))


def sed(moment: Moment) -> Choice:
    """Shortest expected delay: the least ``(active + 1) / weight``; inactive connections do not count.

    ``ip_vs_sed_schedule`` in net/ipv4/ipvs/ip_vs_sed.c (2.4.37.11 to 2.6.18) and
    net/netfilter/ipvs/ip_vs_sed.c (2.6.32 to 6.12).
    """
    return Choice(least_loaded(moment.servers, lambda server: server.active + 1))


def nq(moment: Moment) -> Choice:
    """Never queue: the first server without an active connection, and as sed where there is none.

    ``ip_vs_nq_schedule`` in net/ipv4/ipvs/ip_vs_nq.c (2.6.11, 2.6.18) and net/netfilter/ipvs/ip_vs_nq.c
    (2.6.32 to 6.12).
    """
    idle = [index for index in moment.available() if moment.servers[index].active == 0]
    return Choice(idle[0]) if idle else sed(moment)


def nq_2_4(moment: Moment) -> Choice:
    """Never queue of 2.4, which ignores the weights of idle servers after the first one.

    So a server of weight 0 does get connections, one at a time, unless all before it in the list have the
    weight 0 too (``ip_vs_nq_schedule`` in net/ipv4/ipvs/ip_vs_nq.c of 2.4.37.11).
    """
    after = dropwhile(lambda pair: pair[1].weight <= 0, enumerate(moment.servers))
    idle = next((index for index, server in after if server.active == 0), None)
    return sed(moment) if idle is None else Choice(idle)


def fo(moment: Moment) -> Choice:
    """Weighted failover: the server of the greatest weight that is not overloaded gets everything.

    ``ip_vs_fo_schedule`` in net/netfilter/ipvs/ip_vs_fo.c (since 3.18; 4.19.79 to 6.12). The first one found
    wins a tie.
    """
    return Choice(max(moment.available(), key=lambda index: moment.servers[index].weight, default=None))


def ovf(moment: Moment) -> Choice:
    """Overflow: the server of the greatest weight among those with no more active connections than weight.

    ``ip_vs_ovf_schedule`` in net/netfilter/ipvs/ip_vs_ovf.c (since 4.3; 4.19.79 to 6.12). So a server gets
    one connection more than its weight before the next one in line has its turn; no server gets any when all
    have that many.
    """
    servers = moment.servers
    able = [index for index in moment.available() if servers[index].active <= servers[index].weight]
    return Choice(max(able, key=lambda index: servers[index].weight, default=None))


def overhead(server: Server, active_cost: int) -> int:
    """Return ``active * active_cost + inactive``, which lc, wlc, lblc and lblcr compare.

    The cost is 256 in ``ip_vs_wlc_dest_overhead`` (2.4.37.11, net/ipv4/ipvs/ip_vs_wlc.c; the same for lc)
    and ``ip_vs_dest_conn_overhead`` (since 2.6.39, include/net/ip_vs.h), 50 in lblc and lblcr before 2.6.39,
    and 257 where the kernel counts total connections in place of inactive ones ("ipvs: add totalconns for
    dest": seen in 6.12.118, in 6.12.y since 6.12.104, in 6.1.y since 6.1.183).
    """
    return server.active * active_cost + server.inactive


def least_loaded(servers: Sequence[Server], load: Callable[[Server], int]) -> int | None:
    """Return the index of the available server with the least ``load`` per weight.

    The first one wins a tie: a later one displaces it only if ``least_load * its_weight > its_load *
    least_weight``, strictly.
    """
    loads = {
        index: Fraction(load(server), server.weight)
        for index, server in enumerate(servers)
        if server.available
    }
    return min(loads, key=loads.__getitem__, default=None)


def active_cost(version: Version) -> int:
    """Return the cost of an active connection in lc and wlc (an inactive one: 1)."""
    since = TOTAL_CONNECTIONS.get(version[:2], TOTAL_CONNECTIONS_SINCE)
    return 257 if version >= since else 256


SCHEDULERS: Mapping[str, Build] = {
    "lc": lambda version, flags: Model(partial(lc, active_cost=active_cost(version))),
    "wlc": lambda version, flags: Model(partial(wlc, active_cost=active_cost(version))),
    "sed": lambda version, flags: Model(sed),
    "nq": lambda version, flags: Model(nq_2_4 if version < (2, 6) else nq),
    "fo": lambda version, flags: Model(fo),
    "ovf": lambda version, flags: Model(ovf),
}
