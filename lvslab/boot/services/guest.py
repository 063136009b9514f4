"""Servers in virtual machines, started and stopped through the guest's agent."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lvslab.errors import BootError

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine

_SOON = 5.0  # seconds in which a guest says whether its server runs


class GuestServer(ABC):
    """The server of one kind in one virtual machine, for all its ports.

    Messages call it ``what``; ``log`` is its access log in the guest. Orders are shell commands.
    """

    def __init__(self, machine: Machine, kind: str, what: str, log: str) -> None:
        self.machine = machine
        self.kind = kind
        self.what = what
        self.log = log
        self.ports = tuple(service.port for service in machine.guest.services if service.kind == kind)

    @property
    @abstractmethod
    def running_order(self) -> str:
        """The order that ends with status 0 if the server runs."""

    @property
    @abstractmethod
    def start_order(self) -> str:
        """The order that starts it, unless it runs, and waits until it listens."""

    @property
    @abstractmethod
    def stop_order(self) -> str:
        """The order that stops it, and ends with status 0 when it is gone."""

    @property
    def running(self) -> bool:
        """See Server."""
        return self.machine.trouble is None and self.machine.observe(self.running_order, _SOON).status == 0

    def access_log(self) -> int:
        """See Server. The descriptor is of a copy, made now."""
        lines = self.machine.observe(f"[ ! -e {self.log} ] || cat {self.log}").lines
        descriptor = os.memfd_create("access.log")
        with open(descriptor, "wb", closefd=False) as copy:
            copy.write("".join(f"{line}\n" for line in lines).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def start(self) -> None:
        """See Server."""
        self._ordered(self.start_order, "does not start")

    def stop(self) -> None:
        """See Server."""
        self._ordered(self.stop_order, "does not stop")

    def _ordered(self, order: str, failure: str) -> None:
        done = self.machine.observe(order)
        if done.status != 0:
            message = f"{self.what} on {self.machine.guest.name} {failure}"
            raise BootError(message, "\n  ".join(done.lines) or None)
