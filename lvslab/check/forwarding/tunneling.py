"""Tunneling: the director sends requests in packets of its own to the real server, which unpacks them.

The request inside keeps its addresses and its port, so the real server must have the virtual address; it
answers the client directly. The packet outside is IPv4 or IPv6, as the real server's address is, whatever
the request is (since 3.18). ``ip_vs_tunnel_xmit``, ``ip_vs_prepare_tunneled_skb``, ``ipvs_gue_encap`` and
``ipvs_gre_encap`` of net/netfilter/ipvs/ip_vs_xmit.c, 6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.forwarding.icmp import Refusal
from lvslab.check.forwarding.method import sent_on
from lvslab.check.forwarding.packet import (
    ABSENT,
    FREE,
    HOP_LIMIT,
    RIGHT,
    TRAFFIC_CLASS,
    Checksum,
    Header,
    Options,
    Packet,
    Value,
)
from lvslab.check.forwarding.way_back import DirectReplies
from lvslab.check.probes import NodeView

if TYPE_CHECKING:
    from lvslab.check.forwarding.flow import Flow

ECN_SINCE = (3, 18)
"""Kernels that give the outer header ECN as RFC 3168 has it, 9.1.1 (``INET_ECN_encapsulate``, 8052ba292559).

Before, the type of service was copied as a whole.
"""

_ECN, _ECT_0, _CE = 3, 2, 3
_ETHERNET = {"ip": 0x0800, "ipv6": 0x86DD}
_PROTOCOL = {"ip": 4, "ipv6": 41}
_UDP, _GRE = 17, 47
_CHECKSUM_AT = {"tcp": 16, "udp": 6, "sctp": 8}
# include/net/gue.h
_GUE_PRIVATE, _GUE_REMOTE_CHECKSUM = 1, 1 << 31


@dataclass(frozen=True)
class Tunnel:
    """A type of tunnel, from the options of ``ipvsadm -a`` (`Destination.tunnel`)."""

    kind: str = "ipip"
    port: int = 0
    checksum: bool = False
    remote_checksum: bool = False

    @classmethod
    def of(cls, options: str) -> Tunnel:
        """Read ``gue --tun-port 6080 --tun-csum`` and the like; "" is ipip."""
        words = options.split()
        port = int(words[words.index("--tun-port") + 1]) if "--tun-port" in words else 0
        return cls(words[0] if words else "ipip", port, "--tun-csum" in words, "--tun-remcsum" in words)


class Tunneling(DirectReplies):
    """The model of tunneling."""

    def overhead(self, request: Packet, flow: Flow) -> int:
        """Return the length of the outer headers."""
        between = _between(request, Tunnel.of(flow.destination.tunnel))
        return (40 if ":" in flow.destination.address else 20) + sum(map(_size, between))

    def refused(self, request: Packet, flow: Flow) -> Refusal | None:
        """Return why a request is refused.

        IPv4 is never too big where DF is not copied (pmtu_disc=0).
        """
        found = super().refused(request, flow)
        dropped = found and (
            found.reason != "too big" or flow.copies_df or request.network.protocol == "ipv6"
        )
        return found if dropped else None

    def forwarded(self, request: Packet, flow: Flow) -> Packet:
        """Put headers of the director's own around the request, whose TTL is decremented first."""
        inside = sent_on(request, flow)
        tunnel = Tunnel.of(flow.destination.tunnel)
        between = _between(inside, tunnel)
        protocol = {"udp": _UDP, "gre": _GRE}.get(
            between[0].protocol if between else "", _PROTOCOL[inside.network.protocol]
        )
        length = inside.length + sum(map(_size, between))
        outside = _outside(inside.network, flow, protocol, length)
        ethernet = inside.ethernet.with_fields(type=_ETHERNET[outside.protocol])
        return replace(inside, headers=(ethernet, outside, *between, *inside.headers[1:]))

    def examine(self, seen: NodeView, name: str, address: str, port: int, asked: Asked) -> ServerFacts:
        """Look up what direct routing needs as well, and whether the server unpacks these packets."""
        found = super().examine(seen, name, address, port, asked)
        tunnels = [Tunnel.of(each.tunnel) for each in asked.service.destinations if each.address == address]
        return replace(found, lacking=tuple(_lacking(seen, found, tunnels[0], asked)) if tunnels else ())

    def causes(self, facts: ClusterFacts, servers: Sequence[ServerFacts]) -> list[Finding]:
        """Find servers that do not unpack packets, besides the causes of direct routing."""
        return [each for server in servers for each in server.lacking] + super().causes(facts, servers)


METHOD = Tunneling("tunneling")

_LINK = re.compile(r"\d+: ([^@:\s]+)")
_GUE_PORT = re.compile(r"port (\d+) gue\b(.*)")
_TYPES = ("ipip", "gre", "sit", "ip6tnl", "ip6gre")


def _receiver(kind: str, inner: str, outer: str) -> tuple[str, str, str]:
    """Return type, module and first device of interfaces that unpack ``kind`` between such addresses."""
    if kind == "gre":
        return ("ip6gre", "ip6_gre", "ip6gre0") if ":" in outer else ("gre", "ip_gre", "gre0")
    if ":" in outer:
        return "ip6tnl", "ip6_tunnel", "ip6tnl0"
    return ("sit", "sit", "sit0") if ":" in inner else ("ipip", "ipip", "tunl0")


def _lacking(seen: NodeView, server: ServerFacts, tunnel: Tunnel, asked: Asked) -> Iterator[Finding]:
    """Yield what a server does not have that the director's packets need."""
    name = server.name
    if tunnel.kind == "gue":
        ports = _gue_ports(seen, server.address)
        if ports is not None and tunnel.port not in ports:
            others = f" (only at {', '.join(map(str, sorted(ports)))})" if ports else ""
            six = " -6" if ":" in server.address else ""
            yield Finding(
                f"{name} does not take GUE at UDP port {tunnel.port}{others}, where the director sends it",
                f"run `modprobe {'fou6' if six else 'fou'}` and `ip fou add port {tunnel.port} gue{six}` on "
                f"{name}, or give the `ipvsadm -a` another --tun-port",
            )
    kind, module, device = _receiver(tunnel.kind, asked.target, server.address)
    if _interfaces(seen, kind) == []:
        there = [f"{each} of type {other}" for other in _TYPES for each in _interfaces(seen, other) or ()]
        others = f" (those that are up: {', '.join(there)})" if there else ""
        yield Finding(
            f"{name} has no tunnel interface of type {kind} that is up{others}, so it does not unpack what "
            f"the director sends by {tunnel.kind}",
            f"run `modprobe {module}` and `ip link set {device} up` on {name}, or give the `ipvsadm -a` "
            "another --tun-type",
        )


def _interfaces(seen: NodeView, kind: str) -> list[str] | None:
    """Return the interfaces of type ``kind`` that are up on a node, None when unknown."""
    lines = seen.output(f"ip -o link show up type {kind}").splitlines()
    found = [link[1] for line in lines if (link := _LINK.match(line))]
    return found if found or not any(line.strip() for line in lines) else None


def _gue_ports(seen: NodeView, address: str) -> set[int] | None:
    """Return the UDP ports at which a node takes GUE, None when unknown.

    They are those for the family of ``address``.
    """
    lines = [line for line in seen.output("ip fou show").splitlines() if line.strip()]
    if not all(line.startswith("port ") for line in lines):
        return None
    found = (match for line in lines if (match := _GUE_PORT.match(line)))
    return {int(match[1]) for match in found if ("-6" in match[2].split()) == (":" in address)}


def _size(header: Header) -> int:
    """Return the length of a header between the two IP headers."""
    if header.protocol == "udp":
        return 8
    if header.protocol == "gre":
        return 8 if "checksum" in header.fields else 4
    length = header["hdr_len"]
    assert isinstance(length, int)
    return length


def _outside(inner: Header, flow: Flow, protocol: int, length: int) -> Header:
    """Return the director's own IP header around ``length`` bytes."""
    traffic_class, hops = inner[TRAFFIC_CLASS[inner.protocol]], inner[HOP_LIMIT[inner.protocol]]
    assert isinstance(traffic_class, int)
    if flow.kernel >= ECN_SINCE and traffic_class & _ECN == _CE:
        traffic_class = traffic_class & ~_ECN | _ECT_0
    source, target = flow.there.source, flow.destination.address
    if ":" in target:
        fields: dict[str, Value] = {"version": 6, "tclass": traffic_class, "flow": 0, "plen": length}
        return Header("ipv6", {**fields, "nxt": protocol, "hlim": hops, "src": source, "dst": target})
    fields = {"version": 4, "hdr_len": 20, "dsfield": traffic_class, "len": 20 + length, "id": FREE}
    # DF is the request's where there is one (and not with pmtu_disc=0).
    df = inner.fields.get("flags.df", 0) if flow.copies_df else 0
    fields |= {"flags.rb": 0, "flags.df": df, "flags.mf": 0, "frag_offset": 0, "ttl": hops}
    fields |= {"proto": protocol, "checksum": RIGHT, "src": source, "dst": target, "options": Options(b"")}
    return Header("ip", fields)


def _between(inside: Packet, tunnel: Tunnel) -> tuple[Header, ...]:
    """Return the headers between the two IP headers."""
    inner = inside.network.protocol
    if tunnel.kind == "gre":
        fields: dict[str, Value] = {"version_flags": 0, "proto": _ETHERNET[inner]}
        if tunnel.checksum:
            fields |= {"version_flags": 0x8000, "checksum": RIGHT, "offset": 0}
        return (Header("gre", {**fields, "options": Options(b"")}),)
    if tunnel.kind != "gue":
        return ()
    options = _remote_checksum(inside) if tunnel.remote_checksum else b""
    gue = Header(
        "gue",
        {
            "version": 0,
            "control": 0,
            "hdr_len": 4 + len(options),
            "proto": _PROTOCOL[inner],
            "flags": _GUE_PRIVATE if options else 0,
            "options": Options(options),
        },
    )
    udp = Header(
        "udp",
        {
            # A number made of the inner flow (udp_flow_src_port).
            "srcport": FREE,
            "dstport": tunnel.port,
            "length": 8 + 4 + len(options) + inside.length,
            "checksum": RIGHT if tunnel.checksum or tunnel.remote_checksum else ABSENT,
        },
    )
    return udp, gue


def _remote_checksum(inside: Packet) -> bytes:
    """Return GUE's option that lets the receiver finish the inner checksum.

    It is there only where that was left to the card, and says where the sum begins and where it goes.
    """
    transport = inside.transport
    checksum = transport["checksum"] if transport else None
    if transport is None or not isinstance(checksum, Checksum) or not checksum.unfinished:
        return b""
    header = inside.network
    begin = header["hdr_len"] if header.protocol == "ip" else 40
    assert isinstance(begin, int)
    place = begin + _CHECKSUM_AT[transport.protocol]
    return _GUE_REMOTE_CHECKSUM.to_bytes(4) + begin.to_bytes(2) + place.to_bytes(2)
