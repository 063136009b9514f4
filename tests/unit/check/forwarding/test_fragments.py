from __future__ import annotations

import itertools
import struct

import pytest

from lvslab.check.forwarding.fragments import Reassembly
from tests.unit.check.forwarding.frames import CLIENT_MAC, OUTSIDE_MAC, frame, internet_sum, ipv4, ipv6, udp

ENDS = "66.199.240.10", "66.199.240.50"
ENDS6 = "2001:db8::10", "2001:db8::50"
DATA = udp(*ENDS, (40000, 53), bytes(range(200)) * 10)
DATA6 = udp(*ENDS6, (40000, 53), bytes(range(200)) * 10)


def fragments4(size: int = 800, wrong: int = 0) -> list[bytes]:
    found = []
    for offset in range(0, len(DATA), size):
        part = DATA[offset : offset + size]
        made = bytearray(ipv4(*ENDS, part, 17, df=False))
        more = 0x2000 if offset + size < len(DATA) else 0
        made[6:8] = struct.pack("!H", more | offset // 8)
        made[10:12] = bytes(2)
        made[10:12] = struct.pack("!H", (internet_sum(bytes(made[:20])) + wrong) & 0xFFFF)
        found.append(frame(CLIENT_MAC, OUTSIDE_MAC, bytes(made)))
    return found


def fragments6(size: int = 800) -> list[bytes]:
    found = []
    for offset in range(0, len(DATA6), size):
        more = offset + size < len(DATA6)
        head = struct.pack("!BBHI", 17, 0, offset | more, 4711)
        found.append(frame(CLIENT_MAC, OUTSIDE_MAC, ipv6(*ENDS6, head + DATA6[offset : offset + size], 44)))
    return found


@pytest.mark.parametrize(
    ("fragments", "whole"),
    [(fragments4(), ipv4(*ENDS, DATA, 17, df=False)), (fragments6(), ipv6(*ENDS6, DATA6, 17))],
    ids=["IPv4", "IPv6"],
)
def test_fragments_in_any_order_make_the_packet(fragments: list[bytes], whole: bytes) -> None:
    for order in itertools.permutations(fragments):
        reassembly = Reassembly()
        *others, last = (reassembly.whole("eth0", each) for each in order)
        assert others == [None, None]
        assert last == frame(CLIENT_MAC, OUTSIDE_MAC, whole)


def test_fragments_of_two_places_are_two_packets() -> None:
    reassembly = Reassembly()
    first, second, third = fragments4()
    found = [
        reassembly.whole(*each) for each in ((0, first), (1, first), (0, second), (1, third), (0, third))
    ]
    assert found[:4] == [None] * 4 and found[4] is not None
    assert reassembly.whole(1, second) == found[4]


def test_a_wrong_checksum_stays_wrong() -> None:
    reassembly = Reassembly()
    *_, whole = (reassembly.whole(0, each) for each in fragments4(wrong=1))
    assert whole is not None
    right = frame(CLIENT_MAC, OUTSIDE_MAC, ipv4(*ENDS, DATA, 17, df=False))
    assert int.from_bytes(whole[24:26]) == int.from_bytes(right[24:26]) + 1
    assert whole[:24] + whole[26:] == right[:24] + right[26:]


def test_other_frames_stay_as_they_are() -> None:
    for content in (ipv4(*ENDS, DATA, 17), ipv6(*ENDS6, DATA6, 17)):
        made = frame(CLIENT_MAC, OUTSIDE_MAC, content)
        assert Reassembly().whole(0, made) is made
    assert Reassembly().whole(0, b"short") == b"short"
