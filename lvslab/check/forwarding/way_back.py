"""The way of methods whose replies do not pass the director: gatewaying and tunneling.

The real server has the virtual address, and answers the client directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.forwarding.method import Method
from lvslab.check.probes import NodeView, default_gateway, is_silent, probed, route_to


class DirectReplies(Method):
    """The common part of their models."""

    @property
    def unforeseen(self) -> str:
        return ""

    @property
    def vip_on_real_servers(self) -> bool:
        return True

    def examine(self, seen: NodeView, name: str, address: str, port: int, asked: Asked) -> ServerFacts:
        """Look up whether the server has the virtual address, and its way to the client."""
        gateway = default_gateway(seen, asked.target or address)
        facts = ServerFacts(name, address, port, self.name, gateway=gateway)
        there = route_to(seen, asked.target) if asked.target else None
        if there is None:
            return facts
        own = there.kind == "local"
        probe = probed(seen, asked.target, port, asked.protocol) if own else None
        found = replace(facts, has_virtual=own, probe=probe)
        if not asked.client or not own:
            return found
        back = route_to(seen, asked.client, asked.target)
        silent = back is not None and back.via != "" and is_silent(seen, back.via)
        return replace(found, way_back=back, silent_hop=silent)

    def causes(self, facts: ClusterFacts, servers: Sequence[ServerFacts]) -> list[Finding]:
        """Find servers without the virtual address or without a program on it, and lost replies."""
        return [cause for server in servers for cause in _causes(facts, server)]

    def suspicions(self, facts: ClusterFacts) -> list[Finding]:
        """Find nothing: the director does not see replies."""
        return []


def _causes(facts: ClusterFacts, server: ServerFacts) -> Iterator[Finding]:
    target, name = facts.target, server.name
    if server.has_virtual is False:
        yield Finding(
            f"{name} does not have the address {target}, so it does not take the requests that reach it",
            f"run `ip addr add {ip_interface(target)} dev lo` on {name}"
            + ("" if ":" in target else ", with arp_ignore=1 and arp_announce=2 set before")
            + ("" if server.forwarding == "tunneling" else "; or should the `ipvsadm -a` say -m?"),
        )
    if server.probe == "refused":
        yield Finding(
            f"nothing listens on {target}, port {server.port}, of {name} (connection refused)",
            f"start the server on {name}, on all of its addresses, or take it out with `ipvsadm -d`",
        )
    elif server.probe == "rejected":
        yield Finding(
            f"{name} refuses connections to {target}, port {server.port}, although a program listens there",
            f"look for a rule of iptables or nft on {name} that rejects them",
        )
    elif server.probe == "no-answer":
        yield Finding(
            f"{name} does not answer on {target}, not even to itself",
            "is its server stuck, or does it filter the port?",
        )
    back = server.way_back
    if back is None:
        return
    if back.kind == "none":
        yield Finding(
            f"{name} has no route to the client {facts.client}, so its replies go nowhere",
            f"run `ip route add default via ROUTER` on {name}, with the router to the clients",
        )
    elif back.via in facts.director_addresses and ":" not in target and facts.has_virtual:
        # fib_validate_source (net/ipv4/fib_frontend.c) refuses a source that is the machine's own.
        yield Finding(
            f"{name}'s replies go to the director {back.via}, which drops packets that come from its own "
            f"address {target}",
            f"let {name}'s route to the clients go by another router",
        )
    elif server.silent_hop:
        yield Finding(
            f"{name}'s {'default route' if back.via == server.gateway else 'route to the client'} goes to "
            f"{back.via}, and no machine answers for that address, so its replies go nowhere",
            f"run `ip route replace default via ROUTER` on {name}, with the router to the clients",
        )
