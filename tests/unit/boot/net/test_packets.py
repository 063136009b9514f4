"""Real sockets at real interfaces: a cable in a network namespace of its own."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot.net import packets, pcapng
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.net.node import MininetHost
from lvslab.boot.net.packets import Interface
from lvslab.boot.node import Node
from lvslab.boot.plan import Card, Guest, Host
from lvslab.boot.vm.node import VirtualMachine
from lvslab.errors import BootError, UsageError
from lvslab.run import run
from tests.cables import ARP, HEADER, IPV4, await_carrier, cable, sender
from tests.unit.conftest import CARDS

pytestmark = pytest.mark.usefixtures("stamps")


@pytest.fixture
def ends(host: Namespaces) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sockets that send at the two ends of a cable, near and far."""
    host.call(cable, "near", "far")
    with host.call(sender, "near") as near, host.call(sender, "far") as far:
        yield near, far


@pytest.fixture
def here(host: Namespaces) -> Iterator[Callable[..., Interface]]:
    """Makes interfaces at the near end."""
    made: list[Interface] = []

    def make(program: packets.Program = (), room: int = 1 << 20, *, far: bool = False) -> Interface:
        stream = host.call(packets.open_at, "near", program, room)
        made.append(Interface("director", "eth0", "outside", 0, stream, far=far))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_what_comes_and_goes_from_the_beginning(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    near, far = ends
    before = time.time_ns()
    at = here()
    near.send(HEADER + IPV4 + b"going")
    far.send(HEADER + ARP + b"coming")
    going, coming = packets.read([at])
    assert (going.data, going.direction) == (HEADER + IPV4 + b"going", pcapng.OUTBOUND)
    assert (coming.data, coming.direction) == (HEADER + ARP + b"coming", pcapng.INBOUND)
    assert before < going.moment < coming.moment < time.time_ns()
    assert packets.read([at]) == []
    assert at.count() == pcapng.Count(2, 0)
    assert at.count() == pcapng.Count(2, 0)


def test_at_a_tap_directions_are_those_of_the_card(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    at = here(far=True)
    for end in ends:
        end.send(HEADER + IPV4)
    assert [packet.direction for packet in packets.read([at])] == [pcapng.INBOUND, pcapng.OUTBOUND]


def test_packets_are_read_in_the_order_of_time_and_only_until(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    one, two = here(), here()
    ends[0].send(HEADER + IPV4 + b"1")
    between = time.time_ns()
    ends[0].send(HEADER + IPV4 + b"2")
    assert [packet.data[-1:] for packet in one.read(between)] == [b"1"]
    assert one.held and not two.held
    assert [packet.data[-1:] for packet in packets.read([one, two])] == [b"1", b"2", b"2"]
    assert not one.held


def test_a_filter_lets_some_through(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    # As tcpdump -ddd compiles "arp".
    at = here([[40, 0, 0, 12], [21, 0, 1, 2054], [6, 0, 0, 262144], [6, 0, 0, 0]])
    for kind in (IPV4, ARP, IPV4):
        ends[1].send(HEADER + kind)
    assert [packet.data for packet in packets.read([at])] == [HEADER + ARP]
    assert at.count() == pcapng.Count(1, 0)


def test_what_finds_no_room_is_counted(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    at = here(room=64 << 10)
    assert at.waiting == 0
    for _ in range(1000):
        ends[0].send(HEADER + IPV4)
    # The kernel looks whether it is full before it adds one more.
    assert 32 << 10 < at.waiting < 66 << 10
    kept = len(packets.read([at]))
    assert at.count() == pcapng.Count(1000, 1000 - kept)
    assert 10 < kept < 1000
    assert at.waiting == 0


def test_a_tag_that_the_kernel_takes_out_is_put_back(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    at = here()
    tagged = HEADER + b"\x81\x00\x00\x07" + IPV4 + b"x" * 46
    ends[1].send(tagged)
    assert [packet.data for packet in packets.read([at])] == [tagged]


def test_an_interface_that_goes_down_and_up_again(
    host: Namespaces, ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    at = here()
    ends[0].send(HEADER + IPV4 + b"before")
    host.call(run, ["ip", "link", "set", "near", "down"])
    host.call(run, ["ip", "link", "set", "near", "up"])
    host.call(await_carrier, "near")
    ends[0].send(HEADER + IPV4 + b"after")
    assert [packet.data[14:] for packet in packets.read([at])] == [b"before", b"after"]


# --- of a lab ---------------------------------------------------------------------------------------------


class Lab:
    """A conversation with a supervisor of one node, which opens sockets in ``host``."""

    def __init__(self, host: Namespaces, node: Node) -> None:
        self.host, self.node = host, node

    def ask(self, what: str, **how: Any) -> tuple[Any, list[int]]:
        assert (what, how["node"]) == ("capture", self.node.name)
        return self.host.call(self.node.capture, how["interface"], how["filter"], how["room"])


def test_a_virtual_machines_cards_are_its_taps(host: Namespaces, guest: Guest) -> None:
    host.call(cable, CARDS[0].port, CARDS[1].port)
    lab = Lab(host, VirtualMachine(guest, copyable=False))
    interfaces = packets.listen(lab, "director", first=2)  # type: ignore[arg-type]
    with host.call(sender, CARDS[1].port) as outside:
        outside.send(HEADER + IPV4)
    found = [(each.interface, each.direction) for each in packets.read(interfaces)]
    for at in interfaces:
        at.close()
    # What eth1's tap is given, eth1 receives; the cable has its other end at eth0's.
    assert found == [(3, pcapng.INBOUND), (2, pcapng.OUTBOUND)]
    assert [(at.title, at.description) for at in interfaces] == [
        ("director eth0", "192.0.2.1/24 in the network internet"),
        ("director eth1", "10.0.0.1/24 in the network lan"),
    ]


def test_a_hosts_card_is_in_its_namespace(host: Namespaces, tmp_path: Path) -> None:
    card = Card("eth0", "internet", "internet-1.0", "02:4c:56:00:00:05", (ip_interface("192.0.2.9/24"),))
    host.call(cable, "eth0", "other")
    node = MininetHost(Host("client", (card,), ()), tmp_path)
    node.place = host
    lab = Lab(host, node)
    (at,) = packets.listen(lab, "client", "eth0")  # type: ignore[arg-type]
    with host.call(sender, "eth0") as inside:
        inside.send(HEADER + IPV4)
    found = [each.direction for each in packets.read([at])]
    at.close()
    assert found == [pcapng.OUTBOUND]


def test_an_interface_that_there_is_not(host: Namespaces, guest: Guest) -> None:
    node = VirtualMachine(guest, copyable=False)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match="director has no interface 'eth7'\n  it has eth0, eth1"):
        node.capture("eth7", (), 1 << 20)
    # The second card's tap is not there, and the first one's socket is not left open.
    host.call(cable, CARDS[0].port, "other")
    with pytest.raises(BootError, match="cannot capture at eth1 of director: No such device"):
        host.call(node.capture, "", (), 1 << 20)
    assert len(os.listdir("/proc/self/fd")) == before


def test_instructions_are_those_of_the_kernel(host: Namespaces) -> None:
    with pytest.raises(struct.error):
        host.call(packets.open_at, "lo", [[1 << 20, 0, 0, 0]])


def test_a_packet_whose_checksum_is_left_to_the_card_says_so(
    ends: tuple[socket.socket, socket.socket], here: Callable[..., Interface]
) -> None:
    at = here()
    # A packet socket that speaks of its checksum (struct virtio_net_hdr): this one is to be finished.
    ends[0].setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
    told = struct.pack("=BBHHHH", 1, 0, 0, 0, 14 + 20, 6)  # VIRTIO_NET_HDR_F_NEEDS_CSUM
    datagram = struct.pack("!BBHHHBBHII", 0x45, 0, 28, 0, 0, 64, 17, 0, 1, 2) + bytes(8)
    ends[0].send(told + HEADER + IPV4 + datagram)
    ends[0].send(bytes(10) + HEADER + IPV4 + datagram)
    assert [packet.unfinished for packet in packets.read([at])] == [True, False]
