"""A model of the order in which a client tries a name's addresses: RFC 6724 as in glibc's getaddrinfo.

It is compared with the result of getaddrinfo, and has the rules that can differ between addresses of a lab:
an address without a source address comes last (rule 1), then precedence (rule 6, with the default table of
glibc's sysdeps/posix/getaddrinfo.c), then the longest common prefix of destination and source (rule 9), else
the name server's order (rule 10).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cmp_to_key
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

Source = IPv4Interface | IPv6Interface

_PRECEDENCE = {6: 40, 4: 10}  # of ::/0 and of ::ffff:0:0/96


def client_order(answers: Iterable[str], interfaces: Iterable[str]) -> tuple[str, ...]:
    """Sort ``answers`` as a client does.

    ``answers`` are addresses in the name server's order, those of one family together. ``interfaces`` are
    the client's addresses with their prefix lengths; networks without one are unreachable, since a lab's
    clients have no default route.
    """
    sources = [ip_interface(text) for text in interfaces]

    def compare(one: str, other: str) -> int:
        first, second = (
            next((source for source in sources if ip_address(address) in source.network), None)
            for address in (one, other)
        )
        if first is None or second is None:
            return (first is None) - (second is None)  # rule 1
        versions = (first.version, second.version)
        if versions[0] != versions[1]:
            return _PRECEDENCE[versions[1]] - _PRECEDENCE[versions[0]]  # rule 6
        return _common(other, second) - _common(one, first)  # rule 9

    # sorted() keeps the order of what is equal, as glibc's qsort_r with the original index does: rule 10.
    return tuple(sorted(answers, key=cmp_to_key(compare)))


def _common(address: str, source: Source) -> int:
    """Count the leading bits that a destination shares with its source on the same network.

    For IPv4, glibc compares addresses on the source's own network only and takes 0 elsewhere.
    """
    destination = ip_address(address)
    return destination.max_prefixlen - (int(destination) ^ int(source.ip)).bit_length()
