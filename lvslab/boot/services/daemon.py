"""Server programs that run in the foreground on Mininet hosts.

Each has a PID namespace of its own: what it forks for its connections, in sessions and process groups of
their own, ends with it. Process 1 of the namespace is a shell, which reaps orphans and ends when the server
does: vsftpd, for one, ends with a child that it does not know.
"""

from __future__ import annotations

import select
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

from lvslab.boot import control
from lvslab.boot.net import namespaces
from lvslab.boot.net.namespaces import CLONE_NEWPID, Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services.base import HostServer, Server
from lvslab.errors import BootError
from lvslab.lab.model import Service
from lvslab.run import Process, last_lines, spawn

S = TypeVar("S", bound=Service)
Protocol = Literal["tcp", "udp"]
Endpoint = tuple[Protocol, int]
"""A protocol and a port."""

# The state of a socket that listens (TCP) or is bound (UDP): include/net/tcp_states.h.
_LISTENS: Mapping[Protocol, int] = {"tcp": 0x0A, "udp": 0x07}
_TICK = 0.005
# A shell would give a command in the background /dev/null to read.
_PROCESS_1 = 'exec 3<&0; "$@" <&3 3<&- & wait $!'


class Daemon:
    """One such program, which is up when it listens on all of ``endpoints``.

    Messages call it ``what``, and what it prints goes to the file ``messages``.
    """

    def __init__(
        self, what: str, place: Namespaces, command: list[str], messages: Path, endpoints: Iterable[Endpoint]
    ) -> None:
        self.what = what
        self._place = place
        self._argv = ["sh", "-c", _PROCESS_1, "sh", *command]
        self.messages = messages
        self._expected = frozenset(endpoints)
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """True if its first process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, seconds: float = 10.0) -> None:
        """Start it if it is not running, and return when it listens. Raises BootError after ``seconds``."""
        if not self.running:
            self._place.call(self._start, time.monotonic() + seconds)

    def stop(self) -> None:
        """End it and all that it has forked, and return when they are gone."""
        if self._process is not None:
            # Process 1 gets only this signal. It has ended when its whole namespace has
            # (zap_pid_ns_processes in kernel/pid_namespace.c).
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self, deadline: float) -> None:
        """Start it; runs in the host's namespaces, in a thread that ends then."""
        namespaces.unshare(CLONE_NEWPID)  # for what this thread starts
        # vsftpd complains on its standard input, where a client would be.
        with (
            self.messages.open("w+b") as out,
            spawn(self._argv, stdin=out, stdout=out, stderr=out, outlives=True) as process,
        ):
            self._process = process
        with control.process(self._process.pid) as descriptor:
            while not self._listens():
                if select.select([descriptor], [], [], _TICK)[0]:
                    raise self._failed(f"did not start (status {self._process.wait()})")
                if time.monotonic() > deadline:
                    self.stop()
                    raise self._failed("does not listen")

    def _listens(self) -> bool:
        """Return True if it is up; runs in the host's namespaces."""
        return self._expected <= _listening_here()

    def _failed(self, how: str) -> BootError:
        return BootError(f"{self.what} {how}", last_lines(self.messages.read_bytes()))


class DaemonServer(Daemon, HostServer, Generic[S]):
    """A kind of server that is one such program for each service on a host.

    A subclass says what messages call it (``what``), its command, and how its files are written.
    """

    what: str

    def __init__(self, host: Host, place: Namespaces, service: S, lab: Path) -> None:
        HostServer.__init__(self, host, place)
        self._service = service
        self._folder = Path(f"/run/lvslab/nodes/{host.name}/{service.kind}-{service.port}")
        what, messages = f"{self.what} on {host.name}", self._folder.with_suffix(".out")
        Daemon.__init__(self, what, place, self._command(), messages, self._endpoints())

    @classmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """See HostServer."""
        for service in host.services:
            if isinstance(service, cls.service):
                yield cls(host, place, cast(S, service), lab)

    def _start(self, deadline: float) -> None:
        if not self._written:
            self._write()
            self._written = True
        self._check()
        super()._start(deadline)

    def _endpoints(self) -> list[Endpoint]:
        return [("tcp", self._service.port)]

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the words that start it in the foreground."""

    @abstractmethod
    def _write(self) -> None:
        """Write its files before the first start; runs in the host's namespaces."""

    def _check(self) -> None:
        """Check its files before each start; runs in the host's namespaces. Raises BootError."""


def listening(tables: Iterable[tuple[Protocol, str]]) -> frozenset[Endpoint]:
    """Return the listening endpoints in ``tables``.

    These are pairs of a protocol and the text of its /proc/net/tcp, tcp6, udp or udp6.
    """
    rows = ((protocol, line.split()) for protocol, text in tables for line in text.splitlines()[1:])
    return frozenset(
        (protocol, int(row[1].rpartition(":")[2], 16))
        for protocol, row in rows
        if int(row[3], 16) == _LISTENS[protocol]
    )


def _listening_here() -> frozenset[Endpoint]:
    """Return the listening endpoints in the calling thread's network namespace."""
    files = [
        (protocol, Path(f"/proc/thread-self/net/{protocol}{v6}"))
        for protocol in _LISTENS
        for v6 in ("", "6")
    ]
    return listening((protocol, file.read_text()) for protocol, file in files if file.exists())
