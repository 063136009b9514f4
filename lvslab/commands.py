"""One function for each command on labs: booting, applying and checking, put together."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab import paths, text
from lvslab.apply import transcript
from lvslab.apply.login import ssh_command
from lvslab.apply.shell import ConnectionLost
from lvslab.apply.transcript import StepRecord
from lvslab.boot.events import Event, Listener, PhaseEnded, ignore, phase
from lvslab.boot.status import Notes, Summary
from lvslab.check import pytest_run
from lvslab.cluster import cluster, registry
from lvslab.cluster.cluster import Cluster
from lvslab.errors import BootError, CheckFailed, FeatureLacking, StateError, StepFailed
from lvslab.guest import keys
from lvslab.lab import files as lab_files
from lvslab.lab.directors import USUAL, DirectorSpec
from lvslab.outcome import Outcome
from lvslab.report import formats
from lvslab.report.formats import Places

if TYPE_CHECKING:
    from lvslab.check.ipvs.table import Service
    from lvslab.check.services.every import LeftOut, Made, Rounds
    from lvslab.drawing.content import Content
    from lvslab.errors import LvsLabError

DEFAULT = "web-nat"


@dataclass(frozen=True)
class Listeners:
    """Callbacks for events of the boot and for finished steps."""

    event: Listener = ignore
    step: Callable[[StepRecord], None] = ignore


@dataclass(frozen=True)
class Up:
    """Result of ``up``, as ``lab.up --json`` prints it. ``phases`` are in seconds.

    ``distribution`` is that of the first of the ``rounds``; ``left_out`` are the services without one.
    ``to_type`` is the first step of the how-to where it was not applied.
    """

    lab: str
    name: str
    kernel: str
    accelerator: str
    nodes: dict[str, Any]
    steps: dict[str, int]
    distribution: dict[str, dict[str, int]]
    phases: dict[str, float]
    table: str
    evidence: str
    rounds: list[Made] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    to_type: FirstStep | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def wrong(self) -> LvsLabError | None:
        """The error of the first round that went wrong, None for none."""
        return next((wrong for made in self.rounds if (wrong := made.wrong) is not None), None)


@dataclass(frozen=True)
class Verified:
    """Result of ``verify``; ``up`` is None if the lab was skipped."""

    up: Up | None
    checked: pytest_run.Checked

    @property
    def exit_code(self) -> int:
        return self.checked.exit_code or (1 if self.up and self.up.wrong else 0)

    def as_json(self) -> dict[str, Any]:
        return {"up": self.up.as_json() if self.up else None, "checks": self.checked.as_json()}


def up(
    lab: str,
    *,
    name: str = "",
    spec: DirectorSpec = USUAL,
    apply: bool = True,
    cold: bool = False,
    listeners: Listeners = Listeners(),  # frozen, and holds no state
) -> Up:
    """Boot a lab, apply its how-to, make the first requests, and leave it running.

    ``spec`` describes its directors. ``cold`` boots them without memory snapshots, and makes none. The lab
    stays up for inspection if a step fails (StepFailed) or the round does (CheckFailed). Any other error
    ends it.
    """
    folder = lab_files.find(lab, paths.labs())
    name = name or folder.resolve().name
    with _up(folder, name, spec, listeners, apply=apply, cold=cold, keep=True) as result:
        return result


@contextmanager
def _up(
    folder: Path,
    name: str,
    spec: DirectorSpec,
    listeners: Listeners,
    *,
    apply: bool = True,
    cold: bool = False,
    keep: bool = False,
) -> Iterator[Up]:
    """Bring a lab up for the block; with ``keep`` it stays, even after a failure."""
    phases: dict[str, float] = {}
    imports = threading.Thread(target=_import_the_rest, name="imports", daemon=True)

    def report(event: Event) -> None:
        if isinstance(event, PhaseEnded):
            phases[event.phase] = round(event.seconds, 3)
            if event.phase == "guests started" and apply:
                imports.start()
        listeners.event(event)

    with cluster.booted(folder, name=name, spec=spec, cold=cold, report=report, connect=apply) as running:
        taken: Rounds | None = None
        running.stays = keep
        try:
            if apply:
                with phase("steps", report):
                    running.apply(listeners.step)
                with phase("first round", report):
                    taken = first_rounds(running)
                running.note(Notes(distribution=distribution(taken)))
        except (StepFailed, CheckFailed):
            if keep:
                running.keep()
            raise
        running.note(Notes(phases=phases))
        result = _result(running, phases, taken)
        if keep:
            running.keep()
        yield result


def _import_the_rest() -> None:
    """Import what steps and rounds need, which takes 0.3 s, while the guests come up."""
    with suppress(ImportError):  # the code that needs it reports the error
        import paramiko  # noqa: F401

        from lvslab.check.services import every  # noqa: F401


def first_rounds(running: Cluster) -> Rounds:
    """Make a round of requests to each service of the first director.

    Raises CheckFailed if the steps cannot be read as a table, and if a request is not answered.
    """
    from lvslab.check.ipvs import director
    from lvslab.check.ipvs.table import TableError
    from lvslab.check.services import every
    from lvslab.check.testbed import Testbed

    if nobody := every.without_client(running):
        return nobody
    try:
        table = director.table_of_steps(running, next(iter(running.lab.directors)))
    except TableError as unread:
        message = f"no first round, because the steps cannot be read as a table: {unread.message}"
        raise CheckFailed(message, unread.hint) from None
    with Testbed(running) as testbed:
        return every.of_steps(testbed, table)


def distribution(found: Rounds | None) -> dict[str, dict[str, int]]:
    """Count the first round's requests for each server: ``expected`` by the model, and ``observed``."""
    return found.rounds[0].distribution if found and found.rounds else {}


def take_round(
    name: str, *, count: int = 0, client: str = "", service: str = "", director: str = ""
) -> Rounds:
    """Make rounds of requests to the services that a running director has now."""
    from lvslab.check.services import every
    from lvslab.check.testbed import Testbed

    with cluster.attach(name) as running, Testbed(running) as testbed:
        return every.now(testbed, count=count, client=client, service=service, director=director)


def apply(name: str, listeners: Listeners) -> Up:
    """Apply the how-to to a lab that is up, and make the first requests."""
    with cluster.attach(name) as running:
        noted = running.status().notes
        if noted.steps is not None:
            raise StateError(
                f"the how-to has already been applied to the lab '{name}'",
                "it works only once: end the lab with lab.down, and start a new one with lab.up",
            )
        phases = dict(noted.phases or {})
        begun = time.monotonic()
        running.apply(listeners.step)
        phases["steps"] = round(time.monotonic() - begun, 3)
        taken = first_rounds(running)
        running.note(Notes(distribution=distribution(taken), phases=phases))
        return _result(running, phases, taken)


def execute(name: str, node: str, command: str) -> int:
    """Run ``command`` on a node with this process's streams; return its exit status."""
    with cluster.attach(name) as running:
        stdin = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno()
        sys.stdout.flush()  # output of earlier commands comes first
        try:
            return running.connect(node).stream(
                command, stdout=sys.stdout.buffer, stderr=sys.stderr.buffer, stdin=stdin
            )
        except ConnectionLost:
            running.stream(node).close()  # raises an error that names the problem, if the node has one
            raise


def check(
    name: str, reports: Places, *, quiet: bool, select: str = "", here: bool = False
) -> pytest_run.Checked:
    """Run the checks of a running lab with pytest, as it is now.

    ``quiet`` redirects pytest's stdout to stderr; ``select`` and ``here`` are as for `pytest_run.run`.
    Raises StateError where nothing was applied, and no director has a virtual service that was made by hand.
    """
    formats.check_places(reports)
    with cluster.attach(name) as running:
        folder, evidence = running.lab.folder, running.evidence
        if running.status().notes.steps is None:
            _take_as_steps(running)
    return _check(folder, name, reports, evidence, quiet=quiet, select=select, here=here)


def _take_as_steps(running: Cluster) -> None:
    """Take what was typed until now in the place of the how-to's steps. Raises StateError for nothing."""
    from lvslab.check.ipvs import director
    from lvslab.guest import calls

    directors = running.lab.directors
    if not any(director.read_director(running, name, ("rules",)).rules for name in directors):
        begin = first_step(running)
        raise StateError(
            f"no director of the lab '{running.name}' has a virtual service, so there is nothing to check",
            f"the how-to begins with `{begin.command}` on {begin.node} ({begin.place}); ./run lab.apply "
            "types all of it"
            if begin
            else "`ipvsadm -A` makes one",
        )
    for name in directors:
        running.observe(name, calls.END_STEPS)


@dataclass(frozen=True)
class FirstStep:
    """The step with which a how-to begins; ``place`` is its file and line."""

    node: str
    command: str
    place: str


def first_step(running: Cluster) -> FirstStep | None:
    """Return the first step of a running lab's how-to, None where it has none."""
    from lvslab.apply.howto import HOWTO_FILE

    if not running.steps:
        return None
    step = running.steps[0]
    return FirstStep(step.node, step.command, f"{HOWTO_FILE}:{step.line}")


def _check(
    folder: Path,
    name: str,
    reports: Places,
    evidence: Path,
    *,
    quiet: bool,
    select: str = "",
    here: bool = False,
) -> pytest_run.Checked:
    others = {format: file for format, file in reports.items() if format != "junit"}
    junit = reports.get("junit", evidence / formats.JUNIT_FILE)
    found = pytest_run.run(folder, name, junit, quiet=quiet, select=select, here=here)
    if others:
        from lvslab.report import checks

        formats.write(others, checks.report(found))
    return found


def content_of_folder(lab: str) -> Content:
    """Return what a drawing of a lab shows, by its lab.yaml. Raises UsageError and its subclasses."""
    from lvslab.cluster import folder as lab_folder
    from lvslab.drawing.content import content_of

    return content_of(lab_folder.lab(lab_files.find(lab, paths.labs())))


def content_of_running(name: str) -> Content:
    """Return what a drawing of a running lab shows: with states of nodes, and directors' tables.

    A director that does not answer has no table.
    """
    from lvslab.check.ipvs import director
    from lvslab.drawing.content import content_of

    with cluster.attach(name) as running:
        tables: dict[str, Sequence[Service]] = {}
        for node in running.lab.directors:
            with suppress(BootError):
                tables[node] = director.read_director(running, node, ("rules",)).rules
        nodes = running.status().nodes.items()
        states = {node: text.state(found.text, found.service) for node, found in nodes}
        return content_of(running.lab, states, tables)


def steps_taken(name: str) -> list[StepRecord]:
    """Return the transcript of a running lab."""
    with cluster.attach(name) as running:
        file = running.evidence / cluster.TRANSCRIPT
        return transcript.records(file) if file.exists() else []


def login(name: str, node: str, command: str = "") -> list[str]:
    """Return the command that logs in to a node interactively, for execvp.

    With ``command``, it runs that in place of a shell.
    """
    with cluster.attach(name) as found:
        found.stream(node).close()  # raises an error at once if there is no such node
    words = ssh_command(name, node, key=keys.client_key(), host_key=keys.host_public_key())
    if not command:
        return words
    # With a terminal, so that programs as less and vi work.
    terminal = ["-t"] if sys.stdin is not None and sys.stdin.isatty() else []
    return [words[0], *terminal, *words[1:], "--", command]


def attach_console(name: str, node: str) -> None:
    """Connect this process's terminal with the serial console of a director."""
    from lvslab import terminal

    with cluster.attach(name) as found:
        terminal.attach(found.console(node))


def verify(
    lab: str, *, spec: DirectorSpec, reports: Places, listeners: Listeners, only: Collection[str] = ()
) -> Verified:
    """Boot a lab, check it and end it, under a unique name.

    ``only`` restricts the checks to those whose names contain one of these texts. A lab whose directors
    lack a feature that its lab.yaml names is skipped: its one case is ``lab.yaml``.
    """
    formats.check_places(reports)
    folder = lab_files.find(lab, paths.labs())
    name = registry.name_of_its_own(folder.resolve().name)
    select = " or ".join(sorted(only))
    try:
        with _up(folder, name, spec, listeners) as result:
            found = _check(folder, name, reports, Path(result.evidence), quiet=True, select=select)
    except FeatureLacking as lacking:
        return Verified(None, _skipped(folder, reports, str(lacking)))
    return Verified(result, found)


def _skipped(folder: Path, reports: Places, reason: str) -> pytest_run.Checked:
    """Return the result of a lab that was not booted, and write it to ``reports``."""
    from lvslab.report import checks

    case = pytest_run.Case(lab_files.LAB_FILE, Outcome.SKIPPED, 0.0, reason)
    junit = str(reports["junit"].resolve()) if "junit" in reports else ""
    found = pytest_run.Checked(folder.resolve().name, junit, (case,), 0)
    formats.write(reports, checks.report(found))
    return found


def _result(running: Cluster, phases: dict[str, float], taken: Rounds | None) -> Up:
    described = running.status()
    return Up(
        lab=running.lab.name,
        name=running.name,
        kernel=str(running.versions.get("kernel", "")),
        accelerator=described.accelerator,
        nodes={name: node.as_json() for name, node in described.nodes.items()},
        steps=asdict(described.notes.steps or Summary(len(running.steps), 0, 0, 0)),
        distribution=distribution(taken),
        phases=phases,
        table=taken.rounds[-1].table if taken and taken.rounds else "",
        evidence=str(running.evidence),
        rounds=taken.rounds if taken else [],
        left_out=taken.left_out if taken else [],
        to_type=first_step(running) if described.notes.steps is None else None,
    )
