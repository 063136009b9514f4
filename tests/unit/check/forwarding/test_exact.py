from __future__ import annotations

import pytest

from lvslab.check.forwarding.exact import packets_match
from lvslab.errors import CheckFailed
from tests.unit.check.forwarding.frames import CLIENT_MAC, INSIDE_MAC, OUTSIDE_MAC, Wire, frame, ipv4, tcp

CLIENT, VIP, SERVER = "66.199.240.10", "66.199.240.50", "10.0.0.100"
RULES = f"-A -t {VIP}:80\n-a -t {VIP}:80 -r 10.0.0.101:8080 -m\n-a -t {VIP}:80 -r {SERVER}:8080 -m\n"
ASK, ANSWER = (40000, 80), (8080, 40000)


def request(data: bytes = b"", seq: int = 1000, flags: int = 0x18, **how: int) -> bytes:
    return ipv4(CLIENT, VIP, tcp(CLIENT, VIP, ASK, data, seq=seq, flags=flags), **how)


def forwarded(
    data: bytes = b"", seq: int = 1000, flags: int = 0x18, server: str = SERVER, **how: int
) -> bytes:
    made = tcp(CLIENT, server, (40000, 8080), data, seq=seq, flags=flags)
    return ipv4(CLIENT, server, made, **{"ttl": 63, **how})


@pytest.fixture
def wire() -> Wire:
    return Wire(RULES)


def test_a_connection_that_passes_as_it_should(wire: Wire) -> None:
    wire.arrives(request(flags=2))
    wire.goes_in(forwarded(flags=2))
    wire.returns(ipv4(SERVER, CLIENT, tcp(SERVER, CLIENT, ANSWER, flags=0x12)))
    wire.goes_out(ipv4(VIP, CLIENT, tcp(VIP, CLIENT, (80, 40000), flags=0x12), ttl=63))
    found = packets_match(wire.director, wire.seen)
    assert (found.pairs, found.mismatches) == (2, ())
    (flow,) = found.flows
    assert (str(flow), str(flow.destination)) == (f"{CLIENT}:40000 to {VIP}:80 (tcp)", f"{SERVER}:8080")


def test_a_block_without_packets_proves_nothing(wire: Wire) -> None:
    with pytest.raises(CheckFailed, match=r"no packet of 66\.199\.240\.50:80 was captured"):
        packets_match(wire.director, wire.seen)


def test_a_message_names_field_values_flow_and_times(wire: Wire) -> None:
    for seq in (1000, 1001):
        wire.arrives(request(b"x", seq))
        wire.goes_in(forwarded(b"x", seq, ttl=62))
    with pytest.raises(CheckFailed) as failed:
        packets_match(wire.director, wire.seen)
    first, second, third = failed.value.message.splitlines()
    assert first == "2 packets of 66.199.240.50:80 did not pass the director as they should"
    assert second == "  ip.ttl: expected 63, seen 62"
    assert third.startswith(
        "    request of 66.199.240.10:40000 to 66.199.240.50:80 (tcp): arrived at eth0 at "
    )
    assert ".000000, left at eth1 at " in third and third.endswith(".000001 (and 1 more like this)")


def test_packets_without_a_partner(wire: Wire) -> None:
    wire.arrives(request(b"first"))
    wire.goes_in(forwarded(b"first"))
    wire.arrives(request(b"lost", 1005))
    wire.returns(ipv4(SERVER, CLIENT, tcp(SERVER, CLIENT, ANSWER, b"lost, too")))
    wire.goes_out(ipv4(VIP, CLIENT, tcp(VIP, CLIENT, (80, 40000), b"from nowhere", seq=7), ttl=63))
    wire.goes_out(ipv4(VIP, CLIENT, tcp(VIP, CLIENT, (80, 40000), b"from there", seq=9), ttl=63))
    found = wire.compared()
    assert found.waiting
    lost, lost_too, *made_up = map(str, found.mismatches)
    assert lost.startswith("request of ") and lost.endswith("and no packet left for it")
    assert lost_too.startswith("reply of ") and lost_too.endswith("and no packet left for it")
    assert len(made_up) == 2 and all(each.endswith("and none had arrived for it") for each in made_up)


def test_a_connection_stays_with_its_server(wire: Wire) -> None:
    wire.arrives(request(b"a"))
    wire.goes_in(forwarded(b"a"))
    wire.arrives(request(b"b", 1001))
    wire.goes_in(forwarded(b"b", 1001, server="10.0.0.101"))
    assert wire.differences() == ["ip.dst: expected 10.0.0.100, seen 10.0.0.101"]


def test_a_retransmission_is_a_packet_of_its_own(wire: Wire) -> None:
    for identification in (7, 8):
        wire.arrives(request(b"again", identification=identification))
    wire.goes_in(forwarded(b"again", identification=8))
    (lost,) = wire.compared().mismatches
    assert lost.left is None and lost.arrived is not None
    assert lost.arrived.packet.network["id"] == 7


def test_a_packet_with_another_source_is_found_by_its_content(wire: Wire) -> None:
    wire.arrives(request(b"hello"))
    made = tcp("10.0.0.1", SERVER, (40000, 8080), b"hello")
    wire.goes_in(ipv4("10.0.0.1", SERVER, made, ttl=63))
    assert wire.differences() == ["ip.src: expected 66.199.240.10, seen 10.0.0.1"]


def test_a_frame_for_another_machine_is_not_the_directors(wire: Wire) -> None:
    wire.see("eth0", frame(CLIENT_MAC, INSIDE_MAC[:-1] + "f", request(b"flooded")))
    assert wire.compared().pairs == 0 and not wire.compared().mismatches


@pytest.mark.parametrize("joined_after", [True, False])
def test_segments_may_be_cut_and_joined(wire: Wire, joined_after: bool) -> None:
    data = bytes(range(200))
    whole, first, second = (data, 1000, 0x18), (data[:120], 1000, 0x10), (data[120:], 1120, 0x18)
    before, after = ([first, second], [whole]) if joined_after else ([whole], [first, second])
    for piece in before:
        wire.arrives(request(*piece, identification=7 + (piece[1] - 1000) // 100))
    for piece in after:
        wire.goes_in(forwarded(*piece, identification=7 + (piece[1] - 1000) // 100))
    found = wire.compared()
    assert (found.pairs, found.mismatches) == (2, ())


def test_a_byte_that_changed_in_a_joined_segment_is_found(wire: Wire) -> None:
    data = bytes(range(200))
    wire.arrives(request(data[:120], 1000, 0x10))
    wire.arrives(request(data[120:], 1120, 0x18, identification=8))
    wire.goes_in(forwarded(data[:150] + b"\xff" + data[151:]))
    assert wire.differences() == [
        "payload: expected 80 bytes with 96 97 98 99 9a 9b 9c 9d at 30, "
        "seen 80 bytes with ff 97 98 99 9a 9b 9c 9d at 30"
    ]


def test_macs_are_compared(wire: Wire) -> None:
    wire.arrives(request(b"x"))
    wire.see("eth1", frame(OUTSIDE_MAC, CLIENT_MAC, forwarded(b"x")), sent=True)
    assert wire.differences() == [
        "eth.dst: expected 02:00:00:00:00:5e, seen 02:00:00:00:00:0c",
        "eth.src: expected 02:00:00:00:0d:01, seen 02:00:00:00:0d:00",
    ]
