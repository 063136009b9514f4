"""A lab as those see it who watch it: a supervisor that is real, and directors that are tables."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lvslab.boot import control
from lvslab.boot.control import Handler
from lvslab.errors import BootError

_TITLE = "IP Virtual Server version 1.2.1 (size=4096)\n"
_TOTALS = """\
   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
{}

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       0        0        0                0                0
"""


@dataclass
class Director:
    """A director with one service and two servers, that has given so many connections to each of them.

    A connection is 5 packets in and 4 out, 500 bytes in and 4000 out. Each reading of its clock is half a
    second after the one before.
    """

    given: list[int] = field(default_factory=lambda: [0, 0])
    weights: list[int] = field(default_factory=lambda: [1, 2])
    service: str = "TCP  192.0.2.1:80"
    silent: bool = False
    clock: float = 100.0

    def says(self, command: str) -> str:
        """What it prints."""
        if self.silent:
            raise BootError("director is not up (running): it hangs")
        if command.startswith("cat /proc/uptime;"):
            return f"{self.clock:.2f} 1.00\n"  # a kernel that counts in one place
        parts = command.split(" && ")
        mark = parts[1].removeprefix("echo '").removesuffix("'") + "\n" if len(parts) > 1 else ""
        return mark.join(self._prints(part) for part in parts[::2])

    def _prints(self, command: str) -> str:
        servers = [f"  -> 10.0.0.10{place}:80" for place in range(2)]
        match command:
            case "cat /proc/uptime":
                self.clock += 0.5
                return f"{self.clock:.2f} 1.00\n"
            case "ipvsadm -Ln":
                rows = zip(servers, self.weights, self.given, strict=True)
                lines = [f"{server} Masq {weight} 1 {given}" for server, weight, given in rows]
                return "\n".join([_TITLE, f"{self.service} wlc", *lines, ""])
            case "ipvsadm -Ln --stats --exact":
                counted = [self.service, *servers], [sum(self.given), *self.given]
            case "ipvsadm -Ln --rate --exact":
                counted = [self.service, *servers], [0, 0, 0]
            case "cat /proc/net/ip_vs_stats":
                return _TOTALS.format(" ".join(f"{number:X}" for number in five(sum(self.given))))
            case _:
                raise AssertionError(command)
        rows = [f"{name} {' '.join(map(str, five(given)))}" for name, given in zip(*counted, strict=True)]
        return "\n".join([_TITLE, *rows, ""])


def five(connections: int) -> tuple[int, int, int, int, int]:
    """What so many connections make of the five counters."""
    return connections, 5 * connections, 4 * connections, 500 * connections, 4000 * connections


def node(kind: str, role: str, *addresses: str) -> dict[str, Any]:
    """A node that is up, as a supervisor answers."""
    cards = {f"eth{number}": address for number, address in enumerate(addresses)}
    return {"kind": kind, "state": "up", "text": "up", "role": role, "addresses": cards}


@dataclass
class Lab(Handler):
    """The supervisor's answers. ``asked`` are the directors that were read, with the time they had."""

    directors: dict[str, Director]
    asked: list[tuple[str, float]] = field(default_factory=list)

    def __call__(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        match request:
            case {"ask": "status"}:
                nodes = {name: node("guest", "director") for name in self.directors}
                for place in range(2):
                    nodes[f"real-server-{place + 1}"] = node("host", "real-server", f"10.0.0.10{place}")
                folders = {"folder": "/", "evidence": "/", "lab": "web-nat", "name": "a"}
                empty = {"versions": {}, "spec": {}, "notes": {}, "accelerator": "none"}
                return {"nodes": nodes, "started": 0.0, "ready": True, **folders, **empty}
            case {"ask": "observe", "node": director, "command": command, "seconds": seconds}:
                self.asked.append((director, seconds))
                return {"status": 0, "output": self.directors[director].says(command)}
        raise AssertionError(request)


@contextlib.contextmanager
def up(name: str, lab: Lab) -> Iterator[None]:
    """Have ``lab`` be up as ``name``; at the end it ends, and so do all conversations with it."""
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with control.reserve(name) as listener:
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    threads.append(threading.Thread(target=control.serve, args=(connection, lab)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(10)
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
