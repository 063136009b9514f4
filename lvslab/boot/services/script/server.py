"""Servers that are the program `standalone`, on Mininet hosts and in virtual machines."""

from __future__ import annotations

import base64
import gzip
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services.base import HostServer, Server
from lvslab.boot.services.daemon import Daemon
from lvslab.boot.services.guest import GuestServer
from lvslab.boot.services.script import standalone

if TYPE_CHECKING:
    from lvslab.boot.vm.qemu import Machine


def program() -> str:
    """Return the program's text."""
    return Path(standalone.__file__).read_text(encoding="utf-8")


def access_log(kind: str) -> Path:
    """Return the log of the requests to a server of a ``kind``, on its node."""
    return Path(f"/var/log/{kind}/access.log")


class ScriptServer(Daemon, HostServer):
    """The program on one Mininet host, for all ports of one kind. Messages call it ``what``."""

    what: str
    guests_need_python: ClassVar[bool] = True

    def __init__(self, host: Host, place: Namespaces) -> None:
        HostServer.__init__(self, host, place)
        folder = Path(f"/run/lvslab/nodes/{host.name}")
        self._program = folder / f"{self.kind}.py"
        ports = [str(service.port) for service in host.services if service.kind == self.kind]
        # Python itself: where lvslab's environment is in /tmp, hosts do not see it.
        python = [os.path.realpath(sys.executable), "-I", "-S"]
        command = [*python, str(self._program), self.kind, host.name, str(self.log), *ports]
        what, messages = f"{self.what} on {host.name}", folder / f"{self.kind}.out"
        Daemon.__init__(self, what, place, command, messages, ())

    @classmethod
    def on_host(cls, host: Host, place: Namespaces, lab: Path) -> Iterator[Server]:
        """See HostServer."""
        yield cls(host, place)

    @classmethod
    def in_guest(cls, machine: Machine) -> Server:
        """See HostServer."""
        return GuestScript(machine, cls.service.kind, cls.what)

    def _start(self, deadline: float) -> None:
        if not self._written:
            self._program.write_text(program(), encoding="utf-8")
            self.log.parent.mkdir(exist_ok=True)
            self.log.write_bytes(b"")
            self._written = True
        super()._start(deadline)

    def _listens(self) -> bool:
        return standalone.READY.encode() in self.messages.read_bytes().splitlines()


class GuestScript(GuestServer):
    """The program in one virtual machine, for all ports of one kind."""

    def __init__(self, machine: Machine, kind: str, what: str) -> None:
        super().__init__(machine, kind, what, str(access_log(kind)))

    @property
    def running_order(self) -> str:
        """See GuestServer."""
        return f"{{ [ -e {self._pid} ] && kill -0 $(cat {self._pid}) 2> /dev/null; }}"

    @property
    def start_order(self) -> str:
        """See GuestServer. Waits at most 25 s: an emulated guest reads Python for the first time."""
        path, out, log = f"/run/{self.kind}.py", f"/run/{self.kind}.out", Path(self.log)
        ports = [str(port) for port in self.ports]
        command = ["python3", "-I", "-S", path, self.kind, self.machine.guest.name, self.log, *ports]
        # An order is one line, and an emulated serial port is slow.
        packed = base64.b64encode(gzip.compress(program().encode(), mtime=0)).decode()
        write = f"[ -e {path} ] || echo {packed} | base64 -d | gunzip > {path}"
        clear = f"rm -f {out}; mkdir -p {log.parent}"
        started = f"{shlex.join(command)} < /dev/null > {out} 2>&1 & echo $! > {self._pid}"
        # Without a file at first: that of an earlier start says that it listens.
        up = f"grep -qsx {standalone.READY} {out}"
        ended = f"{up} || ! {self.running_order} || [ $n -ge 500 ]"
        waiting = f"n=0; until {ended}; do n=$((n + 1)); busybox usleep 50000; done"
        done = f"{up} || {{ cat {out}; false; }}"
        return f"{self.running_order} || {{ {clear}; {write}; {started}; {waiting}; {done}; }}"

    @property
    def stop_order(self) -> str:
        """See GuestServer."""
        return f"! {self.running_order} || kill -9 $(cat {self._pid}); rm -f {self._pid}"

    @property
    def _pid(self) -> str:
        return f"/run/{self.kind}.pid"
