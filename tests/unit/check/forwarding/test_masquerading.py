"""The packets of masquerading, byte by byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lvslab.check.forwarding import method_for
from tests.unit.check.forwarding.frames import Wire, ipv4, ipv6, tcp, udp

Make = Callable[..., bytes]

FAMILIES = [
    pytest.param("66.199.240.10", "66.199.240.50", "10.0.0.100", id="IPv4"),
    pytest.param("2001:db8::10", "2001:db8::50", "fd00::100", id="IPv6"),
]
TRANSPORTS = [pytest.param(tcp, 6, "t", id="tcp"), pytest.param(udp, 17, "u", id="udp")]


def network(source: str, target: str, content: bytes, protocol: int, hops: int, tos: int = 0x28) -> bytes:
    if ":" in source:
        return ipv6(source, target, content, protocol, hops=hops, tclass=tos, flow=0xABCDE)
    return ipv4(source, target, content, protocol, ttl=hops, tos=tos, df=False, identification=0x1234)


def wire_to(vip: str, server: str, letter: str, kernel: tuple[int, ...] = (6, 1)) -> Wire:
    one, other = (f"[{end}]" if ":" in end else end for end in (vip, server))
    return Wire(f"-A -{letter} {one}:80\n-a -{letter} {one}:80 -r {other}:8080 -m\n", kernel)


@pytest.mark.parametrize(("client", "vip", "server"), FAMILIES)
@pytest.mark.parametrize(("transport", "protocol", "letter"), TRANSPORTS)
@pytest.mark.parametrize("partial", [False, True])
def test_requests_and_replies(
    client: str, vip: str, server: str, transport: Make, protocol: int, letter: str, partial: bool
) -> None:
    wire = wire_to(vip, server, letter)
    how = {"partial": partial}
    sides = [
        (wire.arrives, client, vip, (40000, 80), 55, b"a request"),
        (wire.goes_in, client, server, (40000, 8080), 54, b"a request"),
        (wire.returns, server, client, (8080, 40000), 64, b"its reply"),
        (wire.goes_out, vip, client, (80, 40000), 63, b"its reply"),
    ]
    for see, source, target, ports, hops, data in sides:
        content = transport(source, target, ports, data, **how)
        see(network(source, target, content, protocol, hops), unfinished=partial)
    found = wire.compared()
    assert (found.pairs, found.mismatches) == (2, ())


@pytest.mark.parametrize(("kernel", "hops"), [((4, 9, 200), 55), ((4, 10), 54), ((2, 4, 37), 55)])
def test_older_kernels_keep_the_ttl_of_requests(kernel: tuple[int, ...], hops: int) -> None:
    client, vip, server = "66.199.240.10", "66.199.240.50", "10.0.0.100"
    wire = wire_to(vip, server, "t", kernel)
    wire.arrives(network(client, vip, tcp(client, vip, (40000, 80)), 6, 55))
    wire.goes_in(network(client, server, tcp(client, server, (40000, 8080)), 6, hops))
    assert wire.compared().mismatches == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tos": 0}, "ip.dsfield: expected 0x28, seen 0x00"),
        ({"identification": 1}, "ip.id: expected 0x1234, seen 0x01"),
        ({"df": True}, "ip.flags.df: expected 0, seen 1"),
        ({"wrong": 1}, "ip.checksum: expected the right one, seen 0x"),
    ],
)
def test_what_must_stay(change: dict[str, int], says: str) -> None:
    client, vip, server = "66.199.240.10", "66.199.240.50", "10.0.0.100"
    wire = wire_to(vip, server, "t")
    wire.arrives(network(client, vip, tcp(client, vip, (40000, 80)), 6, 55))
    as_before = {"ttl": 54, "tos": 0x28, "df": False, "identification": 0x1234}
    wire.goes_in(ipv4(client, server, tcp(client, server, (40000, 8080)), **{**as_before, **change}))
    (said,) = wire.differences()
    assert said.startswith(says)


def test_a_checksum_that_was_not_adapted_is_wrong() -> None:
    client, vip, server = "66.199.240.10", "66.199.240.50", "10.0.0.100"
    wire = wire_to(vip, server, "t")
    wire.arrives(network(client, vip, tcp(client, vip, (40000, 80), b"x"), 6, 55))
    stale = tcp(client, vip, (40000, 8080), b"x")
    wire.goes_in(network(client, server, stale, 6, 54))
    (said,) = wire.differences()
    assert said.startswith("tcp.checksum: expected ") and "(wrong: 0x" in said


def test_a_datagram_without_a_checksum_has_none_afterwards() -> None:
    client, vip, server = "66.199.240.10", "66.199.240.50", "10.0.0.100"
    wire = wire_to(vip, server, "u")
    wire.arrives(network(client, vip, udp(client, vip, (40000, 80), b"x", none=True), 17, 55))
    wire.goes_in(network(client, server, udp(client, server, (40000, 8080), b"x"), 17, 54))
    (said,) = wire.differences()
    assert said.startswith("udp.checksum: expected none, seen 0x") and said.endswith("(right)")


def test_a_destination_without_a_port_has_the_services() -> None:
    client, vip, server = "66.199.240.10", "66.199.240.50", "10.0.0.100"
    wire = Wire(f"-A -t {vip}:0 -p 300\n-a -t {vip}:0 -r {server}:0 -m\n")
    wire.arrives(network(client, vip, tcp(client, vip, (40000, 443)), 6, 55))
    wire.goes_in(network(client, server, tcp(client, server, (40000, 443)), 6, 54))
    assert wire.compared().mismatches == ()


def test_its_properties() -> None:
    method = method_for("masquerading")
    assert method.replies_pass_director and not method.vip_on_real_servers
