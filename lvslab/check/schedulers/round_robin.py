"""Models of the schedulers that go round: rr and wrr.

Both remember the server of the last connection. They were rewritten for Linux 3.10 (RCU), with the same
sequence while the table does not change, and another one after a change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Literal

from lvslab.check.schedulers.model import Build, Change, Choice, Model, Moment, Server, Version, index_of


@dataclass(frozen=True)
class Mark:
    """Memory of rr and wrr.

    ``server`` had the last connection; "" is the head of the list (the first server is next). ``level`` is
    the weight that wrr asks for at present (``cw``).
    """

    server: str = ""
    level: int = 0


def rr(moment: Moment) -> Choice:
    """Round robin: the next server of the list that has a weight above 0 and is not overloaded.

    net/ipv4/ipvs/ip_vs_rr.c (2.4.37.11 to 2.6.18), net/netfilter/ipvs/ip_vs_rr.c (2.6.32 to 6.12). The
    server that had the last connection is looked at last. Where no server can be chosen, the place is kept.
    """
    place = index_of(moment.servers, _mark(moment.memory).server)
    chosen = min(moment.available(), key=lambda index: (index <= place, index), default=None)
    return Choice(chosen, moment.memory if chosen is None else Mark(moment.servers[chosen].name))


def rr_starts_again(change: Change) -> object:
    """Return to the head of the list after a change (``ip_vs_rr_update_svc``, 2.4.37.11 to 2.6.39)."""
    return Mark()


def rr_steps_back(change: Change) -> object:
    """Step back where the server of the last connection is removed, since 3.10.

    The one before it in the list takes its place in the memory; no other change matters
    (``ip_vs_rr_del_dest``, 4.19.79).
    """
    mark = _mark(change.memory)
    if change.kind != "remove" or mark.server != change.server:
        return mark
    place = index_of(change.before, change.server)
    return Mark(change.before[place - 1].name if place > 0 else "")


Stops = Literal["never", "back", "lowest"]


def wrr_old(moment: Moment, *, stops: Stops) -> Choice:
    """Weighted round robin before 3.10: rounds through the list, each of which asks for a lower weight.

    The first round asks for the greatest weight, each following one for ``gcd`` less; after the lowest it
    begins again. When it gives up differs: 2.4.37.11 never has to (``never``); 2.6.11 does as soon as it is
    back where it started (``back``), which after a weight was lowered happens with servers that could
    take the connection; 2.6.18 to 2.6.39 only in the round of the lowest weight (``lowest``).
    net/ipv4/ipvs/ip_vs_wrr.c of 2.4.37.11, 2.6.11 and 2.6.18, net/netfilter/ipvs/ip_vs_wrr.c of 2.6.32 and
    2.6.39.
    """
    servers, mark = moment.servers, _mark(moment.memory)
    heaviest, step = _heaviest(servers), _step(servers)
    start = place = index_of(servers, mark.server)
    level = mark.level
    while True:
        if place == -1:
            if not servers:
                return Choice(None, Mark("", level))
            place, level = 0, level - step
            if level <= 0:
                level = heaviest
                if level == 0:
                    return Choice(None, Mark())
        else:
            place = place + 1 if place + 1 < len(servers) else -1
        if place != -1 and not servers[place].overloaded and servers[place].weight >= level:
            return Choice(place, Mark(servers[place].name, level))
        if place == start and (stops == "back" or (stops == "lowest" and level == step)):
            return Choice(None, Mark(mark.server if place != -1 else "", level))


def wrr_keeps_level(change: Change) -> object:
    """Begin a new round, with the next lower weight, after a change, in 2.6.11.

    It does so even where no server has as much weight any more (``ip_vs_wrr_update_svc``).
    """
    return Mark("", _mark(change.memory).level)


def wrr_clamps_level(change: Change) -> object:
    """Forget a weight that is greater than all weights after a change.

    ``ip_vs_wrr_update_svc`` of 2.4.37.11 and 2.6.18 to 2.6.39.
    """
    level = _mark(change.memory).level
    return Mark("", 0 if level > _heaviest(change.after) else level)


def wrr(moment: Moment) -> Choice:
    """Weighted round robin since 3.10: the same rounds, and the last one asks for a weight of 1.

    So a server whose weight falls below the common divisor meanwhile is found. ``ip_vs_wrr_schedule`` in
    net/netfilter/ipvs/ip_vs_wrr.c of 4.19.79, the same in 5.10.262, 5.15.135, 6.1.176 and 6.12.118.
    """
    servers, step, top = moment.servers, _step(moment.servers), _top(moment.servers)
    mark = moment.memory if isinstance(moment.memory, Mark) else Mark("", top)
    if top == 0:
        return Choice(None, mark)
    last = place = index_of(servers, mark.server)
    level, stop, last_pass, restarted = mark.level, None, False, False
    while True:
        for index in range(place + 1, len(servers)):
            if not servers[index].overloaded and servers[index].weight >= level:
                return Choice(index, Mark(servers[index].name, level))
            if index == stop:
                return Choice(None, Mark(servers[index].name, level))
        place, level = -1, level - step
        if level <= 0:
            level = top
            if last_pass or last == -1:
                return Choice(None, Mark("", level))
            restarted = True
        last_pass = level <= step
        if last_pass and restarted and last != -1:
            stop = last


def wrr_moves_level(change: Change) -> object:
    """Begin a round from the head of the list after a change, since 3.10.

    It asks for the weight of the round before, or the nearest that fits the new common divisor
    (``ip_vs_wrr_dest_changed``, 4.19.79 to 6.12.118). So the first rounds depend on the order in which the
    servers were added.
    """
    level = change.memory.level if isinstance(change.memory, Mark) else _top(change.before)
    step, top = _step(change.after), _top(change.after)
    if level > top or level == 0:
        level = top
    elif step > 1:
        level = level // step * step + 1
    return Mark("", level)


def _mark(memory: object) -> Mark:
    return memory if isinstance(memory, Mark) else Mark()


def _heaviest(servers: Sequence[Server]) -> int:
    return max((server.weight for server in servers), default=0)


def _step(servers: Sequence[Server]) -> int:
    """Return the step of the weight from round to round (``di``): the common divisor of all weights."""
    return gcd(*(server.weight for server in servers if server.weight > 0)) or 1


def _top(servers: Sequence[Server]) -> int:
    """Return the weight of the first round since 3.10 (``mw``), 0 for none."""
    return _heaviest(servers) - (_step(servers) - 1)


def _wrr_model(version: Version, flags: Collection[str]) -> Model:
    if version >= (3, 10):
        return Model(wrr, wrr_moves_level, remembers=True)
    if version < (2, 6):
        return Model(partial(wrr_old, stops="never"), wrr_clamps_level, remembers=True)
    # Between 2.6.11 and 2.6.18; which of the releases in between was the first is not known.
    if version < (2, 6, 12):
        return Model(partial(wrr_old, stops="back"), wrr_keeps_level, remembers=True)
    return Model(partial(wrr_old, stops="lowest"), wrr_clamps_level, remembers=True)


SCHEDULERS: Mapping[str, Build] = {
    "rr": lambda version, flags: Model(
        rr,
        rr_steps_back if version >= (3, 10) else rr_starts_again,
        remembers=True,
        naming=lambda server, destination: [Mark(server)],
    ),
    "wrr": _wrr_model,
}
