"""Messages of ICMP, "fragmentation needed", that get lost on their way.

Without them a sender goes on sending such packets: a connection is made, and stops with the first packets
of full size (RFC 2923, 2.1). The messages are captured on their way through the lab.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from lvslab.boot.net import packets, pcapng
from lvslab.check.forwarding.facts import Finding
from lvslab.errors import BootError, UsageError

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

_ROOM = 4 << 20
# Types of frames, and protocols.
_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ICMP, _ICMPV6 = 1, 58


@dataclass(frozen=True)
class Message:
    """A message to the sender of a too large packet; ``mtu`` bytes would pass.

    ``quoted`` is the beginning of that packet.
    """

    sender: str
    receiver: str
    mtu: int
    quoted: bytes

    @property
    def title(self) -> str:
        """The name of its type, as in a sentence."""
        return "packet too big" if ":" in self.receiver else "fragmentation needed"


@dataclass(frozen=True)
class Sighting:
    """A message at the card of a node, which has ``sent`` or received it. Times are in nanoseconds."""

    message: Message
    node: str
    card: str
    sent: bool
    moment: int


class LostMessages:
    """The messages at ``nodes`` within a block, and the lost ones of them."""

    def __init__(self, cluster: RunningLab, nodes: Iterable[str]) -> None:
        self._cluster = cluster
        self._nodes = tuple(dict.fromkeys(nodes))
        self._opened = ExitStack()
        self._interfaces: list[packets.Interface] = []
        self._seen: list[Sighting] = []

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for node in self._nodes:
                try:
                    found = self._cluster.capture(node, room=_ROOM, first=len(self._interfaces))
                except (BootError, UsageError):  # a node that has gone sees nothing
                    continue
                self._interfaces += [opened.enter_context(each) for each in found]
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for packet in packets.read(self._interfaces):
                card = self._interfaces[packet.interface]
                if (message := message_in(packet.data)) is not None:
                    sent = packet.direction == pcapng.OUTBOUND
                    self._seen.append(Sighting(message, card.node, card.name, sent, packet.moment))
        finally:
            self._opened.close()

    def findings(self) -> tuple[Finding, ...]:
        """Return the messages that got lost, each kind once."""
        watched = {card.node for card in self._interfaces}
        names = {address: node for address, node in self._cluster.lab.names.items() if node in watched}
        return lost(self._seen, names)


def lost(seen: Sequence[Sighting], names: Mapping[str, str]) -> tuple[Finding, ...]:
    """Find messages that did not reach their receiver.

    ``names`` are the nodes at which all messages were captured, by their addresses.
    """
    messages = dict[Message, list[Sighting]]()
    for each in sorted(seen, key=lambda sighting: sighting.moment):
        messages.setdefault(each.message, []).append(each)
    found = dict[Finding, None]()
    for message, ways in messages.items():
        receiver = names.get(message.receiver)
        if receiver is None or any(way.node == receiver and not way.sent for way in ways):
            continue
        first, last = ways[0], ways[-1]
        origin = first.node if first.sent else message.sender
        where, at = (
            (
                f"it leaves {last.node} at {last.card}, and does not arrive",
                f"between {last.node} and {receiver}",
            )
            if last.sent
            else (f"{last.node} receives it at {last.card}, and does not send it on", f"at {last.node}")
        )
        number = "ICMPv6 type 2" if ":" in message.receiver else "ICMP type 3, code 4"
        found[
            Finding(
                f"the ICMP message `{message.title}` (MTU {message.mtu}) from {origin} to {receiver} gets "
                f"lost: {where}. So {receiver} goes on sending packets that are too large",
                f"let {number} pass {at}: path MTU discovery needs it",
            )
        ] = None
    return tuple(found)


def message_in(frame: bytes) -> Message | None:
    """Return the message in an Ethernet frame, None where there is none."""
    kind = frame[12:14]
    if kind == _IPV4 and len(frame) >= 34 and frame[23] == _ICMP:
        data = frame[14 + (frame[14] & 15) * 4 :]
        if data[:2] != b"\x03\x04" or len(data) < 8:
            return None
        return Message(_address(frame[26:30]), _address(frame[30:34]), int.from_bytes(data[6:8]), data[8:])
    if kind == _IPV6 and len(frame) >= 54 and frame[20] == _ICMPV6:
        data = frame[54:]
        if data[:1] != b"\x02" or len(data) < 8:
            return None
        return Message(_address(frame[22:38]), _address(frame[38:54]), int.from_bytes(data[4:8]), data[8:])
    return None


def _address(data: bytes) -> str:
    return str(ip_address(data))
