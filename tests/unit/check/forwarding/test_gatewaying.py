"""The packets of gatewaying, byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lvslab.check.forwarding import method_for
from tests.unit.check.forwarding.frames import Wire, ipv4, ipv6, tcp, udp

Make = Callable[..., bytes]
IPV4 = "66.199.240.10", "66.199.240.50", "10.0.0.100"
IPV6 = "2001:db8::10", "2001:db8::50", "fd00::100"


def rules(vip: str, server: str, letter: str = "t") -> str:
    one, other = (f"[{end}]" if ":" in end else end for end in (vip, server))
    return f"-A -{letter} {one}:80\n-a -{letter} {one}:80 -r {other}:80 -g\n"


def network(source: str, target: str, content: bytes, protocol: int, hops: int) -> bytes:
    if ":" in source:
        return ipv6(source, target, content, protocol, hops=hops, tclass=0xB9, flow=0x12345)
    return ipv4(source, target, content, protocol, ttl=hops, tos=0xB9)


@pytest.mark.parametrize(("client", "vip", "server"), [IPV4, IPV6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("transport", "protocol", "letter"), [(tcp, 6, "t"), (udp, 17, "u")])
def test_a_request_keeps_all_but_macs_and_ttl(
    client: str, vip: str, server: str, transport: Make, protocol: int, letter: str
) -> None:
    wire = Wire(rules(vip, server, letter))
    content = transport(client, vip, (40000, 80), b"a request")
    wire.arrives(network(client, vip, content, protocol, 9))
    wire.goes_in(network(client, vip, content, protocol, 8))
    found = wire.compared()
    assert (found.pairs, found.mismatches) == (1, ())


def test_an_address_that_was_rewritten_is_noticed() -> None:
    client, vip, server = IPV4
    wire = Wire(rules(vip, server))
    wire.arrives(network(client, vip, tcp(client, vip, (40000, 80)), 6, 9))
    wire.goes_in(network(client, server, tcp(client, server, (40000, 80)), 6, 8))
    assert wire.differences() == [f"ip.dst: expected {vip}, seen {server}"]


def test_a_reply_need_not_pass_and_may() -> None:
    client, vip, server = IPV4
    wire = Wire(rules(vip, server))
    wire.arrives(network(client, vip, tcp(client, vip, (40000, 80)), 6, 9))
    wire.goes_in(network(client, vip, tcp(client, vip, (40000, 80)), 6, 8))
    reply = tcp(vip, client, (80, 40000), b"reply")
    wire.returns(network(vip, client, reply, 6, 64))
    assert wire.compared().mismatches == ()
    wire.goes_out(network(vip, client, reply, 6, 62))
    assert wire.differences() == ["ip.ttl: expected 63, seen 62"]


def test_its_properties() -> None:
    method = method_for("gatewaying")
    assert method.unforeseen == "" and method.vip_on_real_servers and not method.replies_pass_director
    assert method.destination_port(8080, 80) == 8080
