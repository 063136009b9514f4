"""A lab that runs: booted here, or found by its name; and what can be done with it.

This stands below the check wing, whose fixtures use it, and above build, boot and apply, which it puts
together.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from lvslab import paths, spec
from lvslab.apply import howto, runner
from lvslab.apply.howto import Step
from lvslab.apply.ssh import Connection, Executed
from lvslab.apply.transcript import Entry, Transcript
from lvslab.boot import control, plan
from lvslab.boot.launch import Launch
from lvslab.build import image, kernel, keys, servers
from lvslab.errors import CheckFailed, LabFileError, MachineError, StateError, UsageError
from lvslab.spec import Lab

TRANSCRIPT = "transcript.jsonl"
KEPT_RUNS = 20
"""So many runs' evidence is kept; that of older ones is deleted, except where the lab is still up."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

Event = Mapping[str, Any]
Listener = Callable[[Event], None]


def nobody(_: Any) -> None:
    """A listener that does not listen."""


class Cluster:
    """A running lab, spoken to through its supervisor. Connections are made when needed and kept.

    ``versions`` are those of the director's programs and kernel; ``kernel_name`` is the kernel that took the
    place of the one in lab.yaml, None where none did.
    """

    def __init__(
        self,
        name: str,
        lab: Lab,
        steps: tuple[Step, ...],
        evidence: Path,
        versions: Mapping[str, str],
        kernel_name: str | None,
        launch: Launch | None = None,
    ) -> None:
        self.name = name
        self.lab = lab
        self.steps = steps
        self.evidence = evidence
        self.versions = versions
        self.kernel_name = kernel_name
        self._control = control.Control(name)
        self._workers = ThreadPoolExecutor(thread_name_prefix=f"logins of {name}")
        self._connecting = threading.Lock()
        self._connections: dict[str, Future[Connection]] = {}
        self._launch = launch

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lab; it runs on, unless this process booted it and has not called ``keep``."""
        self._workers.shutdown(cancel_futures=True)
        for coming in self._connections.values():
            if not coming.cancelled() and coming.exception() is None:
                coming.result().close()
        self._connections.clear()
        self._control.__exit__(None, None, None)

    def keep(self) -> None:
        """Let a lab that this process booted run on when the process ends."""
        if self._launch is not None:
            self._launch.keep()

    def end(self) -> None:
        """End the lab, and return when nothing of it is left."""
        self._control.end()

    def status(self) -> dict[str, Any]:
        """What the supervisor knows: nodes and their states, and what was noted with ``note``."""
        answer, _ = self._control.ask("status")
        return dict(answer)

    def note(self, **notes: Any) -> None:
        """Have the supervisor remember ``notes`` (JSON), for ``status``."""
        self._control.ask("note", notes=notes)

    def connect(self, node: str) -> Connection:
        """An SSH connection to ``node`` over none of the lab's networks, the same one every time."""
        coming = self.expect(node)
        try:
            return coming.result()
        except BaseException:
            self._connections.pop(node, None)
            raise

    def expect(self, node: str) -> Future[Connection]:
        """The connection that ``connect`` is going to return, begun with now."""
        with self._connecting:
            if node not in self._connections:
                self._connections[node] = self._workers.submit(self._open, node)
            return self._connections[node]

    def _open(self, node: str) -> Connection:
        return Connection.open(
            self.stream(node), key=keys.client_key(), host_key=keys.host_public_key(), node=node
        )

    def stream(self, node: str) -> socket.socket:
        """A new stream on which the SSH server of ``node`` speaks."""
        _, (descriptor,) = self._control.ask("connect", node=node)
        return socket.socket(fileno=descriptor)

    def console(self, node: str) -> socket.socket:
        """A stream that is connected with the serial console of the virtual machine ``node``."""
        _, (descriptor,) = self._control.ask("console", node=node)
        return socket.socket(fileno=descriptor)

    def namespace(self, node: str) -> int:
        """An open descriptor of the network namespace of the Mininet host ``node``; the caller closes it."""
        _, (descriptor,) = self._control.ask("namespace", node=node)
        return int(descriptor)

    def execute(self, node: str, command: str, *, timeout: float | None = 30.0) -> Executed:
        """Run ``command`` on ``node``."""
        return self.connect(node).execute(command, timeout=timeout)

    def observe(self, node: str, command: str) -> str:
        """What ``command`` (one whole line of shell) prints on ``node``, as lvslab itself looks at it.

        No login: for a virtual machine its agent is asked, which costs a tenth of a command over SSH and
        works whatever the lab's steps have done to the node's network. Raises CheckFailed where it does
        not end with status 0.
        """
        answer, _ = self._control.ask("observe", node=node, command=command)
        output = str(answer["output"])
        if answer["status"] != 0:
            said = output.strip() or None
            raise CheckFailed(f"on {node}, `{command}` ended with status {answer['status']}", said)
        return output

    def access_log(self, node: str) -> str:
        """The access log of the web server on ``node``."""
        _, (descriptor,) = self._control.ask("access log", node=node)
        with os.fdopen(descriptor) as log:
            return log.read()

    def stop_service(self, node: str) -> None:
        """Stop the servers on ``node``, and return when they are gone."""
        self._control.ask("service", node=node, action="stop")

    def start_service(self, node: str) -> None:
        """Start the servers on ``node``, and return when they listen."""
        self._control.ask("service", node=node, action="start")

    def apply(
        self, report: Callable[[Entry], None] = nobody, *, without: Sequence[str] = ()
    ) -> runner.Summary:
        """Type the how-to's steps, each on its node; leave out those whose command holds a text of
        ``without``.

        Raises StepFailed at the first step that does not end as the how-to says.
        """
        steps = [step for step in self.steps if not any(text in step.command for text in without)]
        with Transcript(self.evidence / TRANSCRIPT) as transcript:
            try:
                summary = runner.apply_steps(
                    steps,
                    lambda node: self.connect(node).shell(),
                    transcript,
                    self.versions,
                    report,
                    "" if self.name == self.lab.name else f" --name {self.name}",
                )
            except runner.UnexpectedEnd as stopped:
                self.note(steps=asdict(stopped.summary))
                raise
        self.note(steps=asdict(summary))
        return summary


@contextlib.contextmanager
def booted(
    folder: Path, *, name: str, kernel_name: str | None = None, cold: bool = False, report: Listener = nobody
) -> Iterator[Cluster]:
    """Boot the lab of ``folder`` as ``name``. It ends with the block, or with this process, unless it is
    kept.

    ``kernel_name`` takes the place of the directors' kernel in lab.yaml; ``cold`` boots it even where a
    memory snapshot could be resumed. ``report`` hears of phases: ``{"event": "begins" | "phase" |
    "accelerator" | "ready", ...}``, seconds in ``seconds``. Raises LabFileError, UsageError, StateError,
    MachineError, BuildError, BootError.
    """
    lab = spec.load(folder)
    steps = howto.load(folder / howto.HOWTO_FILE, lab.nodes.keys())
    check_name(name)
    need_root()
    if kernel_name is not None and Path(kernel_name).is_file():
        kernel_name = str(Path(kernel_name).resolve())
    with control.reserve(name) as listener:
        begun = time.monotonic()
        report({"event": "begins", "phase": "prepare"})
        planned, versions = _plan(lab, name, kernel_name, cold)
        report({"event": "phase", "phase": "prepare", "seconds": time.monotonic() - begun})
        reach = partial(Cluster, name, lab, steps, planned.evidence, versions, kernel_name)
        with Launch(planned, listener) as launch, _reached(launch, reach) as cluster:
            typed_on = {step.node for step in steps}
            for event in launch.events():
                report(event)
                if event["event"] == "guest" and event["node"] in typed_on:
                    cluster.expect(event["node"])  # while the rest of the lab is on its way
            cluster.note(versions=dict(versions), kernel_name=kernel_name)
            yield cluster


def _reached(launch: Launch, reach: Callable[[Launch], Cluster]) -> Cluster:
    """The lab that is on its way up. Raises BootError where it has ended already."""
    try:
        return reach(launch)
    except StateError:
        for _ in launch.events():  # says why
            pass
        raise


def attach(name: str) -> Cluster:
    """The lab that is up as ``name``. Raises StateError where none is."""
    need_root()
    with control.Control(check_name(name)) as conversation:
        status, _ = conversation.ask("status")
    folder = Path(status["folder"])
    lab = spec.load(folder)
    steps = howto.load(folder / howto.HOWTO_FILE, lab.nodes.keys())
    evidence, versions = Path(status["evidence"]), status.get("versions", {})
    return Cluster(name, lab, steps, evidence, versions, status.get("kernel_name"))


def check_name(name: str) -> str:
    """``name`` itself, where it can be a lab's name. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a lab's name",
            "a name has lower-case letters, digits and hyphens, at most 32",
        )
    return name


def need_root() -> None:
    """Raise MachineError where this process is not root's."""
    if os.geteuid() != 0:
        raise MachineError("labs need root: they make namespaces, bridges and taps", "sudo ./run ...")


def _plan(lab: Lab, name: str, kernel_name: str | None, cold: bool) -> tuple[plan.Plan, Mapping[str, str]]:
    """Fetch and make all that the lab needs, and say how to boot it."""
    bootables, versions = {}, {}
    for director, node in lab.directors.items():
        found = _kernel(lab, director, kernel_name or node.kernel or "", kernel_name is None)
        built = image.build(found)
        bootables[director] = plan.Bootable(
            found.image, found.release, built.path, f"{found.sha256} {built.key}"
        )
        versions = {**built.versions}
    hosts = plan.hosts_of(lab)
    planned = plan.Plan(
        name=name,
        lab=lab.name,
        folder=lab.folder,
        networks=tuple(lab.networks),
        hosts=hosts,
        guests=plan.guests_of(lab, bootables),
        servers=servers.bundle() if any(host.services for host in hosts) else None,
        host_key=keys.dropbear_host_key(),
        client_key=keys.client_public_key(),
        evidence=_evidence(name),
        cold=cold,
    )
    about = {"lab": lab.name, "name": name, **{f"{who}-version": what for who, what in versions.items()}}
    files = {
        director: {"kernel": str(b.kernel), "image": str(b.initrd)} for director, b in bootables.items()
    }
    (planned.evidence / "versions.json").write_text(
        json.dumps({**about, "directors": files}, indent=1) + "\n"
    )
    return planned, versions


def _kernel(lab: Lab, director: str, name: str, from_file: bool) -> kernel.Kernel:
    # A path in lab.yaml is meant from the lab's folder, one on the command line from where the user is.
    if from_file and (lab.folder / name).is_file():
        name = str(lab.folder / name)
    try:
        return kernel.find(name)
    except UsageError as unknown:
        if not from_file:
            raise
        text = (lab.folder / spec.LAB_FILE).read_text().splitlines()
        line = next((number for number, row in enumerate(text, 1) if name in row and "kernel" in row), 0)
        message = f"nodes.{director}.kernel: {unknown.message}"
        raise LabFileError(lab.folder / spec.LAB_FILE, line, message, unknown.hint) from None


def _evidence(name: str) -> Path:
    """A new folder for the evidence of a run; the oldest ones go."""
    runs = paths.state() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
        folder = base
        while folder.exists():
            folder = folder.with_name(f"{base.name}-{len(list(runs.glob(base.name + '*')))}")
        folder.mkdir()
        _prune(runs, folder)
    return folder


def _prune(runs: Path, newest: Path) -> None:
    # The labs are not asked: one that does not answer must not hold up another. A lab's evidence is the last
    # under its name, since nobody else can have that name; or with a number, see above.
    folders = sorted(folder for folder in runs.iterdir() if folder.is_dir())
    in_use = {newest}
    for name in control.running():
        for own in (re.escape(name), rf"{re.escape(name)}-\d+"):
            found = [folder for folder in folders if re.fullmatch(rf"\d+-\d+-{own}", folder.name)]
            in_use.update(found[-1:])
    old = [folder for folder in folders if folder not in in_use]
    for folder in old[: max(0, len(folders) - KEPT_RUNS)]:
        shutil.rmtree(folder, ignore_errors=True)
