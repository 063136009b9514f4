"""Causes around a service: on the way there and back, and at cards and addresses of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from lvslab.check.diagnosis import cards
from lvslab.check.diagnosis.ways import Way, follow
from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import Asked, Finding
from lvslab.check.ipvs.table import Destination, Service
from lvslab.check.probes import NodeView, addresses, is_silent, neighbour_mac, route_to
from lvslab.errors import BootError
from lvslab.lab.model import Lab

MOST_SERVERS = 16
"""Maximum number of a service's real servers whose surroundings are examined."""


@dataclass(frozen=True)
class Surroundings:
    """Causes found around a service. ``nodes`` are those that its packets pass besides the director."""

    findings: tuple[Finding, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class _Examination:
    """A service as the director has it now, and the nodes around it."""

    lab: Lab
    see: Callable[[str], NodeView]
    director: str
    asked: Asked
    service: Service

    @property
    def servers(self) -> Mapping[str, Destination]:
        """The service's first destinations that are real servers of the lab, by name."""
        found = ((self.lab.names.get(each.address, ""), each) for each in self.service.destinations)
        return dict([(name, each) for name, each in found if name in self.lab.real_servers][:MOST_SERVERS])

    def director_addresses(self, server: str) -> list[str]:
        """Return the director's addresses of the family of ``server``, without the one that was asked."""
        own = map(str, self.lab.nodes[self.director].addresses)
        return [each for each in own if each != self.asked.target and (":" in each) == (":" in server)]


def examine(
    lab: Lab, see: Callable[[str], NodeView], director: str, asked: Asked, service: Service
) -> Surroundings:
    """Examine what lies around ``service`` of ``director``, which did not answer what was ``asked``."""
    this = _Examination(lab, see, director, asked, service)
    client = lab.names.get(asked.client, "")
    found, routers = list[Finding](), dict[str, None]()

    def walk(start: str, target: str, source: str = "", *, name: str = "") -> Way | None:
        with suppress(BootError):  # a virtual machine that does not answer tells nothing
            way = follow(lab, see, start, target, source, name=name)
            routers.update(dict.fromkeys(way.routers))
            return way
        return None

    if client and asked.target and (there := walk(client, asked.target)):
        found += [finding for _, finding in there.findings]
    replies_pass = False
    for destination in service.destinations[:MOST_SERVERS]:
        method = method_for(destination.forwarding)
        replies_pass = replies_pass or method.replies_pass_director
        if onward := walk(director, destination.address, name=str(destination)):
            found += [finding for _, finding in onward.findings]
            found += _by_a_router(destination, onward)
        name = lab.names.get(destination.address, "")
        if name in lab.real_servers and asked.client:
            source = asked.target if method.vip_on_real_servers else destination.address
            if back := walk(name, asked.client, source):
                found += back.after_start
    if client and client not in lab.real_servers and (out := walk(director, asked.client)) and replies_pass:
        # Else only ICMP messages of the director go there.
        found += [finding for _, finding in out.findings]
    nodes, down = [node for node in (client, *routers) if node], list[Finding]()
    for node in dict.fromkeys([director, *nodes, *this.servers]):
        with suppress(BootError):
            down += cards.causes(see(node), node, lab.nodes[node])
    for name, destination in this.servers.items():
        with suppress(BootError):
            found += _addresses(this, name, destination)
    return Surroundings(tuple(dict.fromkeys(down + found)), tuple(dict.fromkeys([*nodes, *this.servers])))


def _by_a_router(destination: Destination, way: Way) -> Iterator[Finding]:
    """Find a real server by gatewaying that is not on the director's networks."""
    if destination.forwarding != "gatewaying" or way.route is None or not way.route.via:
        return
    yield Finding(
        f"the director reaches {destination} by the router {way.route.via}, to which direct routing gives "
        "the packets as they are: they never reach that server",
        "have the server on a network of the director, or reach it by a tunnel (`ipvsadm -a ... -i`)",
    )


def _addresses(this: _Examination, name: str, destination: Destination) -> Iterator[Finding]:
    """Find a real server's missing and wrong addresses, and wrong entries for its neighbours."""
    seen, address, own_view = this.see(name), destination.address, this.see(this.director)
    present = addresses(seen.output("ip -o addr show"))
    if present and address not in present:
        yield Finding(
            f"{name} does not have the address {address}, to which the director sends its packets",
            f"look at `ip addr` on {name}, or mend the `ipvsadm -a`",
        )
        return
    links = cards.parse_links(seen.output("ip -o link show"))
    mac = neighbour_mac(own_view.output(f"ip neigh show {address}"))
    what = "neighbour solicitations" if ":" in address else "ARP requests"
    if mac and links and mac not in {card.mac for card in links}:
        yield Finding(
            f"the director sends packets for {address} to {mac}, which is not a card of {name}",
            f"run `ip neigh del {address} dev INTERFACE` on {this.director}; does another machine have that "
            "address?",
        )
    elif is_silent(own_view, address):
        if own := [each for each in this.director_addresses(address) if _has(seen, each)]:
            yield Finding(
                f"{name} takes {own[0]}, an address of the director, for its own, and no answer of it came "
                f"to the director's {what} for {address}",
                f"look at `ip addr` on {name}: is it a further address, or is a prefix on lo too short?",
            )
            return
        yield Finding(
            f"no answer of {name} came to the director's {what} for {address}",
            "is its card up and on the director's network, and does a filter drop them?",
        )


def _has(seen: NodeView, address: str) -> bool:
    """Return whether a node takes packets to ``address`` as its own."""
    there = route_to(seen, address)
    return there is not None and there.kind == "local"
