"""A running lab: booted here, or found by its name."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lvslab.apply import clones as applied
from lvslab.apply import runner
from lvslab.apply.clones import Applied
from lvslab.apply.howto import Step
from lvslab.apply.ssh import Connection, Executed
from lvslab.apply.transcript import StepRecord, Transcript
from lvslab.boot import control
from lvslab.boot.events import GuestUp, Listener, ignore, phase
from lvslab.boot.launch import Launch
from lvslab.boot.net import packets
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.node import NAMESPACES
from lvslab.boot.status import LabStatus, Notes, Summary
from lvslab.closing import Closing
from lvslab.cluster import folder as lab_folder
from lvslab.cluster import registry
from lvslab.cluster.record import Record, held
from lvslab.errors import LvsLabError, StateError
from lvslab.guest import calls, keys
from lvslab.lab.directors import USUAL, DirectorSpec
from lvslab.lab.model import Lab

if TYPE_CHECKING:
    from lvslab.boot.plan import Guest

TRANSCRIPT = "transcript.jsonl"

# Ends when dropbear has no sessions (children) any more, or after some seconds: a step may have made one.
_NO_LOGIN = (
    "(read -r server < /run/dropbear.pid; n=0; while [ $n -lt 200 ] &&"
    ' busybox grep -q "^PPid:[^0-9]*$server$" /proc/[0-9]*/status;'
    " do n=$((n + 1)); busybox usleep 20000; done) 2> /dev/null; :"
)


class Cluster(Closing):
    """A running lab, reached through its supervisor. Connections are made when needed and kept.

    ``lab``, ``steps``, ``evidence``, ``versions`` and ``spec`` are those of the ``record`` of its boot.
    ``applied`` are the copies that its directors began with, None where they were booted; ``copyable`` are
    the guests that ``copy`` can copy. ``stays`` tells if the lab is to outlive this process.
    """

    applied: Applied | None = None
    copyable: tuple[Guest, ...] = ()
    stays = False

    def __init__(self, name: str, record: Record, launch: Launch | None = None) -> None:
        self.name = name
        self.record = record
        self.lab = record.lab
        self.steps = record.steps
        self.evidence = record.evidence
        self.versions = record.versions
        self.spec = record.spec
        self._control = control.Control(name)
        self._workers = ThreadPoolExecutor(thread_name_prefix=f"logins of {name}")
        self._connecting = threading.Lock()
        self._connections: dict[str, Future[Connection]] = {}
        self._launch = launch
        self.stays = launch is None

    def is_enterable(self, node: str) -> bool:
        """Return whether this process can enter the node's namespaces, as those of a Mininet host."""
        return NAMESPACES in self._features[node]

    @cached_property
    def _features(self) -> Mapping[str, Collection[str]]:
        found, _ = self._control.ask("features")
        return dict(found)

    def close(self) -> None:
        """Close all connections. The lab runs on, if this process has not booted it, or keeps it."""
        self._workers.shutdown(cancel_futures=True)
        self._hang_up()
        self._control.close()

    def _hang_up(self) -> None:
        for coming in self._connections.values():
            if not coming.cancelled() and coming.exception() is None:
                coming.result().close()
        self._connections.clear()

    def keep(self) -> None:
        """Let a lab that this process booted outlive the process."""
        if self._launch is not None:
            self._launch.keep()

    def end(self) -> None:
        """End the lab, and return when nothing of it is left."""
        self._control.end()

    def status(self) -> LabStatus:
        """Return what the supervisor knows: nodes and their states, and what was noted with ``note``."""
        return registry.status_of(self._control)

    def note(self, notes: Notes) -> None:
        """Make the supervisor remember ``notes`` for ``status``. Those that are None stay as they were."""
        self._control.ask("note", notes=notes.as_json())

    def connect(self, node: str) -> Connection:
        """Return the one SSH connection to ``node``, over none of the lab's networks."""
        coming = self.connect_later(node)
        try:
            return coming.result()
        except BaseException:
            self._connections.pop(node, None)
            raise

    def connect_later(self, node: str) -> Future[Connection]:
        """Begin to make the connection that ``connect`` returns."""
        with self._connecting:
            if node not in self._connections:
                self._connections[node] = self._workers.submit(self._open, node)
            return self._connections[node]

    def _open(self, node: str) -> Connection:
        return Connection.open(
            self.stream(node), key=keys.client_key(), host_key=keys.host_public_key(), node=node
        )

    def stream(self, node: str) -> socket.socket:
        """Open a new stream on which the SSH server of ``node`` speaks."""
        _, (descriptor,) = self._control.ask("connect", node=node)
        return socket.socket(fileno=descriptor)

    def console(self, node: str) -> socket.socket:
        """Open a stream that is connected with the serial console of the virtual machine ``node``."""
        _, (descriptor,) = self._control.ask("console", node=node)
        return socket.socket(fileno=descriptor)

    def namespaces(self, node: str) -> Namespaces:
        """Open the namespaces of the Mininet host ``node``. The caller closes them."""
        _, (network, mounts) = self._control.ask("namespaces", node=node)
        return Namespaces(network, mounts)

    def stop_node(self, node: str) -> None:
        """Make ``node`` fail for good.

        A virtual machine fails as if its power had failed, a Mininet host as if its cables had been pulled.
        """
        self._control.ask("stop node", node=node)

    def execute(self, node: str, command: str, *, timeout: float | None = 30.0) -> Executed:
        return self.connect(node).execute(command, timeout=timeout)

    def observe(self, node: str, command: str) -> str:
        """Return what ``command`` prints on ``node``, without a login; see `control.Control.observe`."""
        return self._control.observe(node, command)

    def capture(self, node: str, *, room: int, first: int = 0) -> list[packets.Interface]:
        """Return the interfaces of ``node``, whose packets are captured from now on; see `packets`."""
        return packets.listen(self._control, node, room=room, first=first)

    def access_log(self, node: str, kind: str = "http") -> str:
        """Return the request log of the server on ``node`` whose service is of ``kind``."""
        _, (descriptor,) = self._control.ask("access log", node=node, kind=kind)
        with os.fdopen(descriptor) as log:
            return log.read()

    def stop_service(self, node: str) -> None:
        """Stop the servers on ``node``, and return when they are gone."""
        self._control.ask("service", node=node, action="stop")

    def start_service(self, node: str) -> None:
        """Start the servers on ``node``, and return when they listen."""
        self._control.ask("service", node=node, action="start")

    def apply(
        self, report: Callable[[StepRecord], None] = ignore, *, without: Sequence[str] = ()
    ) -> Summary:
        """Type the how-to's steps, except commands that contain a text of ``without``.

        Raises StepFailed at the first step that does not end as the how-to says.
        """
        steps = [step for step in self.steps if not any(text in step.command for text in without)]
        option = "" if self.name == self.lab.name else f" --name {self.name}"
        with Transcript(self.evidence / TRANSCRIPT) as transcript:
            try:
                summary = runner.apply_steps(
                    steps,
                    lambda node: self.connect(node).shell(),
                    transcript,
                    self.versions,
                    report,
                    option if self.stays else None,
                )
            except runner.UnexpectedEnd as stopped:
                self.note(Notes(steps=stopped.summary))
                raise
            finally:
                for node in self.lab.directors:
                    with contextlib.suppress(LvsLabError):  # the steps may have taken it down
                        self.observe(node, calls.END_STEPS)
        self.note(Notes(steps=summary))
        return summary

    def copy(self, summary: Summary) -> Applied:
        """Copy the directors as they are now, with no login on them.

        ``summary`` is of the steps that were typed. Raises MachineError where QEMU or this machine does not
        allow it; the lab is as it was then.
        """
        self._hang_up()
        copies: dict[str, tuple[int, int]] = {}
        try:
            for guest in self.copyable:
                self.observe(guest.name, _NO_LOGIN)
                _, (memory, state) = self._control.ask("copy", node=guest.name)
                copies[guest.name] = memory, state
        except BaseException:
            applied.close(copies)
            raise
        transcript = (self.evidence / TRANSCRIPT).read_bytes()
        return Applied(self.copyable, self.steps, copies, self.evidence, transcript, summary)


@contextlib.contextmanager
def booted(
    folder: Path,
    *,
    name: str,
    spec: DirectorSpec = USUAL,
    cold: bool = False,
    report: Listener = ignore,
    copyable: bool = False,
    begin_with: Applied | None = None,
    lab: Lab | None = None,
    steps: tuple[Step, ...] | None = None,
    evidence: Path | None = None,
    connect: bool = True,
) -> Iterator[Cluster]:
    """Boot the lab of ``folder`` as ``name`` for the block, unless it is kept.

    ``spec`` is what its directors are to be, instead of what lab.yaml says. ``cold`` boots virtual machines
    without memory snapshots. With ``copyable`` they can be copied, if the how-to is typed on nothing else.
    Such copies are given as ``begin_with``, and the lab begins with the how-to applied; copies of another
    kernel or how-to are not used. ``lab`` and ``steps`` take the place of the folder's lab.yaml and
    howto.md. ``evidence`` is a folder for its evidence, None for a new one. ``connect`` begins the logins
    for the how-to as soon as its nodes are up. ``report`` is called for each event.

    Raises LabFileError, UsageError, StateError, MachineError, BuildError, BootError.
    """
    lab = lab or lab_folder.lab(folder)
    if steps is None:
        steps = lab_folder.steps(folder, lab)
    registry.check_name(name)
    registry.need_root()
    copies = {} if begin_with is None else begin_with.copies
    with control.reserve(name) as listener, Launch(name, listener, copies) as launch:
        with phase("prepare", report):
            # Only now, while the supervisor, which has been started, imports things of its own.
            from lvslab.cluster import prepare

            planned = prepare.plan_of(lab, name, spec, cold=cold, evidence=evidence)
            record = Record(lab, steps, planned.evidence, planned.versions, spec)
            planned = replace(planned, record=record.packed())
        typed_on = {step.node for step in steps}
        if begin_with is not None and begin_with.fits(planned.guests, steps):
            planned, typed_on = replace(planned, copies=begin_with.copies), set()
        elif copyable and planned.guests and typed_on <= lab.directors.keys():
            planned = replace(planned, copyable=True)
        launch.boot(planned)
        events = launch.events()
        report(next(events))  # a supervisor that tells of events takes requests too
        try:
            made = Cluster(name, record, launch)
        except StateError:
            for event in events:  # the lab has ended already; this says why
                report(event)
            raise
        with made as cluster:
            for event in events:
                report(event)
                if connect and isinstance(event, GuestUp) and event.node in typed_on:
                    cluster.connect_later(event.node)  # while the rest of the lab is on its way
            if planned.copyable:
                cluster.copyable = planned.guests
            elif planned.copies and begin_with is not None:
                cluster.applied = begin_with
                begin_with.record(planned.evidence / TRANSCRIPT)
                cluster.note(begin_with.notes)
            yield cluster


def attach(name: str) -> Cluster:
    """Return the running lab ``name``, as it was booted. Raises MachineError, UsageError, StateError."""
    with registry.talk_to(name) as conversation:
        return Cluster(name, held(conversation))
