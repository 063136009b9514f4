"""Interfaces of servers: one that runs on a node, and a kind of server for Mininet hosts."""

from __future__ import annotations

import os
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

    def access_log(self) -> int:
        """Return a descriptor of the log of its requests, open for reading. Raises BootError."""

    def start(self) -> None:
        """Start it if it is not running, and return when it listens. Raises BootError."""

    def stop(self) -> None:
        """Stop it, and return when it and all its connections are gone. Raises BootError."""


class HostServer(ABC):
    """A kind of server on Mininet hosts; see `servers`.

    ``service`` is its dataclass in the lab's model, ``bundle`` names its packages and programs, if it needs
    any, and ``log`` is its access log on the host. ``guests_need_python``: virtual machines need Python for
    it. A server writes its files before its first start.
    """

    service: ClassVar[type[Service]]
    bundle: ClassVar[Bundle | None] = None
    guests_need_python: ClassVar[bool] = False
    log: ClassVar[Path]

    def __init__(self, host: Host, place: Namespaces) -> None:
        self.host = host
        self._place = place
        self._written = False

    @classmethod
    @abstractmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """Yield the servers of this kind on ``host``, not started yet. ``lab`` is the lab's folder."""

    @classmethod
    def in_guest(cls, machine: Machine) -> Server:
        """Return the server of a virtual machine for its services of the kind (see Service.in_guests)."""
        raise NotImplementedError

    @classmethod
    def check_machine(cls) -> None:
        """Check that this machine can run it on hosts. Raises MachineError."""
        return None

    @property
    def kind(self) -> str:
        """See Server."""
        return self.service.kind

    def access_log(self) -> int:
        """See Server."""
        return self._place.call(os.open, self.log, os.O_RDONLY | os.O_CLOEXEC)
