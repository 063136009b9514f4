"""Masquerading (NAT): the director rewrites the destination of requests, and the source of replies.

A request leaves the director for the address and port of the destination, and keeps the client's address as
its source. The reply must come back through the director, which replaces its source by the virtual service.
So the director must forward packets, and be the way from the real servers to the clients. A destination may
have another port than the service (``ip_vs_nat_xmit`` and ``handle_response`` of net/netfilter/ipvs, 6.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.forwarding.method import Method, sent_on
from lvslab.check.probes import NodeView, default_gateway, probed, route_to

if TYPE_CHECKING:
    from lvslab.check.forwarding.flow import Flow
    from lvslab.check.forwarding.packet import Packet


class Masquerading(Method):
    """The model of masquerading."""

    @property
    def unforeseen(self) -> str:
        return ""

    @property
    def replies_pass_director(self) -> bool:
        return True

    def forwarded(self, request: Packet, flow: Flow) -> Packet:
        """Give the request the real server's address and port (``ip_vs_nat_xmit``, ``tcp_dnat_handler``).

        All else stays, down to the identification and DF, and the checksums fit.
        """
        address, port = flow.server
        return sent_on(request, flow).with_network(dst=address).with_transport(dstport=port)

    def returned(self, reply: Packet, flow: Flow) -> Packet:
        """Give the reply the virtual service's address and port (``handle_response``, ip_vs_core.c).

        That happens in FORWARD, on the way of a packet that any router forwards: its TTL is decremented.
        """
        address, port = flow.virtual
        back = super().returned(reply, flow)
        return back.with_network(src=address).with_transport(srcport=port)

    def examine(self, seen: NodeView, name: str, address: str, port: int, asked: Asked) -> ServerFacts:
        """Ask the server on its own address, and look up its way to the client."""
        probe = probed(seen, address, port, asked.protocol)
        gateway = default_gateway(seen, address)
        back = route_to(seen, asked.client, address) if asked.client else None
        return ServerFacts(name, address, port, self.name, probe, gateway, way_back=back)

    def causes(self, facts: ClusterFacts, servers: Sequence[ServerFacts]) -> list[Finding]:
        """Find a director that does not forward, silent servers, and routes around the director."""
        ipv6 = any(":" in server.address for server in servers)
        found = [] if facts.ip_forward != 0 else [_NOT_FORWARDED_IPV6 if ipv6 else _NOT_FORWARDED]
        for server in servers:
            found += _causes(server, facts)
        return found

    def suspicions(self, facts: ClusterFacts) -> list[Finding]:
        """Find replies that the counters do not show."""
        if facts.counters is None or not facts.counters.connections or facts.counters.packets_out:
            return []
        return [
            Finding(
                f"{facts.counters.connections} connections came in at {facts.virtual_service} and no packet "
                "went out: the replies do not pass through the director",
                "does the director's FORWARD chain drop them, or its rp_filter, or does a real server that "
                "is on the client's own network answer it directly?",
            )
        ]


METHOD = Masquerading("masquerading")

# A request is taken at LOCAL_IN (ip_vs_in) and sent on like a packet of the director's own, which needs
# no forwarding (ip_vs_nat_xmit). The reply is addressed to the client: with ip_forward 0 it has no input
# route (ip_route_input_slow, net/ipv4/route.c of 2.4.37.11, 2.6.39 and 6.1), is dropped without an ICMP
# message, and never reaches FORWARD, where IPVS would rewrite it.
_NOT_FORWARDED = Finding(
    "ip_forward is 0 on the director: packets are not forwarded, so requests reach the "
    "real servers, but their replies are dropped on the way back",
    "set net.ipv4.ip_forward = 1 in /etc/sysctl.conf and run `sysctl -p` on the director",
)


_NOT_FORWARDED_IPV6 = Finding(
    "IPv6 forwarding is 0 on the director: packets are not forwarded, so requests reach the real servers, "
    "but their replies are dropped on the way back",
    "set net.ipv6.conf.all.forwarding = 1 in /etc/sysctl.conf and run `sysctl -p` on the director",
)


def _causes(server: ServerFacts, facts: ClusterFacts) -> Iterator[Finding]:
    director = facts.director_address
    if server.probe == "refused":
        yield Finding(
            f"nothing listens on {server} (connection refused)",
            f"start the server on {server.name}, or take it out with `ipvsadm -d`",
        )
    elif server.probe == "rejected":
        yield Finding(
            f"{server.name} refuses connections to {server}, although a program listens there",
            f"look for a rule of iptables or nft on {server.name} that rejects them",
        )
    elif server.probe == "no-answer":
        yield Finding(
            f"{server.name} does not answer on {server}, not even from its own network",
            "is it up, is its address right, and does it filter the port?",
        )
    back = server.way_back
    if back is None:
        through = server.gateway is None or server.gateway in {director, *facts.director_addresses}
    else:
        through = back.kind == "unicast" and back.via in {director, *facts.director_addresses}
    if through:
        return
    if back is not None and back.kind == "local":
        yield Finding(
            f"{server.name} is the client {facts.client} itself: a request that the director sends back to "
            "it comes from its own address, and Linux drops it",
            "let the director lend such requests its own address: net.ipv4.vs.conntrack=1, and a rule "
            "`iptables -t nat -A POSTROUTING ... -m ipvs --vaddr ... -j MASQUERADE`",
        )
    elif back is not None and back.kind == "unicast" and not back.via:
        yield Finding(
            f"{server.name} is on the network of the client {facts.client}, so its replies go there "
            "directly and bypass the director",
            f"run `ip route add {facts.client} via {director}` on {server.name}, or ask from elsewhere",
        )
    elif back.kind == "none" if back else server.gateway == "":
        what = "default route" if server.gateway == "" else f"route to the client {facts.client}"
        yield Finding(
            f"{server.name} has no {what}, so its replies go nowhere",
            f"run `ip route add default via {director}` on {server.name}",
        )
    else:
        via = back.via if back else server.gateway
        what = "default route" if via == server.gateway else f"route to the client {facts.client}"
        where = "default" if via == server.gateway else facts.client
        yield Finding(
            f"{server.name}'s {what} goes to {via} and not to the director {director}, so its replies "
            "bypass the director",
            f"run `ip route replace {where} via {director}` on {server.name}",
        )
