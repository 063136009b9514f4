"""The web server of a virtual machine: busybox httpd, started and stopped through the guest's agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvslab.boot.services.guest import GuestServer
from lvslab.lab.model import HttpService

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine

ACCESS_LOG = "/var/log/httpd/access.log"
# For "/", httpd runs cgi-bin/index.cgi where there is not an index.html.
_DOCUMENTS = "/var/www/html"
_PIDS = "/run/httpd.pid"

# Not `kill -0`: on Linux 2.4, process 1 of a guest leaves daemons that have ended as zombies.
RUNNING = f"{{ for p in $(cat {_PIDS} 2> /dev/null) none; do [ -e /proc/$p/exe ] && break; done; }}"
"""The shell command that ends with status 0 if a web server runs."""

_WAITING = f"n=0; while {RUNNING} && [ $n -lt 250 ]; do n=$((n + 1)); busybox usleep 20000; done"
STOP = f"{RUNNING} && kill $(cat {_PIDS}); {_WAITING}; ! {RUNNING}"
"""The shell command that stops the web servers and waits at most 5 s for their end."""


def start_order(ports: tuple[int, ...]) -> str:
    """Return the shell command that starts a web server on each port, unless they run."""
    # httpd leaves its first process when it listens, and forks its first child for the first request.
    started = " && ".join(f"httpd -p {port} -h {_DOCUMENTS}" for port in ports)
    return f"{RUNNING} || {{ {started} && pidof httpd > {_PIDS}; }}"


class GuestWebServer(GuestServer):
    """busybox httpd in one virtual machine."""

    running_order = RUNNING
    stop_order = STOP

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, HttpService.kind, "the web server", ACCESS_LOG)

    @property
    def start_order(self) -> str:
        """See GuestServer."""
        return start_order(self.ports)
