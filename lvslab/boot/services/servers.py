"""The servers of a lab's nodes.

The server of a kind of service is ``SERVER`` in the module of that name, imported when a lab has one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services.base import HostServer, Server
from lvslab.errors import UsageError
from lvslab.lab.model import SERVICES, Service

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine


class _Servers(Mapping[str, type[HostServer]]):
    def __getitem__(self, kind: str) -> type[HostServer]:
        if kind not in SERVICES:
            raise KeyError(kind)
        return cast(type[HostServer], import_module(f"{__package__}.{kind}").SERVER)

    def __iter__(self) -> Iterator[str]:
        return iter(SERVICES)

    def __len__(self) -> int:
        return len(SERVICES)


SERVERS = _Servers()
"""The kinds of servers by the ``kind`` of their services."""

# More than the processors: each waits for its files now and then.
_AT_ONCE = 2 * (os.cpu_count() or 1)


class NodeServers:
    """All servers of the node with the host name ``node``."""

    def __init__(self, node: str, servers: Iterable[Server]) -> None:
        self._node = node
        self._servers = tuple(servers)

    @property
    def running(self) -> bool:
        """True if all of them run."""
        return all(server.running for server in self._servers)

    def access_log(self, kind: str = "http") -> int:
        """Return a descriptor for reading the log of the first server of a ``kind``.

        Raises BootError, UsageError.
        """
        for server in self._servers:
            if server.kind == kind:
                return server.access_log()
        known = ", ".join(server.kind for server in self._servers)
        raise UsageError(f"{self._node} has no server for {kind}", f"it serves {known}")

    def start(self) -> None:
        """Start those that do not run, and return when all listen. Raises BootError."""
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """Stop all, and return when they are gone. Raises BootError."""
        for server in self._servers:
            server.stop()


def on_host(host: Host, place: Namespaces, lab: Path) -> NodeServers:
    """Return the servers of ``host``, not started yet. ``lab`` is the lab's folder."""
    made = (SERVERS[kind].on_host(host, place, lab) for kind in _kinds(host.services))
    return NodeServers(host.name, (server for servers in made for server in servers))


def in_guest(machine: Machine) -> NodeServers:
    """Return the servers of a virtual machine, not started yet."""
    guest = machine.guest
    return NodeServers(guest.name, (SERVERS[kind].in_guest(machine) for kind in _kinds(guest.services)))


def _kinds(services: Iterable[Service]) -> Iterable[str]:
    return dict.fromkeys(service.kind for service in services)


def start(servers: Iterable[NodeServers]) -> None:
    """Start the servers of many nodes, some at a time. Raises BootError if one does not start."""
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        list(workers.map(NodeServers.start, servers))
