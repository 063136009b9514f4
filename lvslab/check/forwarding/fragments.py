"""Reassembly of captured fragments, so that whole packets are compared.

IPVS reassembles what arrives in fragments before it looks at it (``ip_vs_gather_frags``), and sends it on in
fragments of the outgoing card's MTU: their number and their identification (of IPv6) may be others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_ETH_IPV4, _ETH_IPV6 = b"\x08\x00", b"\x86\xdd"
_FRAGMENT = 44  # the next header of IPv6 for a fragment
_MORE_V4, _OFFSET_V4 = 0x2000, 0x1FFF


@dataclass
class Reassembly:
    """Fragments that wait for others, by what those must have in common."""

    _waiting: dict[tuple[object, ...], _Parts] = field(default_factory=dict)

    def whole(self, place: object, frame: bytes) -> bytes | None:
        """Return a frame, or the whole packet of a frame that is its last fragment.

        None where other fragments are missing. ``place`` is where the frame was seen: only fragments of one
        place belong together.
        """
        part = _part_of(frame)
        if part is None:
            return frame
        key = (place, *part.key)
        parts = self._waiting.setdefault(key, _Parts())
        if not parts.add(part):
            return None
        del self._waiting[key]
        return parts.frame()


@dataclass(frozen=True)
class _Part:
    """One fragment: the bytes before its content, and where the content belongs."""

    key: tuple[object, ...]
    head: bytes
    offset: int
    more: bool
    content: bytes


@dataclass
class _Parts:
    """The fragments of one packet."""

    parts: dict[int, _Part] = field(default_factory=dict)

    def add(self, part: _Part) -> bool:
        """Add a fragment, and return whether the packet is complete."""
        self.parts[part.offset] = part
        expected = 0
        for offset in sorted(self.parts):
            if offset != expected:
                return False
            expected += len(self.parts[offset].content)
        return not self.parts[max(self.parts)].more

    def frame(self) -> bytes:
        """Return the whole packet, as if it had never been in fragments."""
        content = b"".join(self.parts[offset].content for offset in sorted(self.parts))
        head = bytearray(self.parts[0].head)
        if head[12:14] == _ETH_IPV6:
            head[18:20] = len(content).to_bytes(2)
            return bytes(head) + content
        changed = {16: len(head) - 14 + len(content), 20: int.from_bytes(head[20:22]) & ~_MORE_V4}
        for place, value in changed.items():
            # The checksum follows the change (RFC 1624), so that a wrong one stays wrong.
            before = int.from_bytes(head[place : place + 2])
            total = 0xFFFF & ~int.from_bytes(head[24:26])
            total += (0xFFFF & ~before) + value
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            head[24:26] = (0xFFFF & ~total).to_bytes(2)
            head[place : place + 2] = value.to_bytes(2)
        return bytes(head) + content


def _part_of(frame: bytes) -> _Part | None:
    """Return what ``frame`` is a fragment of, None where it is none."""
    kind, packet = frame[12:14], frame[14:]
    if kind == _ETH_IPV4 and len(packet) >= 20:
        flags, length = int.from_bytes(packet[6:8]), (packet[0] & 15) * 4
        if not flags & (_MORE_V4 | _OFFSET_V4):
            return None
        key = (packet[12:20], packet[9], packet[4:6])
        content = packet[length : int.from_bytes(packet[2:4])]
        return _Part(key, frame[: 14 + length], (flags & _OFFSET_V4) * 8, bool(flags & _MORE_V4), content)
    if kind == _ETH_IPV6 and len(packet) >= 48 and packet[6] == _FRAGMENT:
        flags, end = int.from_bytes(packet[42:44]), 40 + int.from_bytes(packet[4:6])
        # The header of the fragment goes, and its next header takes its place.
        head = frame[: 14 + 6] + packet[40:41] + frame[14 + 7 : 14 + 40]
        return _Part((packet[8:40], packet[44:48]), head, flags & 0xFFF8, bool(flags & 1), packet[48:end])
    return None
