"""Packets as a pcapng file, which Wireshark and its like read.

The format is that of draft-ietf-opsawg-pcapng: blocks, each with its length at both ends, and options in
them. All packets here begin with an Ethernet header. Moments are nanoseconds since 1970.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

SNAPLEN = 1 << 18
"""Packets are captured up to this length, in bytes: more than any packet has."""

UNKNOWN, INBOUND, OUTBOUND = 0, 1, 2
"""Directions of a packet, seen from the interface: bits 0 and 1 of ``epb_flags``."""

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_BYTE_ORDER = 0x1A2B3C4D
_ETHERNET = 1  # LINKTYPE_ETHERNET
_UNKNOWN_LENGTH = -1

# Options, by kind of block.
_USERAPPL = 4
_NAME, _DESCRIPTION, _RESOLUTION, _FILTER = 2, 3, 9, 11
_START, _END, _RECEIVED, _DROPPED = 2, 3, 4, 5
_FLAGS = 2
_NANOSECONDS = b"\x09"  # ten to the power of minus nine
_EXPRESSION = b"\0"  # before the text of a filter


@dataclass(frozen=True)
class Interface:
    """An interface in a file; ``filter`` tells which packets were captured, as pcap-filter(7) has it."""

    name: str
    description: str = ""
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; ``interface`` is the number of its interface in the file, from 0.

    ``unfinished``: the kernel said that a checksum of it is left to the card. A file cannot tell.
    """

    interface: int
    moment: int
    data: bytes
    direction: int = UNKNOWN
    unfinished: bool = False


@dataclass(frozen=True)
class Count:
    """Numbers of packets that came to an interface, and of dropped ones."""

    received: int
    dropped: int


class Writer:
    """Writes one capture to an unbuffered ``stream``. Raises OSError, as all of its methods do.

    Only whole blocks are written, so the file can be read at any time.
    """

    def __init__(self, stream: BinaryIO, interfaces: Sequence[Interface], program: str = "lvslab") -> None:
        self._stream = stream
        section = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
        begin = _block(_SECTION, section + _options((_USERAPPL, program.encode())))
        self._put(begin + b"".join(map(_interface, interfaces)))

    def write(self, packets: Iterable[Packet]) -> None:
        self._put(b"".join(map(_packet, packets)))

    def end(self, counts: Sequence[Count], begun: int, ended: int) -> None:
        """Add the counts of each interface; the capture had ``begun`` then, and has ``ended``."""
        self._put(b"".join(_statistics(number, each, begun, ended) for number, each in enumerate(counts)))

    def _put(self, blocks: bytes) -> None:
        left = memoryview(blocks)
        while left:
            left = left[self._stream.write(left) :]


def _interface(about: Interface) -> bytes:
    options = _options(
        (_NAME, about.name.encode()),
        (_DESCRIPTION, about.description.encode()),
        (_RESOLUTION, _NANOSECONDS),
        (_FILTER, _EXPRESSION + about.filter.encode() if about.filter else b""),
    )
    return _block(_INTERFACE, struct.pack("=HHI", _ETHERNET, 0, SNAPLEN) + options)


def _packet(packet: Packet) -> bytes:
    size = len(packet.data)
    head = struct.pack("=I8sII", packet.interface, _moment(packet.moment), size, size)
    flags = struct.pack("=I", packet.direction)
    return _block(_PACKET, head + _padded(packet.data) + _options((_FLAGS, flags)))


def _statistics(number: int, count: Count, begun: int, ended: int) -> bytes:
    options = _options(
        (_START, _moment(begun)),
        (_END, _moment(ended)),
        (_RECEIVED, struct.pack("=Q", count.received)),
        (_DROPPED, struct.pack("=Q", count.dropped)),
    )
    return _block(_STATISTICS, struct.pack("=I8s", number, _moment(ended)) + options)


def _moment(nanoseconds: int) -> bytes:
    """Return a moment as blocks have it: the upper half first."""
    return struct.pack("=II", nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)


def _options(*options: tuple[int, bytes]) -> bytes:
    """Return options by code, without those that are empty, and the end of them."""
    heads = ((struct.pack("=HH", code, len(value)), value) for code, value in options if value)
    return b"".join(head + _padded(value) for head, value in heads) + struct.pack("=HH", 0, 0)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("=I", len(body) + 12)
    return struct.pack("=I", kind) + length + body + length
