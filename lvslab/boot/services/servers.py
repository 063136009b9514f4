"""The servers of Mininet hosts, whatever they serve: started, stopped, and asked for their logs.

Each kind has a room of its own: `web_server`, `ftp_server`, `dns_server`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Dns, Ftp, Host, Web
from lvslab.boot.services.dns import DnsServer
from lvslab.boot.services.ftp import FtpServer
from lvslab.boot.services.http import WebServer
from lvslab.errors import UsageError

# More than there are processors: each waits for its files now and then.
_AT_ONCE = 2 * (os.cpu_count() or 1)


class Server(Protocol):
    """One server program on one host. ``kind`` is that of the services in ``lab.yaml``."""

    @property
    def kind(self) -> str: ...

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        ...

    def access_log(self) -> int:
        """A descriptor of the log of its requests, open for reading."""
        ...

    def start(self) -> None:
        """Start it if it is not running, and return when it listens. Raises BootError."""
        ...

    def stop(self) -> None:
        """Stop it, and return when it is gone with all its connections. Raises BootError."""
        ...


class HostServers:
    """All servers of one Mininet host."""

    def __init__(self, host: Host, servers: Iterable[Server]) -> None:
        self._host = host
        self._servers = tuple(servers)

    @property
    def running(self) -> bool:
        """Whether all of them are there."""
        return all(server.running for server in self._servers)

    def access_log(self, kind: str = "http") -> int:
        """A descriptor of the log of the first server of a ``kind``, open for reading. Raises UsageError."""
        for server in self._servers:
            if server.kind == kind:
                return server.access_log()
        known = ", ".join(server.kind for server in self._servers)
        raise UsageError(f"{self._host.name} has no server for {kind}", f"it serves {known}")

    def start(self) -> None:
        """Start those that do not run, and return when all listen. Raises BootError."""
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """Stop all, and return when they are gone. Raises BootError."""
        for server in self._servers:
            server.stop()


def of(host: Host, namespaces: Namespaces) -> HostServers:
    """The servers of ``host``, not started yet."""
    return HostServers(host, _made(host, namespaces))


def _made(host: Host, namespaces: Namespaces) -> Iterator[Server]:
    if any(isinstance(service, Web) for service in host.services):
        yield WebServer(host, namespaces)
    for service in host.services:
        if isinstance(service, Ftp):
            yield FtpServer(host, namespaces, service)
        elif isinstance(service, Dns):
            yield DnsServer(host, namespaces, service)


def start(servers: Iterable[HostServers]) -> None:
    """Start the servers of many hosts, some at a time. Raises BootError where one does not start."""
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        for _ in workers.map(HostServers.start, servers):
            pass
