"""Model of mh (Maglev hashing), whose table changes little when a server comes or goes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache, partial
from itertools import chain
from math import gcd

from lvslab.check.schedulers.hashing import by_port_flag, folded, is_unavailable
from lvslab.check.schedulers.model import Build, Choice, Model, Moment, Version

# CONFIG_IP_VS_MH_TAB_INDEX is 12 where a configuration does not say otherwise: the fifth of ``primes``, and
# weights of at most 6 bits (net/netfilter/ipvs/ip_vs_mh.c, 4.19.79).
_PLACES = 4093
_WEIGHT_BITS = 6
_FIRST_KEY = 2654435761
_SECOND_KEY = 2654446892
_MASK = (1 << 64) - 1


def mh(moment: Moment, *, by_port: bool = False, falls_back: bool = False) -> Choice:
    """Maglev hashing of the client's address into a table of 4093 places.

    Each server has an order of its own, from its address and port, in which it takes places that are free;
    they take turns, as many at a time as their weights say. A server that is drained (weight 0) keeps its
    places, by the last weight that it had, and no server gets the connections that hash to them; with the
    flag mh-fallback (``falls_back``) the server of another place does. ``by_port`` is the flag mh-port: the
    client's port counts too. ``ip_vs_mh_schedule`` in net/netfilter/ipvs/ip_vs_mh.c (since 4.18; 4.19.79 to
    6.12), on 64-bit kernels.
    """
    places = _table(
        tuple(
            (
                server.address,
                server.port,
                server.weight if server.last_weight is None else server.last_weight,
            )
            for server in moment.servers
        )
    )
    if not places:
        return Choice(None)
    number = (folded(moment.client) + (moment.client_port if by_port else 0)) & 0xFFFFFFFF
    place = hash_1u32(number, _FIRST_KEY) % _PLACES
    # The kernel hashes "offset + port + address" as a whole, unlike in sh.
    others = (
        (number + (offset + place) % _PLACES) & 0xFFFFFFFF for offset in range(_PLACES if falls_back else 0)
    )
    found = chain([places[place]], (places[hash_1u32(other, _FIRST_KEY) % _PLACES] for other in others))
    return Choice(next((index for index in found if not is_unavailable(moment.servers[index])), None))


@lru_cache(maxsize=64)
def _table(servers: tuple[tuple[str, int, int], ...]) -> tuple[int, ...]:
    """Return the server's index for each place, () where no server has had a weight.

    ``servers`` are addresses, ports and last weights (``ip_vs_mh_permutate``, ``ip_vs_mh_populate``).
    """
    weights = [weight for _, _, weight in servers]
    common = gcd(*weights)
    if common < 1:
        return ()
    shift = max(0, (max(weights) // common).bit_length() - _WEIGHT_BITS)
    turns = [weight // common >> shift or int(weight != 0) for weight in weights]
    numbers = [(folded(address) + port) & 0xFFFFFFFF for address, port, _ in servers]
    next_place = [hash_1u32(number, _FIRST_KEY) % _PLACES for number in numbers]
    skip = [hash_1u32(number, _SECOND_KEY) % (_PLACES - 1) + 1 for number in numbers]
    places = [-1] * _PLACES
    left = _PLACES
    while True:
        for index, turn in enumerate(turns):
            for _ in range(turn):
                while places[next_place[index]] != -1:
                    next_place[index] = (next_place[index] + skip[index]) % _PLACES
                places[next_place[index]] = index
                left -= 1
                if not left:
                    return tuple(places)


def hash_1u32(number: int, key: int) -> int:
    """Return the lower 32 bits of SipHash-1-3 of ``number``, of 32 bits.

    The 128-bit ``key`` is 64 bits twice (``hsiphash_1u32`` of lib/siphash.c on 64-bit kernels, 5.15.135).
    """
    v0, v1 = 0x736F6D6570736575 ^ key, 0x646F72616E646F6D ^ key
    v2, v3 = 0x6C7967656E657261 ^ key, 0x7465646279746573 ^ key
    word = 4 << 56 | number
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0, v2 = v0 ^ word, v2 ^ 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return (v0 ^ v1 ^ v2 ^ v3) & 0xFFFFFFFF


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = _turned(v1, 13) ^ v0
    v0 = _turned(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _turned(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _turned(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _turned(v1, 17) ^ v2
    v2 = _turned(v2, 32)
    return v0, v1, v2, v3


def _turned(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK


def _mh_model(version: Version, flags: Collection[str]) -> Model:
    choose = partial(mh, by_port="mh-port" in flags, falls_back="mh-fallback" in flags)
    return Model(choose, unforeseen=by_port_flag(flags, "mh-port"))


SCHEDULERS: Mapping[str, Build] = {"mh": _mh_model}
