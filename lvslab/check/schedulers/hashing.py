"""Models of dh and sh, which hash an address into a table of servers.

They have no memory: the table is rebuilt from all servers whenever one is added, edited or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from ipaddress import ip_address

from lvslab.check.schedulers.model import Build, Choice, Model, Moment, Server, Version

TABLE_BITS = 8
"""CONFIG_IP_VS_DH_TAB_BITS and CONFIG_IP_VS_SH_TAB_BITS where a configuration does not say otherwise
(``Kconfig`` of net/netfilter/ipvs; before, constants in ip_vs_dh.c and ip_vs_sh.c)."""

Hash = Callable[[int, int], int]
"""From a number of 32 bits and a number of bits to a hash of that many bits."""


def low_bits(number: int, bits: int) -> int:
    """Return the hash up to 4.17: only the lowest bits of the address matter.

    ``ip_vs_sh_hashkey``, 2.4.37.11 to 2.6.39, and 9a17740e0ea1, which ended it.
    """
    return number * 2654435761 & ((1 << bits) - 1)


def high_bits(number: int, bits: int) -> int:
    """Return the hash since 4.18 (9a17740e0ea1).

    It is ``hash_32`` of include/linux/hash.h, with GOLDEN_RATIO_32 (4.19.79).
    """
    return (number * 0x61C88647 & 0xFFFFFFFF) >> (32 - bits)


def folded(address: str) -> int:
    """Return an address as 32 bits: an IPv4 address itself, of IPv6 the exclusive or of its four words."""
    number = int(ip_address(address))
    return (number ^ number >> 32 ^ number >> 64 ^ number >> 96) & 0xFFFFFFFF


def dh(moment: Moment, *, hashes: Hash = high_bits, crowded_out: bool = False) -> Choice:
    """Destination hashing: the requested address decides, and weights above 0 do not matter.

    The table's 256 places are dealt to the servers in turn. Where the server of the place has the weight 0
    or is overloaded, no server gets the connection. ``crowded_out`` is 2.4's meaning of overloaded: more
    active connections than twice the weight. ``ip_vs_dh_schedule`` in net/ipv4/ipvs/ip_vs_dh.c (2.4.37.11 to
    2.6.18) and net/netfilter/ipvs/ip_vs_dh.c (2.6.32 to 6.12).
    """
    place = hashes(folded(moment.destination), TABLE_BITS)
    found = place % len(moment.servers) if moment.servers else None
    return Choice(None if found is None or is_unavailable(moment.servers[found], crowded_out) else found)


def sh(
    moment: Moment,
    *,
    hashes: Hash = high_bits,
    weighted: bool = True,
    crowded_out: bool = False,
    by_port: bool = False,
    falls_back: bool = False,
) -> Choice:
    """Source hashing: the client's address decides.

    Since 3.4 (``weighted``) a server gets as many of the table's 256 places in a row as its weight says, and
    one where that is 0; before, one place each in turn. Where the server of the place has the weight 0 or is
    overloaded, no server gets the connection, or, with the flag sh-fallback (``falls_back``, since 3.11),
    the server of another place, found by adding the hash to itself and counting on. ``by_port`` is the flag
    sh-port: the client's port counts too. ``crowded_out`` is as for `dh`. ``ip_vs_sh_schedule`` in
    net/ipv4/ipvs/ip_vs_sh.c (2.4.37.11 to 2.6.18) and net/netfilter/ipvs/ip_vs_sh.c (2.6.32 to 6.12).
    """
    # The servers of the table's first places, which the following places repeat.
    shares = [max(server.weight, 1) if weighted else 1 for server in moment.servers]
    dealt = [index for index, share in enumerate(shares) for _ in range(share)]
    if not dealt:
        return Choice(None)
    size = 1 << TABLE_BITS
    port = moment.client_port if by_port else 0
    place = hashes((folded(moment.client) + port) & 0xFFFFFFFF, TABLE_BITS)
    places = [place]
    if falls_back:
        places += [(offset + 2 * place) % size for offset in range(size)]
    tried = (dealt[at % len(dealt)] for at in places)
    return Choice(next((at for at in tried if not is_unavailable(moment.servers[at], crowded_out)), None))


def is_unavailable(server: Server, crowded_out: bool = False) -> bool:
    """Return whether this server takes no connection; see `dh` for ``crowded_out``."""
    return not server.available or (crowded_out and server.active > 2 * server.weight)


def by_port_flag(flags: Collection[str], flag: str) -> str:
    """Return why the servers cannot be foreseen where ``flag`` is among ``flags``, else ""."""
    return f"{flag} chooses them by the client's port" if flag in flags else ""


def _hash_of(version: Version) -> Hash:
    return high_bits if version >= (4, 18) else low_bits


def _sh_model(version: Version, flags: Collection[str]) -> Model:
    choose = partial(
        sh,
        hashes=_hash_of(version),
        weighted=version >= (3, 4),
        crowded_out=version < (2, 6),
        by_port="sh-port" in flags,
        falls_back="sh-fallback" in flags,
    )
    return Model(choose, unforeseen=by_port_flag(flags, "sh-port"))


SCHEDULERS: Mapping[str, Build] = {
    "dh": lambda version, flags: Model(partial(dh, hashes=_hash_of(version), crowded_out=version < (2, 6))),
    "sh": _sh_model,
}
