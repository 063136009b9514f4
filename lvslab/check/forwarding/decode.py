"""Decoding of captured packets, with scapy. Imported only where packets are compared.

A header is given to scapy with its own bytes only: what follows it depends on the lab (the port of a GUE
tunnel, say), not on scapy's tables of ports.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.sctp import SCTP, crc32c
from scapy.utils import checksum

from lvslab.check.forwarding.packet import ABSENT, Checksum, Header, Options, Packet, Value

# Numbers of protocols (RFC 5237) and of types of Ethernet frames.
_IPIP, _TCP, _UDP, _IPV6, _GRE, _SCTP = 4, 6, 17, 41, 47, 132
_ETH_IPV4, _ETH_VLAN, _ETH_IPV6 = 0x0800, 0x8100, 0x86DD


def decode(data: bytes, *, unfinished: bool = False, gue_ports: Collection[int] = ()) -> Packet | None:
    """Decode a frame; return None where it carries no IP, or is cut off.

    With ``unfinished``, the kernel said of the frame that one of its checksums is left to the card.
    ``gue_ports`` are UDP ports that carry GUE.
    """
    try:
        found = _Decoder(data, unfinished, gue_ports)
        found.ethernet()
    except (struct.error, IndexError, _CutOff):
        return None
    if not any(header.protocol in ("ip", "ipv6") for header in found.headers):
        return None
    return found.packet()


class _CutOff(Exception):
    """The frame ends within a header."""


class _Decoder:
    """Headers found so far in ``data``, and the checksums to examine."""

    def __init__(self, data: bytes, unfinished: bool, gue_ports: Collection[int]) -> None:
        self.data = data
        self.unfinished = unfinished
        self.gue_ports = gue_ports
        self.end = len(data)
        self.rest = 0
        self.headers: list[Header] = []
        # From the outside to the inside: the header's number, where its sum is, and how to add up.
        self.sums: list[tuple[int, int, Callable[[bytes], int], int]] = []
        # Headers whose sum the receiver is to finish, by an option of GUE.
        self.remote: set[int] = set()
        self.is_remote = False

    def packet(self) -> Packet:
        """Return the packet, with all checksums examined."""
        # An outer sum is made over inner ones as they will be (LCO, Documentation/networking/
        # checksum-offloads.rst), so the inner ones are examined and completed first.
        complete = bytearray(self.data)
        headers = list(self.headers)
        for number, place, right_of, pseudo in reversed(self.sums):
            value = int.from_bytes(complete[place : place + 2])
            complete[place : place + 2] = bytes(2)
            right = right_of(bytes(complete))
            remote = number in self.remote
            found = _judged(value, right, pseudo if self.unfinished or remote else None)
            if headers[number].protocol == "udp" and value == 0:
                found = ABSENT
            # Outer sums are made over it as it is now, if the receiver is to finish it.
            complete[place : place + 2] = (right if found.unfinished and not remote else value).to_bytes(2)
            headers[number] = headers[number].with_fields(checksum=found)
        return Packet(tuple(headers), self.data[self.rest : self.end])

    def take(self, length: int) -> bytes:
        """Return the next ``length`` bytes, which are a header."""
        begin, self.rest = self.rest, self.rest + length
        if self.rest > self.end:
            raise _CutOff
        return self.data[begin : self.rest]

    def add(self, protocol: str, **fields: Value) -> None:
        self.headers.append(Header(protocol, fields))

    def ethernet(self) -> None:
        frame = Ether(self.take(14))
        self.add("eth", dst=frame.dst, src=frame.src, type=frame.type)
        kind = frame.type
        while kind == _ETH_VLAN:
            tag = Dot1Q(self.take(4))
            self.add("vlan", priority=int(tag.prio), dei=int(tag.dei), id=int(tag.vlan), type=int(tag.type))
            kind = tag.type
        self.by_type(kind)

    def by_type(self, kind: int) -> None:
        if kind == _ETH_IPV4:
            self.ipv4()
        elif kind == _ETH_IPV6:
            self.ipv6()

    def by_protocol(self, number: int) -> None:
        decoders = {
            _IPIP: self.ipv4,
            _IPV6: self.ipv6,
            _TCP: self.tcp,
            _UDP: self.udp,
            _GRE: self.gre,
            _SCTP: self.sctp,
        }
        if number in decoders:
            decoders[number]()

    def ipv4(self) -> None:
        begin = self.rest
        length = (self.data[begin] & 15) * 4
        header = IP(self.take(length))
        flags = int(header.flags)
        self.add(
            "ip",
            version=header.version,
            hdr_len=length,
            dsfield=header.tos,
            len=header.len,
            id=header.id,
            **{"flags.rb": flags >> 2 & 1, "flags.df": flags >> 1 & 1, "flags.mf": flags & 1},
            frag_offset=header.frag * 8,
            ttl=header.ttl,
            proto=header.proto,
            checksum=0,
            src=header.src,
            dst=header.dst,
            options=Options(self.data[begin + 20 : begin + length]),
        )
        self.sums.append((len(self.headers) - 1, begin + 10, _ones(begin, begin + length), -1))
        self.end = min(self.end, begin + header.len)
        if not header.frag and not flags & 1:
            self.by_protocol(header.proto)

    def ipv6(self) -> None:
        begin = self.rest
        header = IPv6(self.take(40))
        self.add(
            "ipv6",
            version=header.version,
            tclass=header.tc,
            flow=header.fl,
            plen=header.plen,
            nxt=header.nh,
            hlim=header.hlim,
            src=str(ip_address(self.data[begin + 8 : begin + 24])),
            dst=str(ip_address(self.data[begin + 24 : begin + 40])),
        )
        self.end = min(self.end, begin + 40 + header.plen)
        self.by_protocol(header.nh)

    def tcp(self) -> None:
        begin = self.rest
        length = (self.data[begin + 12] >> 4) * 4
        header: Any = TCP(self.take(length))
        self.add(
            "tcp",
            srcport=header.sport,
            dstport=header.dport,
            seq=header.seq,
            ack=header.ack,
            hdr_len=length,
            flags=int.from_bytes(self.data[begin + 12 : begin + 14]) & 0x0FFF,
            window_size_value=header.window,
            checksum=0,
            urgent_pointer=header.urgptr,
            options=Options(self.data[begin + 20 : begin + length], _listed(header.options)),
        )
        self.with_pseudo_header(begin, begin + 16, _TCP)

    def udp(self) -> None:
        begin = self.rest
        header = UDP(self.take(8))
        self.add("udp", srcport=header.sport, dstport=header.dport, length=header.len, checksum=0)
        self.with_pseudo_header(begin, begin + 6, _UDP)
        if header.dport in self.gue_ports:
            self.gue()

    def sctp(self) -> None:
        begin = self.rest
        header = SCTP(self.take(12))
        data = self.data
        right = int(crc32c(data[begin : begin + 8] + bytes(4) + data[begin + 12 : self.end]))  # type: ignore[no-untyped-call]
        value = int.from_bytes(data[begin + 8 : begin + 12])
        # A kernel that leaves the sum to the card leaves 0, or what was there.
        left = self.unfinished and value != right
        self.add(
            "sctp",
            srcport=header.sport,
            dstport=header.dport,
            verification_tag=header.tag,
            checksum=Checksum(0 if left else (value - right) % 0xFFFFFFFF, False, value, right, left),
        )

    def gre(self) -> None:
        begin = self.rest
        flags = int.from_bytes(self.data[begin : begin + 2])
        length = 4 + 4 * sum(flags >> bit & 1 for bit in (15, 13, 12))
        header = GRE(self.take(length))
        fields: dict[str, Value] = {"version_flags": flags, "proto": header.proto}
        if header.chksum_present:
            fields["checksum"] = 0
            fields["offset"] = header.offset
            self.sums.append((len(self.headers), begin + 4, _ones(begin, self.end), 0))
        options = self.data[begin + (8 if header.chksum_present else 4) : begin + length]
        fields["options"] = Options(options)
        self.headers.append(Header("gre", fields))
        self.by_type(header.proto)

    def gue(self) -> None:
        # struct guehdr (include/net/gue.h); scapy does not know it.
        begin = self.rest
        first, protocol, flags = struct.unpack_from("!BBH", self.data, begin)
        length = 4 + 4 * (first & 31)
        self.take(length)
        self.add(
            "gue",
            version=first >> 6,
            control=first >> 5 & 1,
            hdr_len=length,
            proto=protocol,
            flags=flags,
            options=Options(self.data[begin + 4 : begin + length]),
        )
        self.is_remote = bool(flags & 1 and length >= 12 and self.data[begin + 4] & 0x80)
        self.by_protocol(protocol)

    def with_pseudo_header(self, begin: int, place: int, protocol: int) -> None:
        """Let the sum at ``place``, over all from ``begin`` and a pseudo header, be examined."""
        network = next(each for each in reversed(self.headers) if each.protocol in ("ip", "ipv6"))
        ends = b"".join(ip_address(str(network[name])).packed for name in ("src", "dst"))
        # This is IPv6's pseudo header; IPv4's has the same sum.
        pseudo = ends + struct.pack("!II", self.end - begin, protocol)
        if self.is_remote:
            self.remote.add(len(self.headers) - 1)
        self.sums.append(
            (
                len(self.headers) - 1,
                place,
                _ones(begin, self.end, pseudo, mangled=protocol == _UDP),
                0xFFFF ^ checksum(pseudo),
            )
        )


def _ones(begin: int, end: int, pseudo: bytes = b"", *, mangled: bool = False) -> Callable[[bytes], int]:
    """Return a function that sums up a part of its argument (RFC 1071)."""

    def right(data: bytes) -> int:
        value = int(checksum(pseudo + data[begin:end]))
        return 0xFFFF if mangled and value == 0 else value  # 0 says that there is none (RFC 768)

    return right


def _listed(options: Sequence[tuple[object, object]]) -> str:
    """Return options of TCP as text: ``MSS 1460, NOP, WScale 7``."""

    def text(value: object) -> str:
        return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    known = ((name, "" if value in (None, b"", ()) else f" {text(value)}") for name, value in options)
    return ", ".join(f"{name}{value}" for name, value in known)


def _judged(value: int, right: int, pseudo: int | None) -> Checksum:
    """Compare a checksum with the right one, or with that of the ``pseudo`` header."""
    error = (value - right) % 0xFFFF
    left = bool(error) and value == pseudo
    return Checksum(0 if left else error, False, value, right, left)
