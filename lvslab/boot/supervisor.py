"""The process that a lab lives in and dies with.

``lab.up`` starts it as process 1 of new PID, network and mount namespaces. Process 1 only reaps orphans
and waits for its one child, the supervisor proper; when either ends, however it ends, the kernel ends
every process, interface and mount of the lab. Until ``lab.up`` says "keep", the end of ``lab.up`` is the
end of the lab too.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from lvslab.boot import control, events
from lvslab.boot.events import AcceleratorChosen, Failed, Logged, PhaseBegun, PhaseEnded, Ready
from lvslab.boot.net import packets
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Guest, Plan
from lvslab.boot.relay import at_arms_length
from lvslab.boot.vm import accelerator, clone, start
from lvslab.boot.vm.guests import Guests
from lvslab.boot.vm.qemu import PULSE, Machine
from lvslab.errors import BootError, LvsLabError, MachineError, StateError, UsageError
from lvslab.run import STDOUT, run, spawn

_RUN = Path("/run/lvslab")


class Lifeline:
    """The stream to the command that started the lab: events go up, and its end ends the lab unless kept."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lines = stream.makefile("rb")
        self._telling = threading.Lock()

    def orders(self) -> tuple[socket.socket, Plan]:
        """The socket that is the lab's name, and what to boot: what comes down first. Where nothing does,
        raises EOFError, ConnectionError or UnpicklingError."""
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
        """Send a message up. Where its reader has gone, ``watch`` ends the lab."""
        with suppress(OSError), self._telling:
            self._stream.sendall(events.to_line(message))

    def tell_of(self, error: LvsLabError) -> int:
        """Send an error up; the status to end with."""
        self.tell(Failed(control.told(error)))
        return error.exit_code

    def watch(self) -> None:
        """End the lab when the other side goes without having said "keep"."""
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def _watch(self) -> None:
        said = b""
        # A starter that was killed with events unread resets the connection instead of closing it.
        with suppress(OSError):
            said = self._lines.readline()
        if said != b"keep\n":
            os._exit(0)


class _Told(logging.Handler):
    """Sends what is logged here to the command that started the lab, where a person reads it."""

    def __init__(self, lifeline: Lifeline) -> None:
        super().__init__()
        self._lifeline = lifeline

    def emit(self, record: logging.LogRecord) -> None:
        self._lifeline.tell(Logged(record.name, record.getMessage()))


class Supervisor(control.Answer):
    """One lab: boots it, then answers requests until it is told to end."""

    def __init__(self, plan: Plan, lifeline: Lifeline) -> None:
        self._plan = plan
        self._lifeline = lifeline
        self._guests = Guests(
            plan.guests,
            plan.evidence,
            cold=plan.cold,
            tell=lifeline.tell,
            copyable=plan.copyable,
            copies=plan.copies,
        )
        self._hosts: dict[str, Namespaces] = {}
        self._servers: dict[str, Any] = {}
        self._notes: dict[str, Any] = {}
        self._accelerator_name = "none"
        self._ready = False
        self._asked_to_end = False
        self._ended = threading.Event()
        self._started = time.time()
        self._keeps_time = packets.keep_time()  # before anybody captures

    def boot(self) -> None:
        """Bring the lab up, the guests beside all the rest. Raises BootError, MachineError."""
        # Mininet takes a moment to import, and so waits until the guests are on their way.
        plan, begun = self._plan, time.monotonic()
        _keys(plan)
        if plan.guests:
            choice = self._accelerator(plan.guests)
            with self._phase("guests started"):
                self._guests.start(choice.accelerator)
        with self._phase("network"):
            from lvslab.boot.net import network

            network.keep_quiet()
            built = network.build(plan)
            self._hosts = {host.name: built[host.name].namespaces for host in plan.hosts}
        with self._phase("services"):
            self._start_servers()
        if plan.guests:
            with self._phase("guests up"):
                self._guests.await_up()
                self._start_guests_servers()
        self._ready = True
        self._lifeline.tell(Ready(time.monotonic() - begun))

    def serve(self, listener: socket.socket) -> None:
        """Answer requests, each connection in a thread of its own, until ``await_end`` returns."""
        threading.Thread(target=self._accept, args=(listener,), name="control", daemon=True).start()

    def await_end(self) -> None:
        """Return when somebody asked for the lab's end."""
        self._ended.wait()

    def __call__(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        match request:
            case {"ask": "end"}:
                descriptors.append(os.pidfd_open(1))
                self._asked_to_end = True
                return None
            case {"ask": "status"}:
                return self._status()
            case {"ask": "record"}:
                return base64.b64encode(self._plan.record).decode()
            case {"ask": "note", "notes": dict(notes)}:
                self._notes.update(notes)
                return None
            case {"ask": "console", "node": str(node)}:
                descriptors.append(self._machine(node).console.attach().detach())
                return None
            case {"ask": "copy", "node": str(node)} if self._plan.copyable:
                machine = self._machine(node)
                descriptors += clone.take(machine, start.memory_of(machine.guest))
                return None
            case {"ask": "connect", "node": str(node)}:
                descriptors.append(self._connect(node).detach())
                return None
            case {"ask": "observe", "node": str(node), "command": str(command), "seconds": seconds}:
                return self._observe(node, command, seconds)
            case {"ask": "namespace", "node": str(node)}:
                descriptors.append(os.dup(self._host(node).network))
                return None
            case {"ask": "namespaces", "node": str(node)}:
                host = self._host(node)
                descriptors += [os.dup(host.network), os.dup(host.mounts)]
                return None
            case {"ask": "capture", "node": str(node), **how}:
                if node not in self._guests.names:
                    self._host(node)  # or there is no such node, or not yet
                about, opened = packets.open_all(
                    self._plan, self._hosts, node, how["interface"], how["filter"], how["room"]
                )
                descriptors += opened
                return about
            case {"ask": "stop node", "node": str(node)}:
                return self._stop_node(node)
            case {"ask": "access log", "node": str(node), "kind": str(kind)}:
                descriptors.append(self._server(node).access_log(kind))
                return None
            case {"ask": "service", "node": str(node), "action": "start"}:
                return self._server(node).start()
            case {"ask": "service", "node": str(node), "action": "stop"}:
                return self._server(node).stop()
        raise UsageError(f"the supervisor does not know what to do with {request}")

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

    def _accelerator(self, guests: tuple[Guest, ...]) -> accelerator.Choice:
        choice = accelerator.known()
        if choice is None:
            with self._phase("KVM tried"):
                choice = accelerator.probe(guests[0])
        self._accelerator_name = choice.accelerator
        self._lifeline.tell(AcceleratorChosen(choice.accelerator, choice.reason, choice.expectation))
        return choice

    def _start_servers(self) -> None:
        from lvslab.boot.services import programs, servers

        programs.unpack(self._plan.servers)
        self._servers = {
            host.name: servers.of(host, self._hosts[host.name]) for host in self._plan.hosts if host.services
        }
        servers.start(self._servers.values())

    def _start_guests_servers(self) -> None:
        from lvslab.boot.services.http_in_guest import GuestWebServer

        for guest in self._plan.guests:
            if guest.services:
                self._servers[guest.name] = GuestWebServer(self._machine(guest.name), guest.services)
                self._servers[guest.name].start()

    def _status(self) -> dict[str, Any]:
        nodes = {name: {"kind": "guest", **found} for name, found in self._guests.status().items()}
        for name in (host.name for host in self._plan.hosts):
            nodes[name] = {"kind": "host", "state": "up" if name in self._hosts else "booting"}
        for name, server in list(self._servers.items()):
            try:
                nodes[name]["service"] = "up" if server.running else "stopped"
            except BootError:
                nodes[name]["service"] = "unknown"  # of a guest that does not answer
        return {
            "lab": self._plan.lab,
            "name": self._plan.name,
            "folder": str(self._plan.folder),
            "evidence": str(self._plan.evidence),
            "started": self._started,
            "ready": self._ready,
            "nodes": {name: {**nodes[name], **about} for name, about in self._plan.nodes.items()},
            "accelerator": self._accelerator_name,
            "versions": dict(self._plan.versions),
            **self._plan.spec.notes,
            **self._notes,
        }

    def _connect(self, node: str) -> socket.socket:
        """A stream on which the node's SSH server speaks, over none of the lab's networks."""
        if node in self._guests.names:
            machine = self._machine(node)
            if (what := machine.trouble) is not None:
                raise machine.failure("running", what)
            try:
                far = socket.create_connection(machine.guest.management.server, timeout=10)
            except OSError as refused:
                if (what := machine.trouble) is not None:  # it began to hang just now
                    raise machine.failure("running", what) from None
                raise BootError(f"{node} does not accept SSH connections: {refused}") from None
            return at_arms_length(far, PULSE)
        server = _shell_server(node, self._host(node).entrance)
        ours, theirs = socket.socketpair()
        with ours, (self._plan.evidence / f"ssh-{node}.log").open("ab") as messages:
            end = ours.fileno()
            with spawn(server, stdin=end, stdout=end, stderr=messages, outlives=True):
                pass
        return theirs

    def _observe(self, node: str, command: str, seconds: float | None) -> dict[str, Any]:
        """What a command prints on a node, and its status, without a login: see ``Control.observe``."""
        if node in self._guests.names:
            machine = self._machine(node)
            done = machine.observe(command) if seconds is None else machine.glance(command, seconds)
            return {"status": done.status, "output": "".join(f"{line}\n" for line in done.lines)}
        entered = [*self._host(node).entrance, "sh", "-c", command]
        ended = run(entered, stderr=STDOUT, check=False)
        return {"status": ended.returncode, "output": ended.stdout.decode(errors="replace")}

    def _stop_node(self, node: str) -> None:
        """End a virtual machine, or take all cards of a Mininet host down."""
        if node in self._guests.names:
            self._machine(node).power_off()
            return
        from lvslab.boot.net.taps import ip_batch

        there = self._host(node)
        cards = next(host.cards for host in self._plan.hosts if host.name == node)
        there.call(ip_batch, [f"link set {card.name} down" for card in cards])

    def _machine(self, node: str) -> Machine:
        if node not in self._guests.names:
            raise self._no_such("virtual machine with a serial console", node, self._guests.names)
        machine = self._guests.get(node)
        if machine is None:
            raise StateError(f"{node} is just coming up", "wait for lab.up to end")
        if (how := machine.ended) is not None:
            raise machine.failure("running", how)
        return machine

    def _host(self, node: str) -> Namespaces:
        if node not in self._hosts:
            raise self._no_such("Mininet host", node, list(self._hosts))
        return self._hosts[node]

    def _server(self, node: str) -> Any:
        if node not in self._servers:
            raise self._no_such("node with a service", node, list(self._servers))
        return self._servers[node]

    def _no_such(self, what: str, node: str, known: list[str]) -> LvsLabError:
        everything = [*self._guests.names, *(host.name for host in self._plan.hosts)]
        if node in everything:
            return UsageError(f"{node} is no {what}", f"those of this lab: {', '.join(known) or 'none'}")
        return UsageError(
            f"the lab '{self._plan.name}' has no node '{node}'", f"its nodes: {', '.join(everything)}"
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self._lifeline.tell(PhaseBegun(name))
        yield
        self._lifeline.tell(PhaseEnded(name, time.monotonic() - begun))


def _shell_server(node: str, entrance: list[str]) -> list[str]:
    """The SSH server for one connection to a Mininet host, inside its namespaces and under its name."""
    begin = 'hostname "$1"; export HOME=/root; cd /root; exec dropbear -i -s -j -k -r /run/lvslab/host_key'
    return [*entrance, "unshare", "--uts", "--", "sh", "-c", begin, "sh", node]


def _mounts() -> None:
    """A /run, a /proc and a /sys of the lab's own, in its mount namespace."""
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "lvslab", "/run"])
    run(["mount", "-t", "proc", "proc", "/proc"])
    run(["mount", "-t", "sysfs", "sysfs", "/sys"])
    (_RUN / "nodes").mkdir(parents=True)
    Path("/run/lock").mkdir()


def _keys(plan: Plan) -> None:
    """What the SSH servers of Mininet hosts need: the host key, and whom to let in."""
    (_RUN / "host_key").write_bytes(plan.host_key)
    (_RUN / "authorized_keys").write_text(plan.client_key + "\n")


def main() -> int:
    """``python -m lvslab.boot.supervisor LIFELINE``: a descriptor that was handed down."""
    stream = socket.socket(fileno=int(sys.argv[1]))
    stream.set_inheritable(False)
    if (child := os.fork()) != 0:
        stream.close()
        return _reap(child)
    lifeline = Lifeline(stream)
    try:
        _mounts()  # while the plan is on its way
        listener, plan = lifeline.orders()
    except LvsLabError as error:
        return lifeline.tell_of(error)
    except (EOFError, ConnectionError, pickle.UnpicklingError):
        return 0  # lab.up has ended without one
    if os.environ.get("LVSLAB_DEBUG"):
        logging.getLogger("lvslab").setLevel(logging.DEBUG)
        logging.getLogger("lvslab").addHandler(_Told(lifeline))
    lifeline.watch()
    supervisor = Supervisor(plan, lifeline)
    try:
        supervisor.serve(listener)
        supervisor.boot()
    except LvsLabError as error:
        return lifeline.tell_of(error)
    except ImportError as missing:
        return lifeline.tell_of(MachineError(f"a Python package is missing: {missing}"))
    supervisor.await_end()
    return 0


def _reap(child: int) -> int:
    """Process 1's whole life: collect whoever ends, until the supervisor does."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    status = main()
    # Not through the interpreter's own end, which would wait for threads that wait for ever.
    os._exit(status)
