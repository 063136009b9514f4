"""Model of twos, which draws two servers and takes the less loaded one."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from itertools import product

from lvslab.check.schedulers.least_connection import active_cost, overhead
from lvslab.check.schedulers.model import Build, Model, Moment


def twos(moment: Moment, *, active_cost: int = 256) -> Mapping[int, Fraction]:
    """Return the probability of each server, by its index; empty where none can be chosen.

    ``ip_vs_twos_schedule`` in net/netfilter/ipvs/ip_vs_twos.c (since 5.12; read in 6.6). It draws two
    numbers from 0 to the sum of all weights, both included, and for each goes through the servers until
    their weights add up to it. So the first server in the list has one chance more than its weight, of one
    more than all weights; and both numbers may lead to the same server. Of the two servers the second is
    taken where it has less overhead for its weight, strictly. See `least_connection.overhead` for
    ``active_cost``. Servers of weight 0 are passed over, overloaded ones as well.
    """
    able = moment.available()
    numbers = sum(moment.servers[place].weight for place in able) + 1
    drawn = {place: Fraction(moment.servers[place].weight + (place == able[0]), numbers) for place in able}

    def taken(first: int, second: int) -> int:
        one, other = moment.servers[first], moment.servers[second]
        less = other.weight * overhead(one, active_cost) > one.weight * overhead(other, active_cost)
        return second if less else first

    chances = dict.fromkeys(able, Fraction(0))
    for first, second in product(able, repeat=2):
        chances[taken(first, second)] += drawn[first] * drawn[second]
    return chances


SCHEDULERS: Mapping[str, Build] = {
    "twos": lambda version, flags: Model(
        chances=partial(twos, active_cost=active_cost(version)), unforeseen="twos draws its servers"
    )
}
