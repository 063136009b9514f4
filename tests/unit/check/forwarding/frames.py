"""Frames byte by byte, apart from the code under test, and a director to send them through."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from lvslab.check.forwarding.decode import decode
from lvslab.check.forwarding.exact import Compared, Director, Seen, compare_all
from lvslab.check.forwarding.flow import Way
from lvslab.check.forwarding.packet import Packet
from lvslab.check.ipvs.rules import parse_rules

CLIENT_MAC, ROUTER_MAC, SERVER_MAC = "02:00:00:00:00:0c", "02:00:00:00:00:0f", "02:00:00:00:00:5e"
OUTSIDE_MAC, INSIDE_MAC = "02:00:00:00:0d:00", "02:00:00:00:0d:01"
"""The director's cards eth0 and eth1."""


def internet_sum(data: bytes) -> int:
    """RFC 1071, the slow way."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    ends = ip_address(source).packed + ip_address(target).packed
    return ends + struct.pack(
        "!II" if len(ends) == 32 else "!HH", *((length, protocol) if len(ends) == 32 else (protocol, length))
    )


def tcp(
    source: str,
    target: str,
    ports: tuple[int, int],
    data: bytes = b"",
    *,
    seq: int = 1000,
    ack: int = 0,
    flags: int = 0x18,
    options: bytes = b"",
    partial: bool = False,
    wrong: int = 0,
) -> bytes:
    head = (
        struct.pack("!HHIIBBHHH", *ports, seq, ack, (5 + len(options) // 4) << 4, flags, 512, 0, 0) + options
    )
    part = pseudo(source, target, 6, len(head + data))
    total = internet_sum(part) ^ 0xFFFF if partial else internet_sum(part + head + data)
    return head[:16] + struct.pack("!H", (total + wrong) & 0xFFFF) + head[18:] + data


def udp(
    source: str,
    target: str,
    ports: tuple[int, int],
    data: bytes = b"",
    *,
    none: bool = False,
    partial: bool = False,
) -> bytes:
    head = struct.pack("!HHHH", *ports, 8 + len(data), 0)
    part = pseudo(source, target, 17, len(head + data))
    total = internet_sum(part) ^ 0xFFFF if partial else internet_sum(part + head + data) or 0xFFFF
    return head[:6] + struct.pack("!H", 0 if none else total) + data


def ipv4(
    source: str,
    target: str,
    content: bytes,
    protocol: int = 6,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 7,
    df: bool = True,
    wrong: int = 0,
) -> bytes:
    head = struct.pack(
        "!BBHHHBBH", 0x45, tos, 20 + len(content), identification, 0x4000 if df else 0, ttl, protocol, 0
    )
    ends = ip_address(source).packed + ip_address(target).packed
    total = (internet_sum(head + ends) + wrong) & 0xFFFF
    return head[:10] + struct.pack("!H", total) + ends + content


def ipv6(
    source: str,
    target: str,
    content: bytes,
    protocol: int = 6,
    *,
    hops: int = 64,
    tclass: int = 0,
    flow: int = 0,
) -> bytes:
    head = struct.pack("!IHBB", 6 << 28 | tclass << 20 | flow, len(content), protocol, hops)
    return head + ip_address(source).packed + ip_address(target).packed + content


def frame(source: str, target: str, content: bytes) -> bytes:
    kind = b"\x08\x00" if content[0] >> 4 == 4 else b"\x86\xdd"
    return mac(target) + mac(source) + kind + content


def packet(data: bytes, *, unfinished: bool = False, gue_ports: Sequence[int] = ()) -> Packet:
    """Decode a frame, which must be one."""
    found = decode(data, unfinished=unfinished, gue_ports=gue_ports)
    assert found is not None
    return found


@dataclass
class Wire:
    """What a director's two cards see; ``rules`` make its table."""

    rules: str
    kernel: tuple[int, ...] = (6, 1)
    gue_ports: tuple[int, ...] = ()
    source: str = "10.0.0.1"
    seen: list[Seen] = field(default_factory=list)

    def way_to(self, address: str) -> Way:
        if address in ("66.199.240.10", "2001:db8::10"):
            return Way("eth0", OUTSIDE_MAC, CLIENT_MAC, "66.199.240.50", 1500)
        return Way("eth1", INSIDE_MAC, SERVER_MAC, self.source, 1500)

    def see(self, card: str, data: bytes, *, sent: bool = False, unfinished: bool = False) -> None:
        found = packet(data, unfinished=unfinished, gue_ports=self.gue_ports)
        moment = 1_700_000_000_000_000_000 + 1000 * len(self.seen)
        self.seen.append(Seen(found, moment, card, sent))

    def arrives(self, content: bytes, **how: bool) -> None:
        """A client's packet comes in at eth0."""
        self.see("eth0", frame(CLIENT_MAC, OUTSIDE_MAC, content), **how)

    def goes_in(self, content: bytes, **how: bool) -> None:
        """A packet leaves at eth1 for a real server."""
        self.see("eth1", frame(INSIDE_MAC, SERVER_MAC, content), sent=True, **how)

    def returns(self, content: bytes, **how: bool) -> None:
        """A real server's packet comes in at eth1."""
        self.see("eth1", frame(SERVER_MAC, INSIDE_MAC, content), **how)

    def goes_out(self, content: bytes, **how: bool) -> None:
        """A packet leaves at eth0 for the client."""
        self.see("eth0", frame(OUTSIDE_MAC, CLIENT_MAC, content), sent=True, **how)

    @property
    def director(self) -> Director:
        cards = {"eth0": OUTSIDE_MAC, "eth1": INSIDE_MAC}
        return Director(cards, self.way_to, self.kernel, parse_rules(self.rules))

    def compared(self) -> Compared:
        return compare_all(self.director, self.seen)

    def differences(self) -> list[str]:
        """The differences of all pairs, as text."""
        return [str(each) for mismatch in self.compared().mismatches for each in mismatch.differences]
