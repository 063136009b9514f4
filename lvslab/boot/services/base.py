"""Interfaces of servers: one that runs somewhere, and a kind of server for Mininet hosts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from lvslab.boot.plan import Host
from lvslab.boot.services.programs import Bundle
from lvslab.lab.model import Service

if TYPE_CHECKING:
    from lvslab.boot.net.namespaces import Namespaces
    from lvslab.boot.vm.qemu import Machine


class Server(Protocol):
    """A server of one kind on one node. ``kind`` is that of its services in ``lab.yaml``."""

    @property
    def kind(self) -> str: ...

    @property
    def running(self) -> bool:
        """True if the server's process runs."""
        ...

    def access_log(self) -> int:
        """Return a descriptor of the log of its requests, open for reading. Raises BootError."""
        ...

    def start(self) -> None:
        """Start it if it is not running, and return when it listens. Raises BootError."""
        ...

    def stop(self) -> None:
        """Stop it, and return when it is gone with all its connections. Raises BootError."""
        ...


class HostServer(ABC):
    """A kind of server on Mininet hosts, with a row in `servers`.

    ``service`` is its dataclass in the lab's model, and ``bundle`` names its packages and programs.
    """

    service: ClassVar[type[Service]]
    bundle: ClassVar[Bundle]

    @classmethod
    @abstractmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """Yield the servers of this kind on ``host``, not started yet. ``lab`` is the lab's folder."""

    @classmethod
    def in_guest(cls, machine: Machine) -> Server:
        """Return the server of this kind in a virtual machine, for all its services of the kind.

        Only for kinds of services that have ``in_guests``.
        """
        raise NotImplementedError

    @property
    def kind(self) -> str:
        """See Server."""
        return self.service.kind
