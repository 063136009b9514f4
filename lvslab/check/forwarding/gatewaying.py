"""Gatewaying (direct routing): the director sends requests on as they are, to the real server's MAC.

A request keeps its addresses and its port, so the real server must have the virtual address, and take no
part in ARP for it. It answers the client directly (``ip_vs_dr_xmit`` of net/netfilter/ipvs/ip_vs_xmit.c,
6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvslab.check.forwarding import way_back
from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.forwarding.method import Method, sent_on
from lvslab.check.probes import NodeView, default_gateway

if TYPE_CHECKING:
    from lvslab.check.forwarding.flow import Flow
    from lvslab.check.forwarding.packet import Packet


class Gatewaying(Method):
    """The model of gatewaying."""

    @property
    def unforeseen(self) -> str:
        return ""

    @property
    def vip_on_real_servers(self) -> bool:
        return True

    def forwarded(self, request: Packet, flow: Flow) -> Packet:
        """Give the request the MAC of the next hop to the real server."""
        return sent_on(request, flow)

    def examine(self, seen: NodeView, name: str, address: str, port: int, asked: Asked) -> ServerFacts:
        """Look up whether the server has the virtual address, and its way to the client."""
        gateway = default_gateway(seen, asked.target or address)
        facts = ServerFacts(name, address, port, self.name, gateway=gateway)
        return way_back.examine(seen, facts, asked)

    def causes(self, facts: ClusterFacts, servers: Sequence[ServerFacts]) -> list[Finding]:
        """Find servers without the virtual address or without a program on it, and lost replies."""
        return [cause for server in servers for cause in way_back.causes(facts, server)]

    def suspicions(self, facts: ClusterFacts) -> list[Finding]:
        """Find nothing: the director does not see replies."""
        return []


METHOD = Gatewaying("gatewaying")
