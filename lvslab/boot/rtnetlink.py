"""What the program ``ip`` would do, asked of the kernel itself: many requests in one message, no programs.

A request is bytes (rtnetlink(7)) and the words that ``ip`` would have been given, for messages. Names and
numbers are those of include/uapi/linux: netlink.h, rtnetlink.h, if_link.h, if_addr.h and veth.h.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from lvslab.errors import BootError

_NETLINK_ROUTE = 0
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 10, 18
_IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 26, 28, 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_MCAST_SNOOPING = 1, 5, 23
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 3, 0, 1
_SIOCGIFINDEX = 0x8933
_BATCH = 32
"""So many requests in one message: their answers must fit into the socket's buffer."""


@dataclass(frozen=True)
class Request:
    """One request: ``words`` as ``ip`` takes them, and the message without its header."""

    words: str
    kind: int
    flags: int
    body: bytes


def bridge(name: str) -> Request:
    """A bridge that is up and behaves as a plain switch.

    It runs no spanning tree, waits for nothing, and does not learn who listens to which multicast: that
    takes a querier, and all there is of it is the noise of IPv6.
    """
    data = (
        _number(_IFLA_BR_FORWARD_DELAY, 0)
        + _number(_IFLA_BR_STP_STATE, 0)
        + _attribute(_IFLA_BR_MCAST_SNOOPING, b"\0")
    )
    body = _link(up=True) + _text(_IFLA_IFNAME, name) + _linkinfo("bridge", data)
    words = f"link add {name} up type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
    return Request(words, _RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)


def cable(port: str, bridge: int, card: str, mac: str, namespace: int) -> Request:
    """A veth pair: ``port`` in the bridge with the index ``bridge``, and ``card`` in the network namespace
    with the descriptor ``namespace``. The port is up, the card is not.
    """
    # One queue each way. Without these there is one for each processor the machine might ever have.
    queues = _number(_IFLA_NUM_TX_QUEUES, 1) + _number(_IFLA_NUM_RX_QUEUES, 1)
    peer = (
        _link()
        + _text(_IFLA_IFNAME, card)
        + _attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        + _number(_IFLA_NET_NS_FD, namespace)
        + queues
    )
    body = (
        _link(up=True)
        + _text(_IFLA_IFNAME, port)
        + _number(_IFLA_MASTER, bridge)
        + queues
        + _linkinfo("veth", _attribute(_VETH_INFO_PEER, peer))
    )
    words = f"link add {port} type veth peer name {card}"
    return Request(words, _RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, body)


def plug(port: str, bridge: int) -> Request:
    """Put ``port`` into the bridge with the index ``bridge``, and bring it up."""
    body = _link(up=True) + _text(_IFLA_IFNAME, port) + _number(_IFLA_MASTER, bridge)
    return Request(f"link set {port} up master", _RTM_NEWLINK, 0, body)


def up(name: str) -> Request:
    """Bring an interface up."""
    return Request(f"link set {name} up", _RTM_NEWLINK, 0, _link(up=True) + _text(_IFLA_IFNAME, name))


def no_link_local(name: str) -> Request:
    """Have the kernel make no IPv6 address for an interface; it still takes those that it is given."""
    mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))
    spec = _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
    words = f"link set {name} addrgenmode none"
    return Request(words, _RTM_NEWLINK, 0, _link() + _text(_IFLA_IFNAME, name) + spec)


def address(interface: str, card: int) -> Request:
    """Give the address ``interface`` (with its prefix length) to the interface with the index ``card``."""
    found = ipaddress.ip_interface(interface)
    # IPv6 addresses are usable at once only without duplicate address detection, and a lab has no
    # duplicates.
    flags = _IFA_F_NODAD if found.version == 6 else 0
    header = struct.pack("=BBBBI", _family(found.version), found.network.prefixlen, flags, 0, card)
    packed = found.ip.packed
    body = header + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    return Request(f"address add {interface}", _RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_EXCL, body)


def default_route(gateway: str, card: int) -> Request:
    """Send what is for no other network to ``gateway``, over the interface with the index ``card``."""
    found = ipaddress.ip_address(gateway)
    kind = (_RT_TABLE_MAIN, _RTPROT_BOOT, _RT_SCOPE_UNIVERSE, _RTN_UNICAST)
    header = struct.pack("=8BI", _family(found.version), 0, 0, 0, *kind, 0)
    body = header + _attribute(_RTA_GATEWAY, found.packed) + _number(_RTA_OIF, card)
    return Request(f"route add default via {gateway}", _RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_EXCL, body)


class Conversation:
    """Speaks with the kernel about the network namespace of the thread that makes this, whichever thread
    uses it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        # Answers that do not repeat the request.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, requests: Sequence[Request]) -> None:
        """Have all of ``requests`` done, in their order. Raises BootError for the first one refused."""
        for first in range(0, len(requests), _BATCH):
            batch = requests[first : first + _BATCH]
            self._socket.send(b"".join(_message(number, request) for number, request in enumerate(batch)))
            # The kernel goes on after a refusal: all answers must be taken, or the next batch gets them.
            refused = dict(self._answers(len(batch)))
            for number, error in sorted(refused.items()):
                raise BootError(
                    f"the kernel refuses what `ip {batch[number].words}` would ask for", os.strerror(error)
                )

    def index(self, name: str) -> int:
        """The number of the interface ``name``. Raises OSError where there is none."""
        found = fcntl.ioctl(self._socket, _SIOCGIFINDEX, struct.pack("16si20x", name.encode(), 0))
        return int(struct.unpack_from("=i", found, 16)[0])

    def _answers(self, count: int) -> Iterator[tuple[int, int]]:
        """The requests that were refused, by number, and why (errno)."""
        while count:
            data = self._socket.recv(1 << 16)
            while data:
                length, kind, _, number, _ = struct.unpack_from("=IHHII", data)
                if kind == _NLMSG_ERROR:
                    count -= 1
                    if error := -struct.unpack_from("=i", data, 16)[0]:
                        yield number, error
                data = data[(length + 3) & ~3 :]


def _message(number: int, request: Request) -> bytes:
    flags = _NLM_F_REQUEST | _NLM_F_ACK | request.flags
    return struct.pack("=IHHII", 16 + len(request.body), request.kind, flags, number, 0) + request.body


def _link(*, up: bool = False) -> bytes:
    """``struct ifinfomsg`` of an interface that is meant by its name."""
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, _IFF_UP if up else 0, _IFF_UP if up else 0)


def _linkinfo(kind: str, data: bytes) -> bytes:
    return _attribute(
        _IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, kind.encode()) + _attribute(_IFLA_INFO_DATA, data)
    )


def _family(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
