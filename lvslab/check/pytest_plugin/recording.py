"""Recordings of the last packets at directors' interfaces, for tests that fail.

The kernel queues the packets, which are not read while there is room. So a test that passes only pays for
open sockets (1.1 µs for each packet at each interface, measured at a veth). A thread checks the fill level
of the queues from time to time.
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
"""Bytes of packets that are kept for all interfaces of a lab, beside those in the kernel's queues."""
ROOM = 32 << 20
"""Bytes of the kernel's queue for one interface. It is read when it is more than half full."""
PERIOD = 0.2
"""Seconds between two looks at the queues. Half of ROOM, about 20000 packets, must last for it."""


class Recording:
    """Records the last packets of a lab's directors until it is closed.

    Raises BootError, StateError if the lab cannot be asked.
    """

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
        """Discard earlier packets, at the start of a test."""
        with self._reading:
            # Queued packets from before are skipped when they are read, which costs nothing now.
            self._begun = time.time_ns()
            self._before = self._counts()
            self._kept: deque[Packet] = deque()
            self._size = 0
            self._whole = True

    def close(self) -> None:
        """Stop. Returns at once; the kernel takes 10 ms to close each of the sockets."""
        self._over.set()

    def taken(self) -> Taken:
        """Packets since the start of the test."""
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
    """Packets of one lab since a test has ``begun``, with a count per interface.

    They are not ``whole`` if there were more than are kept.
    """

    interfaces: Sequence[pcapng.Interface]
    packets: Sequence[Packet]
    counts: Sequence[Count]
    begun: int
    whole: bool


def save(labs: Sequence[Taken], file: Path) -> str:
    """Write the packets of a test's labs to ``file``; return a description. Raises OSError."""
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
