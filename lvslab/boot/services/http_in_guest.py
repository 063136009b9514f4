"""The web server of a virtual machine: busybox httpd, started and stopped through the guest's agent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lvslab.errors import BootError
from lvslab.lab.model import HttpService

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine

ACCESS_LOG = "/var/log/httpd/access.log"
# For "/", httpd runs cgi-bin/index.cgi where there is not an index.html.
_DOCUMENTS = "/var/www/html"
_PIDS = "/run/httpd.pid"

_SOON = 5.0  # seconds in which a guest says whether its server runs

RUNNING = f"{{ [ -e {_PIDS} ] && kill -0 $(cat {_PIDS}) 2> /dev/null; }}"
"""The shell command that ends with status 0 if the web servers run."""

_WAITING = f"n=0; while {RUNNING} && [ $n -lt 250 ]; do n=$((n + 1)); busybox usleep 20000; done"
STOP = f"{RUNNING} && kill $(cat {_PIDS}); {_WAITING}; ! {RUNNING}"
"""The shell command that stops the web servers and waits at most 5 s for their end."""


def start_order(ports: tuple[int, ...]) -> str:
    """Return the shell command that starts a web server on each port, unless they run."""
    # httpd leaves its first process when it listens, and forks its first child for the first request.
    started = " && ".join(f"httpd -p {port} -h {_DOCUMENTS}" for port in ports)
    return f"{RUNNING} || {{ {started} && pidof httpd > {_PIDS}; }}"


class GuestWebServer:
    """busybox httpd in one virtual machine."""

    kind = HttpService.kind

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        services = machine.guest.services
        self._ports = tuple(service.port for service in services if isinstance(service, HttpService))

    def access_log(self) -> int:
        """See Server. The descriptor is of a copy, made now."""
        lines = self._machine.observe(f"[ ! -e {ACCESS_LOG} ] || cat {ACCESS_LOG}").lines
        descriptor = os.memfd_create("access.log")
        with open(descriptor, "wb", closefd=False) as copy:
            copy.write("".join(f"{line}\n" for line in lines).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    @property
    def running(self) -> bool:
        """See Server."""
        return self._machine.trouble is None and self._machine.observe(RUNNING, _SOON).status == 0

    def start(self) -> None:
        """See Server."""
        self._ordered(start_order(self._ports), "does not start")

    def stop(self) -> None:
        """See Server."""
        self._ordered(STOP, "does not stop within 5 s")

    def _ordered(self, order: str, failure: str) -> None:
        done = self._machine.observe(order)
        if done.status != 0:
            message = f"the web server on {self._machine.guest.name} {failure}"
            raise BootError(message, "\n  ".join(done.lines) or None)
