"""The last packets at the interfaces of a lab's directors, kept for the case that a test fails.

They are queued by the kernel, and nobody reads them while there is room: a test that passes pays for sockets
that are open (1.1 µs for each packet at each interface, measured at a veth), and no more. A thread looks
from time to time how full the queues are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lvslab.boot.net import packets, pcapng
from lvslab.boot.net.pcapng import Count, Packet

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

KEPT = 8 << 20
"""Bytes of packets that are kept, all interfaces of a lab together, besides those in the kernel's queues."""
ROOM = 32 << 20
"""The kernel's memory for the queue of one interface. It is emptied when it is more than half full."""
PERIOD = 0.2
"""Seconds between two looks at the queues, in which half of ROOM must not fill up: some 20000 packets."""


class Recording:
    """Keeps the last packets of a lab's directors, from now on, until it is closed. Raises BootError,
    StateError where the lab cannot be asked."""

    def __init__(self, cluster: RunningLab) -> None:
        self._interfaces: list[packets.Interface] = []
        self._over = threading.Event()
        self._reading = threading.Lock()
        try:
            for director in cluster.lab.directors:
                self._interfaces += cluster.capture(director, room=ROOM, first=len(self._interfaces))
        except BaseException:
            self._end()
            raise
        self.begin()
        threading.Thread(target=self._keep_up, name="packets").start()

    def begin(self) -> None:
        """A test begins: what was before is of no interest any more."""
        with self._reading:
            # What is queued from before will be passed over: that costs this test nothing now.
            self._begun = time.time_ns()
            self._before = self._counts()
            self._kept: deque[Packet] = deque()
            self._size = 0
            self._whole = True

    def close(self) -> None:
        """Keep no more. Returns at once; the kernel takes 10 ms to close each of the sockets."""
        self._over.set()

    def taken(self) -> Taken:
        """What there was since the test began."""
        with self._reading:
            self._read()
            return Taken(
                [pcapng.Interface(each.title, each.description) for each in self._interfaces],
                list(self._kept),
                [
                    Count(now.received - before.received, now.dropped - before.dropped)
                    for now, before in zip(self._counts(), self._before, strict=True)
                ],
                self._begun,
                self._whole,
            )

    def _counts(self) -> list[Count]:
        return [each.count() for each in self._interfaces]

    def _keep_up(self) -> None:
        while not self._over.wait(PERIOD):
            with self._reading:
                if any(each.waiting > ROOM // 2 for each in self._interfaces):
                    self._read()
        self._end()

    def _read(self) -> None:
        found = [each for each in packets.read(self._interfaces) if each.moment >= self._begun]
        self._kept.extend(found)
        self._size += sum(len(packet.data) for packet in found)
        while self._size > KEPT:
            self._size -= len(self._kept.popleft().data)
            self._whole = False

    def _end(self) -> None:
        for each in self._interfaces:
            each.close()


@dataclass(frozen=True)
class Taken:
    """The packets of one lab since a test has ``begun``, in the order of time, and a count for each
    interface. They are not ``whole`` where there were more than are kept."""

    interfaces: Sequence[pcapng.Interface]
    packets: Sequence[Packet]
    counts: Sequence[Count]
    begun: int
    whole: bool


def save(labs: Sequence[Taken], file: Path) -> str:
    """Write what was ``taken`` of the labs of a test to ``file``, and say in words what that is. Raises
    OSError."""
    found, first = list[Packet](), 0
    for lab in labs:
        found += (replace(packet, interface=first + packet.interface) for packet in lab.packets)
        first += len(lab.interfaces)
    found.sort(key=lambda packet: packet.moment)
    interfaces = [each for lab in labs for each in lab.interfaces]
    counts = [each for lab in labs for each in lab.counts]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb", buffering=0) as stream:
        writer = pcapng.Writer(stream, interfaces)
        writer.write(found)
        writer.end(counts, min(lab.begun for lab in labs), time.time_ns())
    words = [f"{len(found)} packets at {', '.join(each.name for each in interfaces)}"]
    if not all(lab.whole for lab in labs):
        words.append("there were more before them")
    if dropped := sum(each.dropped for each in counts):
        words.append(f"{dropped} dropped in between")
    return "; ".join(words)
