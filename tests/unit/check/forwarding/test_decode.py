from __future__ import annotations

import struct

import pytest

from lvslab.check.forwarding.decode import decode
from lvslab.check.forwarding.packet import ABSENT, Checksum
from tests.unit.check.forwarding import frames
from tests.unit.check.forwarding.frames import CLIENT_MAC, OUTSIDE_MAC, frame, ipv4, ipv6, packet, tcp, udp

ENDS = "66.199.240.10", "66.199.240.50"
ENDS6 = "2001:db8::10", "2001:db8::50"


def test_every_field_of_tcp_over_ipv4() -> None:
    options = bytes.fromhex("020405b4 0101 0402".replace(" ", ""))
    segment = tcp(*ENDS, (40000, 80), b"GET /", seq=5, ack=6, flags=0x19, options=options)
    content = ipv4(*ENDS, segment, ttl=63, tos=0x10, identification=9)
    (total,) = struct.unpack_from("!H", content, 10)
    found = packet(frame(CLIENT_MAC, OUTSIDE_MAC, content))
    assert {name: str(value) for name, value in found.labelled()} == {
        "eth.dst": OUTSIDE_MAC,
        "eth.src": CLIENT_MAC,
        "eth.type": "2048",
        "ip.version": "4",
        "ip.hdr_len": "20",
        "ip.dsfield": "16",
        "ip.len": "53",
        "ip.id": "9",
        "ip.flags.rb": "0",
        "ip.flags.df": "1",
        "ip.flags.mf": "0",
        "ip.frag_offset": "0",
        "ip.ttl": "63",
        "ip.proto": "6",
        "ip.checksum": f"0x{total:04x} (right)",
        "ip.src": ENDS[0],
        "ip.dst": ENDS[1],
        "ip.options": "none",
        "tcp.srcport": "40000",
        "tcp.dstport": "80",
        "tcp.seq": "5",
        "tcp.ack": "6",
        "tcp.hdr_len": "28",
        "tcp.flags": "25",
        "tcp.window_size_value": "512",
        "tcp.checksum": f"0x{struct.unpack_from('!H', segment, 16)[0]:04x} (right)",
        "tcp.urgent_pointer": "0",
        "tcp.options": "MSS 1460, NOP, NOP, SAckOK",
    }
    assert found.payload == b"GET /"


def crc32c(data: bytes) -> int:
    """CRC32c (RFC 9260, appendix A), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_sum_of_sctp() -> None:
    """Its bytes are sent with the lowest one first."""
    assert crc32c(b"123456789") == 0xE3069283
    head, chunk = struct.pack("!HHI", 40000, 7, 0x01020304), bytes.fromhex("0a000004")  # COOKIE ECHO
    right = struct.pack("<I", crc32c(head + bytes(4) + chunk))
    for total, shown in (
        (right, f"0x{right.hex()} (right)"),
        (bytes(4), f"(wrong: 0x{right.hex()} is right)"),
    ):
        content = ipv4(*ENDS, head + total + chunk, protocol=132)
        found = dict(packet(frame(CLIENT_MAC, OUTSIDE_MAC, content)).labelled())
        assert shown in str(found["sctp.checksum"])
        assert found["sctp.srcport"] == 40000 and found["sctp.dstport"] == 7


def test_padding_of_ethernet_is_no_payload() -> None:
    data = frame(CLIENT_MAC, OUTSIDE_MAC, ipv4(*ENDS, tcp(*ENDS, (40000, 80), b"x")))
    assert packet(data + bytes(20)) == packet(data)


@pytest.mark.parametrize("ends", [ENDS, ENDS6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("data", [b"", b"odd", b"even"])
def test_checksums_of_tcp_and_udp(ends: tuple[str, str], data: bytes) -> None:
    network, protocols = (ipv4, (6, 17)) if ends is ENDS else (ipv6, (6, 17))
    for transport, protocol in zip((tcp, udp), protocols, strict=True):
        right = transport(*ends, (40000, 80), data)
        partial = transport(*ends, (40000, 80), data, partial=True)

        def found(content: bytes, unfinished: bool = False, protocol: int = protocol) -> Checksum:
            made = frame(CLIENT_MAC, OUTSIDE_MAC, network(*ends, content, protocol))
            value = packet(made, unfinished=unfinished).headers[-1]["checksum"]
            assert isinstance(value, Checksum)
            return value

        assert found(right) == Checksum()
        # The kernel said that the card is to finish it; without that it is wrong.
        assert found(partial, unfinished=True) == Checksum() and found(partial, unfinished=True).unfinished
        assert found(partial).error
        assert found(right, unfinished=True) == Checksum()


def test_a_wrong_checksum_is_named() -> None:
    made = packet(frame(CLIENT_MAC, OUTSIDE_MAC, ipv4(*ENDS, tcp(*ENDS, (1, 2), wrong=1), wrong=2)))
    network, transport = (made.headers[place]["checksum"] for place in (1, 2))
    assert isinstance(network, Checksum) and isinstance(transport, Checksum)
    assert (network.error, transport.error) == (2, 1)
    assert str(transport) == f"0x{transport.value:04x} (wrong: 0x{transport.right:04x} is right)"


def test_udp_without_a_checksum() -> None:
    made = packet(frame(CLIENT_MAC, OUTSIDE_MAC, ipv4(*ENDS, udp(*ENDS, (1, 53), b"data", none=True), 17)))
    assert made.headers[-1]["checksum"] == ABSENT


def test_an_outer_checksum_is_made_over_inner_ones_as_they_will_be() -> None:
    """As a kernel makes it, when it leaves the inner one to the card (local checksum offload)."""
    ends = "10.0.0.1", "10.0.0.100"
    right = b"\0\x04\0\0" + ipv4(*ENDS, tcp(*ENDS, (40000, 80), b"data"))
    outer = udp(*ends, (5000, 6080), right)
    left = b"\0\x04\0\0" + ipv4(*ENDS, tcp(*ENDS, (40000, 80), b"data", partial=True))
    content = ipv4(*ends, outer[:8] + left, 17)
    made = packet(frame(CLIENT_MAC, OUTSIDE_MAC, content), unfinished=True, gue_ports=[6080])
    assert made.protocols == ("eth", "ip", "udp", "gue", "ip", "tcp")
    assert [header["checksum"] for header in made.headers if "checksum" in header.fields] == [Checksum()] * 4


def test_what_is_not_ip_or_cut_off_is_nothing() -> None:
    arp = frames.mac(OUTSIDE_MAC) + frames.mac(CLIENT_MAC) + b"\x08\x06" + bytes(28)
    whole = frame(CLIENT_MAC, OUTSIDE_MAC, ipv4(*ENDS, tcp(*ENDS, (1, 2))))
    assert [decode(data) for data in (arp, b"", whole[:20], whole[:40])] == [None] * 4
