"""The web server of a virtual machine: busybox httpd, started and stopped through the guest's agent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lvslab.errors import BootError
from lvslab.lab.model import HttpService

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine

ACCESS_LOG = "/var/log/httpd/access.log"
# Where a client asks for "/" and there is no index.html, httpd runs cgi-bin/index.cgi.
_DOCUMENTS = "/var/www/html"
_PIDS = "/run/httpd.pid"

_SOON = 5.0  # seconds in which a guest says whether its server runs


def start_order(ports: tuple[int, ...]) -> str:
    """Return the shell command that starts a web server on each of ``ports``, if none runs yet."""
    # It leaves its first process when it listens. A child of its own comes with the first request.
    started = " && ".join(f"httpd -p {port} -h {_DOCUMENTS}" for port in ports)
    return f"{running_order()} || {{ {started} && pidof httpd > {_PIDS}; }}"


def running_order() -> str:
    """Return the shell command that ends with status 0 if the web servers run."""
    return f"{{ [ -e {_PIDS} ] && kill -0 $(cat {_PIDS}) 2> /dev/null; }}"


def stop_order() -> str:
    """Return the shell command that stops the web servers and ends when they are gone, or after 5 s."""
    waiting = f"n=0; while {running_order()} && [ $n -lt 250 ]; do n=$((n + 1)); busybox usleep 20000; done"
    return f"{running_order()} && kill $(cat {_PIDS}); {waiting}; ! {running_order()}"


class GuestWebServer:
    """busybox httpd in one virtual machine, as `http.WebServer` is nginx on a Mininet host."""

    kind = HttpService.kind

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        services = machine.guest.services
        self._ports = tuple(service.port for service in services if isinstance(service, HttpService))

    def access_log(self) -> int:
        """Return a descriptor of what the access log holds now, open for reading. Raises BootError."""
        lines = self._machine.observe(f"[ ! -e {ACCESS_LOG} ] || cat {ACCESS_LOG}").lines
        descriptor = os.memfd_create("access.log")
        with open(descriptor, "wb", closefd=False) as copy:
            copy.write("".join(f"{line}\n" for line in lines).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    @property
    def running(self) -> bool:
        """True if the server's processes run."""
        if self._machine.trouble is not None:
            return False
        return self._machine.observe(running_order(), _SOON).status == 0

    def start(self) -> None:
        """Start the server and return when it listens. Raises BootError."""
        self._ordered(start_order(self._ports), "does not start")

    def stop(self) -> None:
        """Stop the server and return when it is gone. Raises BootError where it does not go."""
        self._ordered(stop_order(), "does not stop within 5 s")

    def _ordered(self, order: str, failure: str) -> None:
        done = self._machine.observe(order)
        if done.status != 0:
            said = "\n  ".join(done.lines) or None
            raise BootError(f"the web server on {self._machine.guest.name} {failure}", said)
