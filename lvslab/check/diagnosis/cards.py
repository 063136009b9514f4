"""Network cards and addresses of nodes, as far as a fault shows in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from lvslab.check.forwarding.facts import Finding
from lvslab.check.probes import NodeView
from lvslab.lab.model import Node

# However small its MTU is, Linux tells others that it takes segments of 256 bytes
# (net.ipv4.route.min_adv_mss, Documentation/networking/ip-sysctl.rst); both headers come on top.
_SMALLEST_MTU = 256 + 40
_LINK = re.compile(r"\d+: ([^:@]+)(?:@\S+)?: <([^>]*)> mtu (\d+)")
_ADDRESS = re.compile(r"\d+: (\S+)\s+inet6? ([0-9a-f.:]+)\S*( .*)?")


@dataclass(frozen=True)
class Card:
    """A network interface: its name, whether it is ``up``, its MTU and hardware address ("" for none)."""

    name: str
    up: bool
    mtu: int
    mac: str


def parse_links(listing: str) -> tuple[Card, ...]:
    """Parse ``ip -o link show``."""
    found = []
    for line in listing.splitlines():
        if read := _LINK.match(line):
            mac = re.search(r"link/ether ([0-9a-f:]{17})", line)
            found.append(Card(read[1], "UP" in read[2].split(","), int(read[3]), mac[1] if mac else ""))
    return tuple(found)


def refused_addresses(listing: str) -> frozenset[str]:
    """Return the addresses in ``ip -o addr show`` that duplicate address detection has refused."""
    found = (_ADDRESS.match(line) for line in listing.splitlines() if " dadfailed" in line)
    return frozenset(str(ip_address(read[2])) for read in found if read)


def causes(seen: NodeView, name: str, node: Node) -> Iterator[Finding]:
    """Find cards that are down, or have an MTU that is too small for TCP."""
    there = {card.name: card for card in parse_links(seen.output("ip -o link show"))}
    for card in (there[each] for each in node.interfaces if each in there):
        if not card.up:
            yield Finding(
                f"{card.name} of {name} is down",
                f"run `ip link set {card.name} up` on {name}, and add routes and IPv6 addresses again",
            )
        elif card.mtu < _SMALLEST_MTU:
            yield Finding(
                f"the MTU of {card.name} of {name} is {card.mtu}, so longer packets do not reach it, and "
                f"TCP sends packets of up to {_SMALLEST_MTU} bytes to any machine",
                f"run `ip link set {card.name} mtu 1500` on {name}",
            )
