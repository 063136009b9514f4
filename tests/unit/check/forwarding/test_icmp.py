"""Requests that a director answers by ICMP instead of sending them on."""

from __future__ import annotations

import struct

import pytest

from tests.unit.check.forwarding.frames import Wire, internet_sum, ipv4, ipv6, tcp

ENDS = {4: ("66.199.240.10", "66.199.240.50"), 6: ("2001:db8::10", "2001:db8::50")}
SERVER = {4: "10.0.0.100", 6: "fd00::100"}


def request(family: int, size: int, *, hops: int = 64, df: bool = True) -> bytes:
    """An IP packet of ``size`` bytes with a segment."""
    segment = tcp(*ENDS[family], (40000, 80), bytes(size - 20 - (20 if family == 4 else 40)))
    if family == 4:
        return ipv4(*ENDS[4], segment, ttl=hops, df=df)
    return ipv6(*ENDS[6], segment, hops=hops)


def refusal(family: int, kind: tuple[int, int], quoted: bytes, mtu: int = 0) -> bytes:
    client, vip = ENDS[family]
    data = bytes(kind) + bytes(2) + struct.pack("!I", mtu) + quoted[:500]
    data = data[:2] + struct.pack("!H", internet_sum(data)) + data[4:]
    return ipv4(vip, client, data, 1, df=False) if family == 4 else ipv6(vip, client, data, 58)


def wire_by(family: int, server: int, options: str) -> Wire:
    one, other = (f"[{end}]" if ":" in end else end for end in (ENDS[family][1], SERVER[server]))
    return Wire(f"-A -t {one}:80\n-a -t {one}:80 -r {other}:80 {options}\n", gue_ports=(6080,))


TOO_BIG = {4: (3, 4), 6: (2, 0)}
LATE = {4: (11, 0), 6: (3, 0)}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("server", "options", "room"),
    [
        (4, "-i", 1480),
        (6, "-i", 1460),
        (4, "-i --tun-type gue --tun-port 6080", 1468),
        (4, "-i --tun-type gre", 1476),
        (4, "-i --tun-type gre --tun-csum", 1472),
    ],
)
def test_a_request_that_does_not_fit_into_the_tunnel(
    family: int, server: int, options: str, room: int
) -> None:
    wire, too_big = wire_by(family, server, options), request(family, room + 1)
    wire.arrives(too_big)
    wire.goes_out(refusal(family, TOO_BIG[family], too_big, room))
    assert wire.compared().mismatches == () and wire.compared().pairs == 1
    wire.seen.pop()
    (lost,) = wire.compared().mismatches
    assert lost.left is None
    wire.goes_out(refusal(family, TOO_BIG[family], too_big, room + 1))
    assert wire.differences() == [f"icmp: expected too big (MTU {room}), seen too big (MTU {room + 1})"]


def test_a_request_that_fits_must_not_be_refused() -> None:
    wire, fits = wire_by(4, 4, "-i"), request(4, 1480)
    wire.arrives(fits)
    wire.goes_out(refusal(4, TOO_BIG[4], fits, 1480))
    assert wire.differences() == ["icmp: expected none, seen too big (MTU 1480)"]


def test_a_request_that_may_be_cut_must_not_be_refused() -> None:
    wire, large = wire_by(4, 4, "-i"), request(4, 1490, df=False)
    wire.arrives(large)
    wire.goes_out(refusal(4, TOO_BIG[4], large, 1480))
    assert wire.differences() == ["icmp: expected none, seen too big (MTU 1480)"]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("options", ["-m", "-g", "-i"])
def test_the_last_hop(family: int, options: str) -> None:
    wire, late = wire_by(family, family, options), request(family, 100, hops=1)
    wire.arrives(late)
    # The message may be left out: there is a limit of them.
    assert wire.compared().mismatches == ()
    wire.goes_out(refusal(family, LATE[family], late))
    assert wire.compared().mismatches == ()
    wire.seen.clear()
    wire.arrives(request(family, 100, hops=2))
    (lost,) = wire.compared().mismatches
    assert lost.left is None


def test_a_retransmission_in_smaller_pieces_is_compared_with_what_left() -> None:
    wire, too_big = wire_by(4, 4, "-g"), request(4, 1500)
    wire.arrives(too_big)
    wire.goes_out(refusal(4, TOO_BIG[4], too_big, 1400))
    for place in (0, 1):
        piece = tcp(*ENDS[4], (40000, 80), bytes(730), seq=1000 + 730 * place)
        wire.arrives(ipv4(*ENDS[4], piece))
        wire.goes_in(ipv4(*ENDS[4], piece, ttl=63))
    found = wire.compared()
    # Only the message is wrong: it fits into 1500.
    assert found.pairs == 3
    assert wire.differences() == ["icmp: expected none, seen too big (MTU 1400)"]
