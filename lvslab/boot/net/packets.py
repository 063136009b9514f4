"""Packets at the interfaces of a lab's nodes, from sockets that the supervisor opens.

A socket captures from the moment that it is open, in 0.1 ms, and costs nothing in user space until it is
read (5 µs a packet); dumpcap takes 0.03 to 0.3 s until it captures, and 0.4 s to end. (Measured on one
machine, in one run.)

A virtual machine's packets are seen at its taps, in the supervisor's own network namespace. That is the same
for every kernel, and the guest does not notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from lvslab.boot.net import pcapng
from lvslab.boot.net.pcapng import Count, Packet
from lvslab.closing import Closing

if TYPE_CHECKING:
    from lvslab.boot.control import Control

Program = Sequence[Sequence[int]]
"""A filter for the kernel: code, jt, jf and k of each instruction (struct sock_filter)."""

ROOM = 64 << 20
"""Bytes of kernel memory for unread packets of one interface. A small packet takes some 800."""

# include/uapi/asm-generic/socket.h; the times are those of x86-64.
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_MEMINFO = 55
# include/uapi/linux/if_packet.h
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_CHECKSUM_NOT_READY, _VLAN_VALID = 1 << 3, 1 << 4
# include/uapi/linux/if_ether.h
_ETH_P_ALL = 3
_TIME = struct.Struct("=qq")
_ANCILLARY = socket.CMSG_SPACE(_TIME.size) + socket.CMSG_SPACE(_AUXDATA.size)


def keep_time() -> socket.socket:
    """Make the kernel timestamp packets for as long as the returned socket is open.

    It begins some milliseconds after the first request on this machine (netstamp_work in net/core/dev.c). A
    packet from before then gets the time at which it is read.
    """
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return asking


def open_at(interface: str, program: Program = (), room: int = ROOM) -> socket.socket:
    """Open a socket with an interface's packets that ``program`` accepts. Raises OSError."""
    # Protocol 0: it receives nothing until it is bound, and is complete by then.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        # The kernel doubles what it is told. A container's root may not force it.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room // 2)
        with contextlib.suppress(PermissionError):
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room // 2)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        if program:
            instructions = ctypes.create_string_buffer(
                b"".join(struct.pack("=HBBI", *each) for each in program)
            )
            filtered = struct.pack("@HP", len(program), ctypes.addressof(instructions))
            opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)
        opened.bind((interface, _ETH_P_ALL))
    except BaseException:
        opened.close()
        raise
    return opened


@dataclass(eq=False)
class Interface(Closing):
    """An interface of a node whose packets are captured from now on.

    ``number`` is its number in the file. If ``far``, the socket is at the other end of the card's cable, as
    for virtual machines, and what is sent there is what the card receives.
    """

    node: str
    name: str
    description: str
    number: int
    stream: socket.socket
    _: KW_ONLY
    far: bool
    _next: Packet | None = field(default=None, init=False)
    _counted: Count = field(default=Count(0, 0), init=False)
    _buffer: bytearray = field(default_factory=lambda: bytearray(pcapng.SNAPLEN), init=False, repr=False)

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def title(self) -> str:
        """The interface's name in a file."""
        return f"{self.node} {self.name}"

    @property
    def held(self) -> bool:
        """True if ``read`` holds back a packet that came too late for its last call."""
        return self._next is not None

    @property
    def waiting(self) -> int:
        """The bytes of kernel memory that unread packets take."""
        return int(struct.unpack_from("=I", self.stream.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[0])

    def read(self, until: int) -> Iterator[Packet]:
        """Yield unread packets that came before ``until`` (nanoseconds since 1970), oldest first."""
        while (packet := self._next or self._take()) is not None:
            if packet.moment >= until:
                self._next = packet
                return
            self._next = None
            yield packet

    def count(self) -> Count:
        """Return how many packets came to the interface since this was made."""
        # The kernel forgets them when it has told.
        told = self.stream.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        received, dropped = struct.unpack("=II", told)
        self._counted = Count(self._counted.received + received, self._counted.dropped + dropped)
        return self._counted

    def close(self) -> None:
        """Close the socket. The kernel takes some 10 ms for that."""
        self.stream.close()

    def _take(self) -> Packet | None:
        while True:
            try:
                size, ancillary, _, address = self.stream.recvmsg_into([self._buffer], _ANCILLARY)
                break
            except BlockingIOError:
                return None
            except OSError as error:
                # Said once when the interface is taken down. What it had before can still be read.
                if error.errno != errno.ENETDOWN:
                    raise
        data, moment, unfinished = bytes(memoryview(self._buffer)[:size]), 0, False
        for _, kind, value in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIME.unpack(value)
                moment = seconds * 1_000_000_000 + nanoseconds
            elif kind == _PACKET_AUXDATA:
                status, _, _, _, _, tag, tagged = _AUXDATA.unpack(value)
                unfinished = bool(status & _CHECKSUM_NOT_READY)
                if status & _VLAN_VALID:  # the kernel has taken the tag out
                    data = data[:12] + struct.pack("!HH", tagged, tag) + data[12:]
        sent = (address[2] == socket.PACKET_OUTGOING) != self.far
        direction = pcapng.OUTBOUND if sent else pcapng.INBOUND
        return Packet(self.number, moment, data, direction, unfinished)


def listen(
    lab: Control, node: str, interface: str = "", program: Program = (), *, room: int = ROOM, first: int = 0
) -> list[Interface]:
    """Capture at a node's cards, numbered from ``first``, or at one. Raises UsageError, BootError."""
    about, descriptors = lab.ask("capture", node=node, interface=interface, filter=program, room=room)
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    return [
        Interface(node, number=first + place, stream=stream, **each)
        for place, (each, stream) in enumerate(zip(about, sockets, strict=True))
    ]


def read(interfaces: Iterable[Interface]) -> list[Packet]:
    """Return the unread packets that have come to ``interfaces`` until now, oldest first."""
    now = time.time_ns()
    found = (packet for each in interfaces for packet in each.read(now))
    return sorted(found, key=lambda packet: packet.moment)
