"""The process that a lab lives in and ends with.

``lab.up`` starts it as process 1 of new PID, network and mount namespaces. Process 1 only reaps orphans and
waits for its one child, the supervisor proper; when either ends, the kernel ends every process, interface
and mount of the lab. Until ``lab.up`` says "keep", its end is the end of the lab too.
"""

from __future__ import annotations

import base64
import logging
import os
import pickle
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lvslab.boot import control, events
from lvslab.boot.events import AcceleratorChosen, Failed, Logged, Ready
from lvslab.boot.net import packets
from lvslab.boot.net.node import MininetHost
from lvslab.boot.node import CONSOLE, COPY, NAMESPACES, SERVICE, Node
from lvslab.boot.plan import Guest, Plan
from lvslab.boot.status import LabStatus, Notes
from lvslab.boot.vm import accelerator
from lvslab.boot.vm.guests import Guests
from lvslab.errors import LvsLabError, MachineError, UsageError
from lvslab.run import run

if TYPE_CHECKING:
    from lvslab.boot.services.servers import NodeServers

_RUN = Path("/run/lvslab")


class Lifeline:
    """The stream to the command that started the lab. Its end ends the lab, unless that is kept."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lines = stream.makefile("rb")
        self._sending = threading.Lock()
        self._told_ready = False

    def receive_plan(self) -> tuple[socket.socket, Plan]:
        """Receive the socket that is the lab's name, and the plan.

        Raises EOFError, ConnectionError or UnpicklingError where the stream ends before both have come.
        """
        _, descriptors, _, _ = socket.recv_fds(self._stream, 1, 1)
        if not descriptors:
            raise EOFError
        listener = socket.socket(fileno=descriptors[0])
        listener.set_inheritable(False)
        plan = cast(Plan, pickle.load(self._lines))
        # What is printed from now on belongs to the evidence.
        with plan.messages.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        return listener, plan

    def tell(self, message: events.Message) -> None:
        """Send a message up; none after Ready, which is the last that is read.

        Where its reader has gone, ``watch`` ends the lab.
        """
        with suppress(OSError), self._sending:
            if not self._told_ready:
                self._told_ready = isinstance(message, Ready)
                self._stream.sendall(events.to_line(message))

    def fail(self, error: LvsLabError) -> int:
        """Send an error up, and return the status to exit with."""
        self.tell(Failed(control.error_to_json(error)))
        return error.exit_code

    def watch(self) -> None:
        """Start a thread that ends the lab when the stream ends before "keep" has come."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        said = b""
        # A starter that was killed with events unread resets the connection instead of closing it.
        with suppress(OSError):
            said = self._lines.readline()
        if said != b"keep\n":
            os._exit(0)


class _LogForwarder(logging.Handler):
    """Sends log messages to the command that started the lab, where a person reads them."""

    def __init__(self, lifeline: Lifeline) -> None:
        super().__init__()
        self._lifeline = lifeline

    def emit(self, record: logging.LogRecord) -> None:
        self._lifeline.tell(Logged(record.name, record.getMessage()))


class Supervisor(control.Handler):
    """The supervisor of one lab. It boots the lab, then handles requests until it is told to end."""

    def __init__(self, plan: Plan, lifeline: Lifeline) -> None:
        self._plan = plan
        self._lifeline = lifeline
        self._guests = Guests(plan, lifeline.tell)
        self._hosts = {host.name: MininetHost(host, plan.evidence) for host in plan.hosts}
        self._nodes: dict[str, Node] = {**self._guests.nodes, **self._hosts}
        self._notes: dict[str, Any] = {}
        self._accelerator_name = "none"
        self._ready = False
        self._asked_to_end = False
        self._ended = threading.Event()
        self._started = time.time()
        self._keeps_time = packets.keep_time()  # before the first capture

    def boot(self) -> None:
        """Boot the lab, its guests side by side with all the rest. Raises BootError, MachineError."""
        plan, begun = self._plan, time.monotonic()
        _keys(plan)
        if plan.guests:
            choice = self._accelerator(plan.guests[0])
            with self._phase("guests started"):
                self._guests.start(choice.accelerator)
        with self._phase("network"):
            from lvslab.boot.net import network  # only now, as Mininet takes a moment to import

            network.keep_quiet()
            built = network.build(plan)
            for name, host in self._hosts.items():
                host.place = built[name].namespaces
        with self._phase("services"):
            self._start_servers()
        if plan.guests:
            with self._phase("guests up"):
                self._guests.await_up()
                self._start_guests_servers()
        self._ready = True
        self._lifeline.tell(Ready(time.monotonic() - begun))

    def serve(self, listener: socket.socket) -> None:
        """Start to answer requests, each connection in a thread of its own."""
        threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True).start()

    def await_end(self) -> None:
        """Block until a request has asked for the lab's end."""
        self._ended.wait()

    def __call__(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        match request:
            case {"ask": "end"}:
                descriptors.append(os.pidfd_open(1))
                self._asked_to_end = True
            case {"ask": "status"}:
                return asdict(self._status())
            case {"ask": "record"}:
                return base64.b64encode(self._plan.record).decode()
            case {"ask": "features"}:
                return {name: sorted(node.features) for name, node in self._nodes.items()}
            case {"ask": "note", "notes": dict(notes)}:
                if not notes.keys() <= {field.name for field in fields(Notes)}:
                    raise UsageError("the supervisor does not know such notes", f"it was told {notes}")
                self._notes.update(notes)
            case {"ask": "console", "node": str(node)}:
                descriptors.append(self._node(node, CONSOLE).console().detach())
            case {"ask": "copy", "node": str(node)}:
                descriptors += self._node(node, COPY).copy()
            case {"ask": "connect", "node": str(node)}:
                descriptors.append(self._node(node).connect().detach())
            case {"ask": "observe", "node": str(node), "command": str(command), "seconds": seconds}:
                return asdict(self._node(node).observe(command, seconds))
            case {"ask": "namespaces", "node": str(node)}:
                place = self._node(node, NAMESPACES).namespaces()
                descriptors += [os.dup(place.network), os.dup(place.mounts)]
            case {"ask": "capture", "node": str(node), **how}:
                about, opened = self._node(node).capture(how["interface"], how["filter"], how["room"])
                descriptors += opened
                return about
            case {"ask": "stop node", "node": str(node)}:
                self._node(node).stop()
            case {"ask": "access log", "node": str(node), "kind": str(kind)}:
                descriptors.append(self._servers(node).access_log(kind))
            case {"ask": "service", "node": str(node), "action": "start"}:
                self._servers(node).start()
            case {"ask": "service", "node": str(node), "action": "stop"}:
                self._servers(node).stop()
            case _:
                raise UsageError(f"the supervisor does not know what to do with {request}")
        return None

    def answered(self) -> None:
        # Only now: the answer to "end" must have left before the lab does.
        if self._asked_to_end:
            self._ended.set()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=control.serve, args=(connection, self), name="request", daemon=True
            ).start()

    def _accelerator(self, guest: Guest) -> accelerator.Choice:
        choice = accelerator.known()
        if choice is None:
            with self._phase("KVM tried"):
                choice = accelerator.probe(guest)
        self._accelerator_name = choice.accelerator
        self._lifeline.tell(AcceleratorChosen(choice.accelerator, choice.reason, choice.expectation))
        return choice

    def _start_servers(self) -> None:
        from lvslab.boot.services import programs, servers

        programs.unpack(self._plan.servers)
        made = []
        for host in self._plan.hosts:
            if host.services:
                node = self._hosts[host.name]
                node.servers = servers.on_host(host, node.namespaces(), self._plan.folder)
                made.append(node.servers)
        servers.start(made)

    def _start_guests_servers(self) -> None:
        from lvslab.boot.services import servers

        for guest in self._plan.guests:
            if guest.services:
                node = self._guests.nodes[guest.name]
                node.servers = servers.in_guest(node.running())
                node.servers.start()

    def _status(self) -> LabStatus:
        plan = self._plan
        return LabStatus(
            lab=plan.lab,
            name=plan.name,
            folder=str(plan.folder),
            evidence=str(plan.evidence),
            started=self._started,
            ready=self._ready,
            nodes={name: self._nodes[name].status(about) for name, about in plan.nodes.items()},
            accelerator=self._accelerator_name,
            versions=plan.versions,
            spec=plan.spec,
            notes=Notes.read(self._notes),
        )

    def _node(self, name: str, feature: str = "") -> Node:
        """Return a node, which must have ``feature`` where one is given. Raises UsageError."""
        node = self._nodes.get(name)
        if node is None:
            known = f"its nodes: {', '.join(self._nodes)}"
            raise UsageError(f"the lab '{self._plan.name}' has no node '{name}'", known)
        if feature and not node.has(feature):
            able = ", ".join(each.name for each in self._nodes.values() if each.has(feature)) or "none"
            if feature == NAMESPACES:
                message = f"{name} is a virtual machine, and lvslab makes requests on Mininet hosts"
                hint = f"hosts of this lab: {able}; type commands on {name}, or give it no kernel of its own"
                raise UsageError(message, hint)
            raise UsageError(f"{name} has no {feature}", f"nodes of this lab that have: {able}")
        return node

    def _servers(self, node: str) -> NodeServers:
        servers = self._node(node, SERVICE).servers
        assert servers is not None
        return servers

    def _phase(self, name: str) -> AbstractContextManager[None]:
        return events.phase(name, self._lifeline.tell)


def _mounts() -> None:
    """Mount a /run, a /proc and a /sys of the lab's own."""
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "lvslab", "/run"])
    run(["mount", "-t", "proc", "proc", "/proc"])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    (_RUN / "nodes").mkdir(parents=True)
    Path("/run/lock").mkdir()


def _keys(plan: Plan) -> None:
    """Write the keys of Mininet hosts' SSH servers: their own, and the one that may log in."""
    (_RUN / "host_key").write_bytes(plan.host_key)
    (_RUN / "authorized_keys").write_text(plan.client_key + "\n")


def main() -> int:
    """Run ``python -m lvslab.boot.supervisor DESCRIPTOR``; the descriptor is of the lifeline's stream."""
    stream = socket.socket(fileno=int(sys.argv[1]))
    stream.set_inheritable(False)
    if (child := os.fork()) != 0:
        stream.close()
        return _reap(child)
    lifeline = Lifeline(stream)
    try:
        _mounts()  # while the plan is on its way
        listener, plan = lifeline.receive_plan()
    except LvsLabError as error:
        return lifeline.fail(error)
    except (EOFError, ConnectionError, pickle.UnpicklingError):
        return 0  # lab.up has ended without one
    if os.environ.get("LVSLAB_DEBUG"):
        logging.getLogger("lvslab").setLevel(logging.DEBUG)
        logging.getLogger("lvslab").addHandler(_LogForwarder(lifeline))
    lifeline.watch()
    supervisor = Supervisor(plan, lifeline)
    try:
        supervisor.serve(listener)
        supervisor.boot()
    except LvsLabError as error:
        return lifeline.fail(error)
    except ImportError as missing:
        return lifeline.fail(MachineError(f"a Python package is missing: {missing}"))
    supervisor.await_end()
    return 0


def _reap(child: int) -> int:
    """Reap orphans as process 1, until the supervisor ends; return its exit status."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    status = main()
    # Not through the interpreter's own end, which would wait for threads that never end.
    os._exit(status)
