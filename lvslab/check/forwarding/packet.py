"""A packet as headers with named fields, and the differences between two packets.

Fields have the names of Wireshark's display filters (``ip.ttl``, ``tcp.seq``), so that a difference can be
looked for in a capture. What is not in a field is the payload: two equal packets are equal in every byte,
but for a checksum, which is right or wrong (`Checksum`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

FIN, PSH, CWR = 0x01, 0x08, 0x80
"""Flags of TCP that a card which cuts packets gives to the last piece, or only to the first."""


class Free:
    """A value that cannot be foreseen, such as the identification of an outer header: it equals any."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return "any"


FREE: Final = Free()


@dataclass(frozen=True)
class Checksum:
    """A checksum: ``absent`` (0 in UDP), or right, or off by ``error`` (in ones' complement).

    ``value`` was captured, ``right`` would be right. If ``unfinished``, it is the sum of the pseudo header
    only, as a kernel leaves it for the card (CHECKSUM_PARTIAL): that is right where the sum is.
    """

    error: int = 0
    absent: bool = False
    value: int = field(default=0, compare=False)
    right: int = field(default=0, compare=False)
    unfinished: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        if self.absent:
            return "0 (none)"
        if not self.error:
            return f"0x{self.value:04x} ({'left to the card' if self.unfinished else 'right'})"
        return f"0x{self.value:04x} (wrong: 0x{self.right:04x} is right)"


@dataclass(frozen=True)
class Options:
    """Options of a header as they were captured, with what they mean in ``text``."""

    raw: bytes
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return (self.text or self.raw.hex(" ")) if self.raw else "none"


RIGHT: Final = Checksum()
ABSENT: Final = Checksum(absent=True)

Value = int | str | Options | Checksum | Free


@dataclass(frozen=True)
class Header:
    """One header: its protocol (``eth``, ``ip``, ``ipv6``, ``tcp``, ...) and its fields in their order."""

    protocol: str
    fields: Mapping[str, Value]

    def __getitem__(self, name: str) -> Value:
        return self.fields[name]

    def with_fields(self, **changes: Value) -> Header:
        """Return this header with other values in some of its fields."""
        if unknown := changes.keys() - self.fields.keys():
            raise KeyError(f"{self.protocol} has no field {', '.join(sorted(unknown))}")
        return replace(self, fields={**self.fields, **changes})


TRANSPORTS: Final = ("tcp", "udp", "sctp")
NETWORKS: Final = ("ip", "ipv6")
HOP_LIMIT: Final = {"ip": "ttl", "ipv6": "hlim"}
"""The field that a router decrements."""
TRAFFIC_CLASS: Final = {"ip": "dsfield", "ipv6": "tclass"}
"""The field with DSCP and ECN."""
LENGTH: Final = {"ip": "len", "ipv6": "plen", "udp": "length"}
"""The field with the length of header and content; of the content only, for IPv6."""


@dataclass(frozen=True)
class Packet:
    """A packet: headers from the outside to the inside, and what the last one carries."""

    headers: tuple[Header, ...]
    payload: bytes = b""

    @property
    def ethernet(self) -> Header:
        return self.headers[0]

    @property
    def network(self) -> Header:
        """The innermost IPv4 or IPv6 header."""
        return self.headers[self._place(NETWORKS)]

    @property
    def outer(self) -> Header:
        """The outermost IPv4 or IPv6 header."""
        return next(header for header in self.headers if header.protocol in NETWORKS)

    @property
    def transport(self) -> Header | None:
        """The innermost TCP, UDP or SCTP header, None where there is none."""
        last = self.headers[-1]
        return last if last.protocol in TRANSPORTS else None

    @property
    def protocols(self) -> tuple[str, ...]:
        return tuple(header.protocol for header in self.headers)

    @property
    def length(self) -> int:
        """Length of the innermost IP packet, its header included."""
        length = self.network[LENGTH[self.network.protocol]]
        assert isinstance(length, int)
        return length + (40 if self.network.protocol == "ipv6" else 0)

    @property
    def source(self) -> tuple[str, int]:
        """Innermost source address and port."""
        return str(self.network["src"]), self._port("srcport")

    @property
    def target(self) -> tuple[str, int]:
        """Innermost destination address and port."""
        return str(self.network["dst"]), self._port("dstport")

    def with_ethernet(self, **changes: Value) -> Packet:
        """Return the packet with other values in its Ethernet header."""
        return replace(self, headers=(self.headers[0].with_fields(**changes), *self.headers[1:]))

    def with_network(self, **changes: Value) -> Packet:
        """Return the packet with other values in its innermost IPv4 or IPv6 header."""
        return self._with(self._place(NETWORKS), changes)

    def with_transport(self, **changes: Value) -> Packet:
        """Return the packet with other values in its TCP, UDP or SCTP header."""
        return self._with(len(self.headers) - 1, changes)

    def one_hop_on(self) -> Packet:
        """Return the packet with its TTL or hop limit decremented."""
        name = HOP_LIMIT[self.network.protocol]
        before = self.network[name]
        assert isinstance(before, int)
        return self.with_network(**{name: before - 1})

    def with_right_checksums(self) -> Packet:
        """Return the packet with right checksums where it has any."""
        return replace(
            self,
            headers=tuple(
                header.with_fields(checksum=RIGHT)
                if isinstance(value := header.fields.get("checksum"), Checksum) and not value.absent
                else header
                for header in self.headers
            ),
        )

    def piece(self, begin: int, end: int) -> Packet:
        """Return the TCP segment with the bytes of the payload from ``begin`` to ``end``.

        That is how a card or a kernel cuts a segment (tcp_gso_segment in net/ipv4/tcp_offload.c, 6.1):
        lengths and the sequence number are the piece's, FIN and PSH stay with the last piece and CWR with
        the first. The identification of IPv4 may go on or stay, so that of later pieces is free.
        """
        headers = list(self.headers)
        left_out = len(self.payload) - (end - begin)
        for place, header in enumerate(headers):
            changes: dict[str, Value] = {}
            if (name := LENGTH.get(header.protocol)) is not None:
                whole = header[name]
                assert isinstance(whole, int)
                changes[name] = whole - left_out
            if header.protocol == "ip" and begin:
                changes["id"] = FREE
            if header.protocol == "tcp":
                sequence, flags = header["seq"], header["flags"]
                assert isinstance(sequence, int) and isinstance(flags, int)
                if end < len(self.payload):
                    flags &= ~(FIN | PSH)
                changes["seq"] = (sequence + begin) % (1 << 32)
                changes["flags"] = flags & ~CWR if begin else flags
            headers[place] = header.with_fields(**changes)
        return Packet(tuple(headers), self.payload[begin:end])

    def labelled(self) -> Iterator[tuple[str, Value]]:
        """Yield names and values of all fields.

        Names of a tunnel's outer headers begin with "outer".
        """
        inner = self._place(NETWORKS)
        for place, header in enumerate(self.headers):
            outside = "outer " if 0 < place < inner else ""
            for name, value in header.fields.items():
                yield f"{outside}{header.protocol}.{name}", value

    def _place(self, protocols: tuple[str, ...]) -> int:
        return max(place for place, header in enumerate(self.headers) if header.protocol in protocols)

    def _port(self, name: str) -> int:
        transport = self.transport
        port = transport[name] if transport else 0
        assert isinstance(port, int)
        return port

    def _with(self, place: int, changes: Mapping[str, Value]) -> Packet:
        changed = self.headers[place].with_fields(**changes)
        return replace(self, headers=(*self.headers[:place], changed, *self.headers[place + 1 :]))


@dataclass(frozen=True)
class Difference:
    """A field that differs, with both values as text."""

    field: str
    expected: str
    seen: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, seen {self.seen}"


_HEXADECIMAL: Final = ("flags", "dsfield", "tclass", "id", "type", "flow", "version_flags")


def compare(expected: Packet, seen: Packet) -> list[Difference]:
    """Return the fields in which ``seen`` differs from ``expected``, from the outside to the inside.

    Where the headers are others, that is the one difference.
    """
    if expected.protocols != seen.protocols:
        return [Difference("headers", " ".join(expected.protocols), " ".join(seen.protocols))]
    found = [
        Difference(name, _wanted(name, wanted), _text(name, there))
        for (name, wanted), (_, there) in zip(expected.labelled(), seen.labelled(), strict=True)
        if wanted != there
    ]
    if expected.payload != seen.payload:
        found.append(_payload(expected.payload, seen.payload))
    return found


def _wanted(name: str, value: Value) -> str:
    """Return an expected value as text: of a checksum, what it should be like."""
    if not isinstance(value, Checksum):
        return _text(name, value)
    if value.absent:
        return "none"
    return f"one that is off by 0x{value.error:x}, as it arrived" if value.error else "the right one"


def _text(name: str, value: Value) -> str:
    if isinstance(value, int) and name.rpartition(".")[2] in _HEXADECIMAL:
        return f"0x{value:02x}"
    return str(value)


def _payload(expected: bytes, seen: bytes) -> Difference:
    place = next(
        (place for place, (one, other) in enumerate(zip(expected, seen, strict=False)) if one != other),
        min(len(expected), len(seen)),
    )
    said = (
        f"{len(part)} bytes with {part[place : place + 8].hex(' ') or 'nothing'} at {place}"
        for part in (expected, seen)
    )
    return Difference("payload", *said)
