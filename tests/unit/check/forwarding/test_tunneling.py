"""The packets of tunneling, byte by byte."""

from __future__ import annotations

import struct

import pytest

from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import Asked
from lvslab.check.forwarding.tunneling import METHOD, Tunnel
from lvslab.check.ipvs.rules import parse_rules
from tests.unit.check.forwarding.frames import Wire, internet_sum, ipv4, ipv6, tcp, udp

CLIENTS = {4: ("66.199.240.10", "66.199.240.50"), 6: ("2001:db8::10", "2001:db8::50")}
OUTER = {4: ("10.0.0.1", "10.0.0.100"), 6: ("fd00::1", "fd00::100")}
REMOTE = "--tun-type gue --tun-port 6080 --tun-remcsum"
GUE = "--tun-type gue --tun-port 6080"


def wire_with(inner: int, outer: int, tunnel: str = "", kernel: tuple[int, ...] = (6, 1)) -> Wire:
    vip, server = CLIENTS[inner][1], OUTER[outer][1]
    one, other = (f"[{end}]" if ":" in end else end for end in (vip, server))
    rules = f"-A -t {one}:80\n-a -t {one}:80 -r {other}:80 -i {tunnel}\n"
    return Wire(rules, kernel, (6080,), OUTER[outer][0])


def request(inner: int, *, hops: int = 64, tos: int = 0x10, df: bool = True, partial: bool = False) -> bytes:
    source, target = CLIENTS[inner]
    segment = tcp(source, target, (40000, 80), b"a request", partial=partial)
    if inner == 4:
        return ipv4(source, target, segment, ttl=hops, tos=tos, df=df)
    return ipv6(source, target, segment, hops=hops, tclass=tos, flow=0x777)


def around(
    outer: int, content: bytes, protocol: int, *, hops: int = 63, tos: int = 0x10, df: bool = True
) -> bytes:
    source, target = OUTER[outer]
    if outer == 4:
        return ipv4(source, target, content, protocol, ttl=hops, tos=tos, df=df, identification=4711)
    return ipv6(source, target, content, protocol, hops=hops, tclass=tos)


def gre(inner: int, content: bytes, *, checksum: bool = False) -> bytes:
    kind = 0x0800 if inner == 4 else 0x86DD
    if not checksum:
        return struct.pack("!HH", 0, kind) + content
    head = struct.pack("!HHHH", 0x8000, kind, 0, 0)
    return head[:4] + struct.pack("!HH", internet_sum(head + content), 0) + content


def gue(inner: int, outer: int, content: bytes, *, none: bool = True, options: bytes = b"") -> bytes:
    head = struct.pack("!BBH", len(options) // 4, 4 if inner == 4 else 41, 1 if options else 0) + options
    return udp(*OUTER[outer], (51234, 6080), head + content, none=none)


FAMILIES = [(4, 4), (4, 6), (6, 4), (6, 6)]


@pytest.mark.parametrize(("inner", "outer"), FAMILIES)
@pytest.mark.parametrize(
    "tunnel", ["", GUE, f"{GUE} --tun-csum", "--tun-type gre", "--tun-type gre --tun-csum"]
)
def test_every_type_in_every_family(inner: int, outer: int, tunnel: str) -> None:
    wire, inside = wire_with(inner, outer, tunnel), request(inner, hops=63)
    checksum = "--tun-csum" in tunnel
    df = inner == 4
    if "gue" in tunnel:
        outside = around(outer, gue(inner, outer, inside, none=not checksum), 17, df=df)
    elif "gre" in tunnel:
        outside = around(outer, gre(inner, inside, checksum=checksum), 47, df=df)
    else:
        outside = around(outer, inside, 4 if inner == 4 else 41, df=df)
    wire.arrives(request(inner))
    wire.goes_in(outside)
    found = wire.compared()
    assert (found.pairs, found.mismatches) == (1, ())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hops": 64}, "outer ip.ttl: expected 63, seen 64"),
        ({"tos": 0}, "outer ip.dsfield: expected 0x10, seen 0x00"),
        ({"df": False}, "outer ip.flags.df: expected 1, seen 0"),
    ],
)
def test_fields_that_the_outer_header_takes_from_the_inner_one(change: dict[str, int], says: str) -> None:
    wire = wire_with(4, 4)
    wire.arrives(request(4))
    wire.goes_in(around(4, request(4, hops=63), 4, **change))
    assert wire.differences() == [says]


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize(
    ("kernel", "tos", "outer_tos"),
    [((6, 1), 0x13, 0x12), ((6, 1), 0x11, 0x11), ((2, 6, 39), 0x13, 0x13), ((3, 18), 3, 2)],
)
def test_congestion_is_not_told_to_the_outer_header(
    inner: int, kernel: tuple[int, ...], tos: int, outer_tos: int
) -> None:
    wire, hops = wire_with(inner, 4, "", kernel), 63 if kernel >= (4, 10) else 64
    wire.arrives(request(inner, tos=tos))
    inside = request(inner, hops=hops, tos=tos)
    wire.goes_in(around(4, inside, 4 if inner == 4 else 41, hops=hops, tos=outer_tos, df=inner == 4))
    assert wire.differences() == []


def test_another_type_of_tunnel_is_noticed() -> None:
    wire = wire_with(4, 4)
    wire.arrives(request(4))
    wire.goes_in(around(4, gre(4, request(4, hops=63)), 47))
    assert wire.differences() == ["headers: expected eth ip ip tcp, seen eth ip gre ip tcp"]


def test_a_missing_and_a_wrong_checksum_are_noticed() -> None:
    for tunnel, none, says in (
        (f"{GUE} --tun-csum", True, "outer udp.checksum: expected the right one, seen 0 (none)"),
        (GUE, False, "outer udp.checksum: expected none, seen 0x"),
    ):
        wire = wire_with(4, 4, tunnel)
        wire.arrives(request(4))
        wire.goes_in(around(4, gue(4, 4, request(4, hops=63), none=none), 17))
        (said,) = wire.differences()
        assert said.startswith(says)
    wire = wire_with(4, 4, "--tun-type gre --tun-csum")
    wire.arrives(request(4))
    outer = bytearray(around(4, gre(4, request(4, hops=63), checksum=True), 47))
    outer[25] ^= 1
    wire.goes_in(bytes(outer))
    (said,) = wire.differences()
    assert said.startswith("outer gre.checksum: expected the right one, seen 0x") and "wrong" in said


@pytest.mark.parametrize(("inner", "begin"), [(4, 20), (6, 40)])
def test_a_checksum_that_the_receiver_is_to_finish(inner: int, begin: int) -> None:
    """The inner sum stays unfinished, and the outer one is made over it as it is."""
    options = struct.pack("!IHH", 1 << 31, begin, begin + 16)
    wire, inside = wire_with(inner, 4, REMOTE), request(inner, hops=63, partial=True)
    wire.arrives(request(inner, partial=True), unfinished=True)
    wire.goes_in(around(4, gue(inner, 4, inside, none=False, options=options), 17, df=inner == 4))
    assert wire.differences() == []
    # A request whose sum is finished needs no option.
    wire, inside = wire_with(inner, 4, REMOTE), request(inner, hops=63)
    wire.arrives(request(inner))
    wire.goes_in(around(4, gue(inner, 4, inside, none=False), 17, df=inner == 4))
    assert wire.differences() == []
    wire.seen.pop()
    wire.goes_in(around(4, gue(inner, 4, inside, none=False, options=options), 17, df=inner == 4))
    assert "outer gue.flags: expected 0x00, seen 0x01" in wire.differences()


def test_options_of_ipvsadm() -> None:
    assert Tunnel.of("") == Tunnel("ipip", 0, False, False)
    assert Tunnel.of("gue --tun-port 6080 --tun-remcsum") == Tunnel("gue", 6080, False, True)
    assert Tunnel.of("gre --tun-csum") == Tunnel("gre", 0, True, False)


def test_its_properties() -> None:
    method = method_for("tunneling")
    assert method.unforeseen == "" and method.vip_on_real_servers and not method.replies_pass_director


class Server:
    """A real server with interfaces that are up, by type; its ip prints ``says`` for all other types."""

    def __init__(self, links: dict[str, str], says: str = "", fou: str = "") -> None:
        self.links, self.says, self.fou = links, says, fou

    def output(self, command: str) -> str:
        if command.startswith("ip -o link show up type "):
            return self.links.get(command.rpartition(" ")[2], self.says)
        return self.fou if command == "ip fou show" else ""

    def read(self, file: str) -> str:
        return "Iface\n"

    def probe(self, address: str, port: int) -> None:
        raise AssertionError("the server has no virtual address")


TUNNEL = "4: tunl0@NONE: <NOARP,UP,LOWER_UP> mtu 1480 qdisc noqueue\\    link/ipip 0.0.0.0 brd 0.0.0.0\n"
UNKNOWN = 'Object "fou" is unknown, try "ip help".\n'
NO_IPIP = (
    "rs1 has no tunnel interface of type ipip that is up, so it does not unpack what the director sends by"
)


@pytest.mark.parametrize(
    ("inner", "outer", "tunnel", "server", "says"),
    [
        (4, 4, "", Server({"ipip": TUNNEL}), []),
        (4, 4, "", Server({}), [f"{NO_IPIP} ipip"]),
        (
            4,
            4,
            "",
            Server({"gre": TUNNEL.replace("tunl0@NONE", "gre1")}),
            [NO_IPIP.replace("up,", "up (those that are up: gre1 of type gre),") + " ipip"],
        ),
        (4, 6, "", Server({"ip6tnl": TUNNEL}), []),
        (4, 6, "", Server({}), [NO_IPIP.replace("ipip", "ip6tnl") + " ipip"]),
        (6, 4, "", Server({"sit": TUNNEL}), []),
        (6, 4, "", Server({}), [NO_IPIP.replace("ipip", "sit") + " ipip"]),
        (6, 4, "--tun-type gre", Server({"gre": TUNNEL}), []),
        (6, 6, "--tun-type gre", Server({}), [NO_IPIP.replace("ipip", "ip6gre") + " gre"]),
        (4, 4, GUE, Server({"ipip": TUNNEL}, fou="port 6080 gue\n"), []),
        (4, 4, GUE, Server({"ipip": TUNNEL}, fou=UNKNOWN), []),
        (4, 4, GUE, Server({}, fou="port 6080 gue\n"), [f"{NO_IPIP} gue"]),
        (
            4,
            4,
            GUE,
            Server({"ipip": TUNNEL}),
            ["rs1 does not take GUE at UDP port 6080, where the director sends it"],
        ),
        (
            4,
            4,
            GUE,
            Server({"ipip": TUNNEL}, fou="port 5555 ipproto 4\nport 6081 gue\nport 6080 gue -6\n"),
            ["rs1 does not take GUE at UDP port 6080 (only at 6081), where the director sends it"],
        ),
        (4, 6, GUE, Server({"ip6tnl": TUNNEL}, fou="port 6080 gue -6\n"), []),
        (4, 4, "", Server({}, "ip: invalid argument 'type' to 'ip link'\n"), []),
        (4, 4, "", Server({}, "sh: ip: not found\n"), []),
    ],
)
def test_whether_a_server_unpacks(
    inner: int, outer: int, tunnel: str, server: Server, says: list[str]
) -> None:
    vip, address = CLIENTS[inner][1], OUTER[outer][1]
    one, other = (f"[{end}]" if ":" in end else end for end in (vip, address))
    (service,) = parse_rules(f"-A -t {one}:80\n-a -t {one}:80 -r {other}:80 -i {tunnel}\n")
    found = METHOD.examine(server, "rs1", address, 80, Asked(service, vip))
    assert [each.cause for each in found.lacking] == says
