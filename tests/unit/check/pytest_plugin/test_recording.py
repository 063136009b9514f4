"""What is kept of a lab's packets, with real sockets at a cable in a network namespace of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lvslab.boot.net import packets
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.net.packets import Interface
from lvslab.check.pytest_plugin import recording
from lvslab.check.pytest_plugin.recording import Recording, save
from lvslab.errors import BootError
from lvslab.lab.model import Lab
from tests.cables import HEADER, IPV4, cable, sender
from tests.unit.fake_cluster import FakeCluster, lab_in

pytestmark = pytest.mark.usefixtures("stamps")


LAB = """
title: for a test
networks: {lan: {subnet: 10.0.0.0/24}}
nodes:
  near:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
  far:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.2}}
"""


class Cluster(FakeCluster):
    """A lab with two directors, each of which has its interface at an end of one cable."""

    def __init__(self, lab: Lab, host: Namespaces) -> None:
        super().__init__(lab)
        self._host = host

    def capture(self, node: str, *, room: int, first: int = 0) -> list[Interface]:
        stream = self._host.call(packets.open_at, node, (), room)
        return [Interface(node, "eth0", "", first, stream, far=False)]


@pytest.fixture
def lab(host: Namespaces, tmp_path: Path) -> Cluster:
    host.call(cable, "near", "far")
    return Cluster(lab_in(tmp_path, LAB), host)


@pytest.fixture
def send(host: Namespaces, lab: Cluster) -> Iterator[Callable[[bytes], object]]:
    """Sends packets at the near end."""
    with host.call(sender, "near") as opened:
        yield lambda content: opened.send(HEADER + IPV4 + content)


@pytest.fixture
def kept(lab: Cluster) -> Iterator[Recording]:
    made = Recording(lab)
    yield made
    made.close()


def contents(kept: Recording) -> list[bytes]:
    """What the packets hold that were kept at the first interface."""
    return [packet.data[14:] for packet in kept.taken().packets if packet.interface == 0]


def test_only_what_came_since_a_test_began(kept: Recording, send: Callable[[bytes], object]) -> None:
    send(b"before")
    kept.begin()
    send(b"one")
    assert contents(kept) == [b"one"]
    send(b"two")
    taken = kept.taken()
    assert contents(kept) == [b"one", b"two"]
    assert [each.name for each in taken.interfaces] == ["near eth0", "far eth0"]
    assert [(each.received, each.dropped) for each in taken.counts] == [(2, 0), (2, 0)]
    assert taken.whole
    kept.begin()
    assert contents(kept) == []


def test_the_last_ones_are_kept(
    lab: Cluster, send: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100
    monkeypatch.setattr(recording, "KEPT", 10 * size)
    kept = Recording(lab)
    for number in range(30):
        send(b"%02d" % number + bytes(size - 16))
    taken = kept.taken()
    kept.close()
    # Each is seen at both ends, first where it is sent.
    assert [packet.data[14:16] for packet in taken.packets] == [b"%02d" % (n // 2) for n in range(50, 60)]
    assert not taken.whole


def test_a_queue_is_read_before_it_is_full(
    lab: Cluster, send: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ROOM", 256 << 10)
    monkeypatch.setattr(recording, "PERIOD", 0.001)
    kept = Recording(lab)
    looks = threading.Event()
    reads = recording.packets.read

    def read(interfaces: list[Interface]) -> list[packets.Packet]:
        found = reads(interfaces)
        looks.set()
        return found

    monkeypatch.setattr(recording.packets, "read", read)
    for _ in range(10):
        for number in range(100):  # some 80 KiB
            send(b"%d" % number)
        if any(each.waiting > 128 << 10 for each in kept._interfaces):
            assert looks.wait(10)
        looks.clear()
    taken = kept.taken()
    kept.close()
    assert sum(each.dropped for each in taken.counts) == 0
    assert len(taken.packets) == 2 * 1000


def test_nothing_is_left(lab: Cluster) -> None:
    before = set(os.listdir("/proc/self/fd"))
    Recording(lab).close()
    deadline = time.monotonic() + 10
    while any(thread.name == "packets" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the thread does not end"
        time.sleep(0.01)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_director_that_cannot_be_asked(lab: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = lab.capture

    def fail(node: str, *, room: int, first: int = 0) -> list[Interface]:
        if node == "far":
            raise BootError("the lab ended")
        return capture(node, room=room, first=first)

    monkeypatch.setattr(lab, "capture", fail)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BootError, match="the lab ended"):
        Recording(lab)
    assert set(os.listdir("/proc/self/fd")) == before


def test_two_labs_in_one_file(lab: Cluster, send: Callable[[bytes], object], tmp_path: Path) -> None:
    one, two = Recording(lab), Recording(lab)
    send(b"seen four times")
    file = tmp_path / "captures" / "a.pcapng"
    said = save([one.taken(), two.taken()], file)
    one.close()
    two.close()
    assert said == "4 packets at near eth0, far eth0, near eth0, far eth0"
    assert file.read_bytes().count(b"seen four times") == 4


def test_what_is_missing_is_said(
    lab: Cluster, send: Callable[[bytes], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ROOM", 64 << 10)
    monkeypatch.setattr(recording, "PERIOD", 1000.0)
    monkeypatch.setattr(recording, "KEPT", 1000)
    kept = Recording(lab)
    for _ in range(1000):
        send(b"x" * 86)
    said = save([kept.taken()], tmp_path / "a.pcapng")
    kept.close()
    counted, more, dropped = said.split("; ")
    assert counted == "10 packets at near eth0, far eth0"
    assert more == "there were more before them"
    assert dropped.endswith(" dropped in between") and int(dropped.split()[0]) > 0
