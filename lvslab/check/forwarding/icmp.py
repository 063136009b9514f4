"""ICMP errors by which a director refuses to send a packet on."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from lvslab.check.forwarding.packet import LENGTH, Packet

Reason = Literal["too big", "time exceeded"]

# Type and code, for ICMP (RFC 792, 1191) and ICMPv6 (RFC 4443).
_REASONS: Final[dict[tuple[int, int, int], Reason]] = {
    (1, 3, 4): "too big",
    (1, 11, 0): "time exceeded",
    (58, 2, 0): "too big",
    (58, 3, 0): "time exceeded",
}


@dataclass(frozen=True)
class Refusal:
    """The reason why a packet is not sent on.

    ``mtu`` is the size that would pass, 0 for other reasons than "too big".
    """

    reason: Reason
    mtu: int = 0

    def __str__(self) -> str:
        return f"{self.reason} (MTU {self.mtu})" if self.mtu else self.reason


def refusal_in(packet: Packet) -> tuple[Refusal, bytes] | None:
    """Return the refusal that an ICMP message tells of, and the packet that it quotes."""
    header, data = packet.headers[-1], packet.payload
    number = header.fields.get("proto", header.fields.get("nxt"))
    if header.protocol not in ("ip", "ipv6") or not isinstance(number, int) or len(data) < 8 + 20 + 8:
        return None
    reason = _REASONS.get((number, data[0], data[1]))
    if reason is None:
        return None
    # The MTU has 16 bits in ICMP and 32 in ICMPv6, with the same end.
    return Refusal(reason, int.from_bytes(data[6:8]) if reason == "too big" else 0), data[8:]


def is_quoted(quoted: bytes, packet: Packet) -> bool:
    """Return whether an ICMP message quotes ``packet``: by addresses, ports, and number or length."""
    version = quoted[0] >> 4
    begin, place, size = ((quoted[0] & 15) * 4, 12, 4) if version == 4 else (40, 8, 16)
    transport = packet.transport
    if len(quoted) < begin + 8 or transport is None:
        return False
    ends = [str(ip_address(quoted[at : at + size])) for at in (place, place + size)]
    ports = [int.from_bytes(quoted[begin + at : begin + at + 2]) for at in (0, 2)]
    if [*zip(ends, ports, strict=True)] != [packet.source, packet.target]:
        return False
    length = int.from_bytes(quoted[2:4] if version == 4 else quoted[4:6])
    if length != packet.network[LENGTH[packet.network.protocol]]:
        return False
    number = int.from_bytes(quoted[begin + 4 : begin + 8])
    return transport.protocol != "tcp" or number == transport["seq"]
