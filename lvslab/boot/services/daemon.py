"""Server programs in the foreground on Mininet hosts: started, awaited, and stopped with all children.

Each has a PID namespace of its own: whatever it has forked for its connections, in sessions and process
groups of their own, ends with it. Process 1 of the namespace is a shell, which reaps orphans and ends when
the server does: vsftpd, for one, dies of the death of a child that it does not know.
"""

from __future__ import annotations

import os
import select
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar, cast

from lvslab.boot.net import namespaces
from lvslab.boot.net.namespaces import CLONE_NEWPID, Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services.base import HostServer, Server
from lvslab.errors import BootError
from lvslab.lab.model import Service
from lvslab.run import Process, last_lines, spawn

S = TypeVar("S", bound=Service)
Endpoint = tuple[Literal["tcp", "udp"], int]
"""A protocol and a port."""

# The state of a socket that listens (TCP) or is bound (UDP): include/net/tcp_states.h.
_LISTENS = {"tcp": 0x0A, "udp": 0x07}
_TICK = 0.005
# A shell would give a command in the background /dev/null to read.
_PROCESS_1 = 'exec 3<&0; "$@" <&3 3<&- & wait $!'


class Daemon:
    """One such program. ``what`` is what messages call it, ``messages`` the file for what it prints, and it
    has come up when it listens on all of ``endpoints``."""

    def __init__(
        self,
        what: str,
        place: Namespaces,
        command: Sequence[str],
        messages: Path,
        endpoints: Iterable[Endpoint],
    ) -> None:
        self.what = what
        self._place = place
        self._command = ["sh", "-c", _PROCESS_1, "sh", *command]
        self._messages = messages
        self._endpoints = frozenset(endpoints)
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """True if its first process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, seconds: float = 10.0) -> None:
        """Start it if it is not running, and return when it listens.

        Raises BootError if it does not within ``seconds``.
        """
        if not self.running:
            self._place.call(self._start, time.monotonic() + seconds)

    def stop(self) -> None:
        """End it and all that it has forked, and return when they are gone."""
        if self._process is not None:
            # Process 1 hears of no other signal. It is gone when all of its namespace is
            # (zap_pid_ns_processes in kernel/pid_namespace.c).
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self, deadline: float) -> None:
        """In the host's namespaces, in a thread that ends then."""
        namespaces.unshare(CLONE_NEWPID)  # for what this thread starts
        # vsftpd complains on its standard input, where a client would be.
        with (
            self._messages.open("w+b") as out,
            spawn(self._command, stdin=out, stdout=out, stderr=out, outlives=True) as process,
        ):
            self._process = process
        descriptor = os.pidfd_open(self._process.pid)
        try:
            while not self._endpoints <= _listening_here():
                if select.select([descriptor], [], [], _TICK)[0]:
                    raise self._failed(f"did not start (status {self._process.wait()})")
                if time.monotonic() > deadline:
                    self.stop()
                    raise self._failed("does not listen")
        finally:
            os.close(descriptor)

    def _failed(self, how: str) -> BootError:
        return BootError(f"{self.what} {how}", last_lines(self._messages.read_bytes()))


class DaemonServer(HostServer, Generic[S]):
    """A kind of server that is one such program for each service on a host.

    A subclass says what messages call it (``what``), its ``log`` on the host, its command, its endpoints,
    and how its files come to be on the host (``_write``).
    """

    what: ClassVar[str]
    log: ClassVar[Path]

    def __init__(self, host: Host, place: Namespaces, service: S, lab: Path) -> None:
        self._host = host
        self._place = place
        self._service = service
        self._lab = lab
        self._folder = Path(f"/run/lvslab/nodes/{host.name}/{service.kind}-{service.port}")
        what, messages = f"{self.what} on {host.name}", self._folder.with_suffix(".out")
        self._daemon = Daemon(what, place, self._command(), messages, self._endpoints())
        self._written = False

    @classmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """See HostServer."""
        for service in host.services:
            if isinstance(service, cls.service):
                yield cls(host, place, cast(S, service), lab)

    def access_log(self) -> int:
        """See Server."""
        return self._place.call(os.open, self.log, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def running(self) -> bool:
        """See Server."""
        return self._daemon.running

    def start(self) -> None:
        """Start the server if it is not running, and return when it listens. Raises BootError."""
        if self.running:
            return
        if not self._written:
            self._write()
            self._written = True
        self._check()
        self._daemon.start()

    def stop(self) -> None:
        """Stop the server with all its sessions, and return when they are gone."""
        self._daemon.stop()

    def _endpoints(self) -> Iterable[Endpoint]:
        """Return what it listens on when it has started."""
        return [("tcp", self._service.port)]

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the words that start it in the foreground."""

    @abstractmethod
    def _write(self) -> None:
        """Put its files on the host; called once, before the first start."""

    def _check(self) -> None:
        """Look at its files before each start. Raises BootError."""


def listening(tables: Iterable[tuple[str, str]]) -> frozenset[Endpoint]:
    """Return the endpoints that are listened on.

    ``tables`` are pairs of a protocol and the text of its /proc/net/tcp, tcp6, udp or udp6.
    """
    found = set[Endpoint]()
    for protocol, text in tables:
        for line in text.splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if int(state, 16) == _LISTENS[protocol]:
                found.add(("tcp" if protocol == "tcp" else "udp", int(local.rpartition(":")[2], 16)))
    return frozenset(found)


def _listening_here() -> frozenset[Endpoint]:
    """In the calling thread's network namespace."""
    files = [(name[:3], Path(f"/proc/thread-self/net/{name}")) for name in ("tcp", "tcp6", "udp", "udp6")]
    return listening((protocol, file.read_text()) for protocol, file in files if file.exists())
