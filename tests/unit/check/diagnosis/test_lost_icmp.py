"""ICMP messages that get lost between a director and a client."""

from __future__ import annotations

import struct

import pytest

from lvslab.check.diagnosis.lost_icmp import LostMessages, Message, Sighting, lost, message_in
from tests.unit.check.forwarding.frames import CLIENT_MAC, ROUTER_MAC, frame, ipv4, ipv6, tcp
from tests.unit.fake_cluster import FakeCluster

QUOTED = {
    4: ipv4("198.51.100.10", "66.199.240.50", tcp("198.51.100.10", "66.199.240.50", (40000, 80)))[:28],
    6: ipv6("2001:db8::10", "2001:db8::50", b"", 6),
}
FOUND = {
    4: Message("66.199.240.50", "198.51.100.10", 1480, QUOTED[4]),
    6: Message("2001:db8::50", "2001:db8::10", 1460, QUOTED[6]),
}
NAMES = {"198.51.100.10": "client", "66.199.240.2": "director"}


def told(family: int, kind: tuple[int, int] | None = None, *, ttl: int = 64) -> bytes:
    """A frame with the message FOUND, or with one of another ``kind``."""
    first = bytes(kind or ((3, 4) if family == 4 else (2, 0))) + bytes(2)
    if family == 4:
        data = first + struct.pack("!HH", 0, 1480) + QUOTED[4]
        packet = ipv4("66.199.240.50", "198.51.100.10", data, 1, ttl=ttl)
    else:
        data = first + struct.pack("!I", 1460) + QUOTED[6]
        packet = ipv6("2001:db8::50", "2001:db8::10", data, 58, hops=ttl)
    return frame(ROUTER_MAC, CLIENT_MAC, packet)


@pytest.mark.parametrize("family", [4, 6])
def test_a_message_is_read_alike_on_all_of_its_way(family: int) -> None:
    assert message_in(told(family)) == message_in(told(family, ttl=63)) == FOUND[family]
    assert message_in(told(family)[:40]) is None


@pytest.mark.parametrize(("family", "kind"), [(4, (3, 3)), (4, (11, 0)), (6, (3, 0)), (6, (135, 0))])
def test_other_messages(family: int, kind: tuple[int, int]) -> None:
    assert message_in(told(family, kind)) is None


def test_other_packets() -> None:
    data = tcp("198.51.100.10", "66.199.240.50", (40000, 80), b"\3\4" * 20)
    assert message_in(frame(CLIENT_MAC, ROUTER_MAC, ipv4("198.51.100.10", "66.199.240.50", data))) is None
    assert message_in(b"") is None


def seen(*places: tuple[str, str, bool], message: Message = FOUND[4]) -> list[Sighting]:
    """Sightings at these nodes, cards and directions, one after the other."""
    return [Sighting(message, *place, moment) for moment, place in enumerate(places)]


LEFT, CAME = ("director", "eth0", True), ("router", "eth1", False)
WENT_ON, ARRIVED = ("router", "eth0", True), ("client", "eth0", False)


def causes(sightings: list[Sighting]) -> list[str]:
    return [finding.cause for finding in lost(sightings, NAMES)]


def test_a_message_that_arrives_is_not_lost() -> None:
    assert causes(seen(LEFT, CAME, WENT_ON, ARRIVED)) == []
    assert causes([]) == []


def test_a_message_to_a_node_that_is_not_watched_is_not_judged() -> None:
    assert lost(seen(LEFT, CAME), {}) == ()


def test_the_place_where_it_is_lost() -> None:
    begin = "the ICMP message `fragmentation needed` (MTU 1480) from director to client gets lost: "
    end = ". So client goes on sending packets that are too large"
    (at_the_router,) = causes(seen(LEFT, CAME))
    assert at_the_router == f"{begin}router receives it at eth1, and does not send it on{end}"
    (between,) = causes(seen(LEFT, CAME, WENT_ON))
    assert between == f"{begin}it leaves router at eth0, and does not arrive{end}"


def test_many_messages_of_one_kind_are_told_once() -> None:
    other = Message("66.199.240.50", "198.51.100.10", 1480, b"another packet")
    assert len(causes(seen(LEFT, CAME) + seen(LEFT, CAME, message=other))) == 1


def test_ipv6() -> None:
    (finding,) = lost(seen(LEFT, CAME, message=FOUND[6]), {"2001:db8::10": "client"})
    assert "`packet too big` (MTU 1460)" in finding.cause and "ICMPv6 type 2" in finding.remedy


def test_nothing_is_found_where_nothing_is_captured() -> None:
    with LostMessages(FakeCluster(), ["director", "client"]) as messages:
        pass
    assert messages.findings() == ()
