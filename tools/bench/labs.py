"""Measure how long labs take to start and end, compared to bare QEMU with the same guest.

All is measured in one run and in turns, since the speed of a shared machine varies: only ratios mean
something.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lvslab import commands, paths
from lvslab.boot import plan
from lvslab.boot.vm import accelerator
from lvslab.boot.vm.qemu import QEMU, Accelerator, Machine, Memory
from lvslab.cluster import cluster, prepare, registry
from lvslab.cluster import folder as lab_folder
from lvslab.errors import BootError, CheckFailed, StateError
from lvslab.guest import image
from lvslab.kernel import find

MANY = "many"
"""The lab with 250 real servers."""

# QEMU outside of a lab's namespaces must end with us all the same.
_TIED = ("unshare", "--pid", "--fork", "--kill-child", "--")

_DIRECTORS = 3
"""Number of directors in the lab that shows the cost of a further one."""


@dataclass(frozen=True)
class Row:
    """One figure: a median in ``unit``, and its ratio to the row ``base``."""

    what: str
    value: float
    unit: Literal["s", "MiB"] = "s"
    ratio: float | None = None
    base: str = ""


class Figures:
    """Rows with their ratios, in the order in which they are added."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, what: str, values: list[float], base: str = "", unit: Literal["s", "MiB"] = "s") -> None:
        """Add the median of ``values``, compared to the row ``base``, which was added before."""
        value = statistics.median(values)
        ratio = value / next(row.value for row in self.rows if row.what == base) if base else None
        self.rows.append(Row(what, value, unit, ratio, base))


def measure(rounds: int, tests: int, kernel_name: str = "") -> dict[str, Any]:
    """Measure guests, labs, steps, directors, tests and the lab `many`, ``rounds`` times in turns.

    ``tests`` is the number of tests with a lab of their own. With ``kernel_name`` directors have that
    kernel, and only bare QEMU and web-nat are measured.

    Returns ``about``, ``rounds`` and ``rows`` (`Row`).
    """
    registry.need_root()
    options = ("--kernel", kernel_name) if kernel_name else ()
    guest = _guest(kernel_name)
    # The first one fills the cache, makes the snapshot and finds out about KVM; it is not counted.
    _lab_up(*options)
    choice = accelerator.known()
    if choice is None:
        raise StateError("lab.up did not find out which accelerator works")
    figures = Figures()
    _guests(figures, guest, choice.accelerator, rounds)
    _labs(figures, rounds, options)
    if not kernel_name:
        _steps(figures, rounds)
        _directors(figures, rounds)
        _fresh_labs(figures, tests)
        _many(figures, rounds)
    about = f"medians of {rounds}, kernel {guest.boot.release}, accelerator {choice.accelerator}"
    return {"about": about, "rounds": rounds, "rows": [asdict(row) for row in figures.rows]}


_BOOT = "bare QEMU boots, until its agent answers"
_RESTORE = "bare QEMU restores the same state and runs"
_ANSWERS = "  the same, until its agent answers"
_COLD = "lab.up --cold web-nat, whole command"
_WARM = "lab.up web-nat, whole command"


def _guests(figures: Figures, guest: plan.Guest, choice: Accelerator, rounds: int) -> None:
    """Boot and resume a guest without a lab."""
    boots, restores, answers, typed = list[float](), list[float](), list[float](), list[float]()
    folder = paths.labs() / commands.DEFAULT
    steps = lab_folder.steps(folder, lab_folder.lab(folder))
    # In memory, as a snapshot is that was just used.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        memory, state = Path(place, "memory"), Path(place, "state")
        for _ in range(rounds):
            with _machine(guest, choice, Memory(memory, shared=True)) as machine:
                machine.await_ready()
                boots.append(time.monotonic() - machine.started)
                machine.save(state)
            with _machine(guest, choice, Memory(memory, shared=False)) as machine:
                machine.resume(state)
                restores.append(time.monotonic() - machine.started)
                machine.await_answer()
                answers.append(time.monotonic() - machine.started)
                for step in steps:
                    machine.observe(step.command)
                typed.append(time.monotonic() - machine.started)
            memory.unlink()
    figures.add(_BOOT, boots)
    figures.add(_RESTORE, restores, _BOOT)
    figures.add(_ANSWERS, answers, _RESTORE)
    figures.add("  the same, until it has run web-nat's steps: no lab is faster", typed, _RESTORE)


def _labs(figures: Figures, rounds: int, options: tuple[str, ...]) -> None:
    """Measure ``lab.up`` of web-nat, cold and warm, and ``lab.down``."""
    ups: dict[str, list[float]] = {"cold": [], "warm": []}
    downs, answers = list[float](), list[float]()
    phases: dict[str, dict[str, list[float]]] = {"cold": {}, "warm": {}}
    for _ in range(rounds):
        for kind in ups:
            cold = ("--cold",) if kind == "cold" else ()
            up_seconds, down_seconds, document = _lab_up(*cold, *options)
            ups[kind].append(up_seconds)
            downs.append(down_seconds)
            for phase, seconds in document["phases"].items():
                phases[kind].setdefault(phase, []).append(seconds)
            if kind == "warm":
                answers += [node["answered"] for node in document["nodes"].values() if "answered" in node]
    figures.add("a lab's director resumes, until its agent answers", answers, _ANSWERS)
    figures.add(_COLD, ups["cold"], _BOOT)
    for phase, seconds in phases["cold"].items():
        figures.add(f"  cold: {phase}", seconds, _COLD)
    figures.add(_WARM, ups["warm"], _COLD)
    for phase, seconds in phases["warm"].items():
        figures.add(f"  warm: {phase}", seconds, _WARM)
    figures.add("lab.down, whole command", downs, _WARM)


def _many(figures: Figures, rounds: int) -> None:
    """Measure ``lab.up`` and ``lab.down`` of the lab with 250 real servers."""
    ups, downs = list[float](), list[float]()
    phases: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        up_seconds, down_seconds, document = _lab_up(MANY)
        if turn == 0:  # it may have had to make a snapshot
            continue
        ups.append(up_seconds)
        downs.append(down_seconds)
        for phase, seconds in document["phases"].items():
            phases.setdefault(phase, []).append(seconds)
    whole = f"lab.up {MANY}, whole command"
    figures.add(whole, ups, _WARM)
    for phase, seconds in phases.items():
        figures.add(f"  {MANY}: {phase}", seconds, whole)
    figures.add(f"lab.down {MANY}, whole command", downs, whole)


def _steps(figures: Figures, rounds: int) -> None:
    """Measure a step on a director: over SSH in the node's shell, and in other ways."""
    name = f"bench-{secrets.token_hex(3)}"
    command("lab.up", "--name", name, "--no-apply", "--json")
    try:
        with cluster.attach(name) as found:
            director = next(iter(found.lab.directors))
            began = time.monotonic()
            connection = found.connect(director)
            login = time.monotonic() - began
            with connection.shell() as shell:
                shell.run(":", 30)
                ways: dict[str, Callable[[], object]] = {
                    "a step over SSH: a builtin of the shell": lambda: shell.run(":", 30),
                    "  a static program (busybox true)": lambda: shell.run("busybox true", 30),
                    "  a program with libraries (ipvsadm -Ln)": lambda: shell.run("ipvsadm -Ln", 30),
                    "  the same in a session of its own": lambda: connection.execute("ipvsadm -Ln"),
                    "  the same through the agent": lambda: found.observe(director, "ipvsadm -Ln"),
                }
                # The first time the emulator translates what it has not seen.
                took = {what: [_timed(way) for _ in range(5 * rounds + 1)][1:] for what, way in ways.items()}
    finally:
        command("lab.down", "--name", name, "--json")
    builtin = next(iter(took))
    for what, seconds in took.items():
        figures.add(what, seconds, "" if what == builtin else builtin)
    figures.add("  the login, once for each node", [login], builtin)


def _directors(figures: Figures, rounds: int) -> None:
    """Measure the time and the memory that each further director costs."""
    seconds: dict[int, list[float]] = {1: [], _DIRECTORS: []}
    memory: dict[int, list[float]] = {1: [], _DIRECTORS: []}
    with tempfile.TemporaryDirectory() as place:
        for turn in range(rounds + 1):
            for count in seconds:
                folder = Path(place, f"directors-{count}")
                token = secrets.token_hex(3)
                _write_lab(folder, count, token)
                name = f"bench-{token}"
                took, _ = command("lab.up", str(folder), "--name", name, "--no-apply", "--json")
                used = _proportional_memory(token)
                command("lab.down", "--name", name, "--json")
                if turn > 0:  # the first one of each may have to make a snapshot
                    seconds[count].append(took)
                    memory[count].append(used)
    one = "lab.up --no-apply, one director, whole command"
    figures.add(one, seconds[1])
    further = zip(seconds[_DIRECTORS], seconds[1], strict=True)
    figures.add("  each further director", [(many - few) / (_DIRECTORS - 1) for many, few in further], one)
    first = "a director's share of memory (PSS), when it is the only one"
    figures.add(first, memory[1], unit="MiB")
    shares = zip(memory[_DIRECTORS], memory[1], strict=True)
    more = [(many - few) / (_DIRECTORS - 1) for many, few in shares]
    figures.add("  added by each further director", more, first, "MiB")


def _fresh_labs(figures: Figures, tests: int) -> None:
    """Measure a whole run of pytest with ``tests`` tests, each with a lab of its own."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "fresh")
        shutil.copytree(paths.labs() / commands.DEFAULT, folder, ignore=shutil.ignore_patterns("*.py"))
        Path(folder, "test_fresh.py").write_text(
            "import pytest\n\n\n"
            f"@pytest.mark.parametrize('number', range({tests}))\n"
            "def test_fresh(fresh_lab, number):\n"
            "    assert fresh_lab.reading().rules == fresh_lab.table_of_steps()\n"
        )
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
            capture_output=True,
            cwd=paths.PROJECT,
            check=False,
        )
        seconds = time.monotonic() - begun
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stdout + done.stderr)
        raise CheckFailed("a test with a lab of its own failed")
    figures.add(f"a test with a fresh_lab, each of {tests}, pytest's start and end included",
                [seconds / tests], _WARM)  # fmt: skip


def _timed(way: Callable[[], object]) -> float:
    """Return the seconds that ``way`` takes."""
    began = time.monotonic()
    way()
    return time.monotonic() - began


def _write_lab(folder: Path, directors: int, token: str) -> None:
    """Write a lab of ``directors`` and one client, whose how-to prints a table."""
    nodes = [
        f"  d{number}-{token}:\n    role: director\n    kernel: debian-cloud\n    interfaces:\n"
        f"      eth0: {{network: lan, address: 10.0.0.{number}}}\n"
        for number in range(1, directors + 1)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "lab.yaml").write_text(
        "title: Directors side by side\nnetworks:\n  lan: {subnet: 10.0.0.0/24}\nnodes:\n"
        + "".join(nodes)
        + "  client:\n    role: client\n    interfaces:\n      eth0: {network: lan, address: 10.0.0.200}\n"
    )
    (folder / "howto.md").write_text(f"# Look\n\n```sh node=d1-{token}\nipvsadm -Ln\n```\n")


def _proportional_memory(token: str) -> float:
    """Return the proportional set size, in MiB, of the QEMU processes of a lab."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(words[0]).name == QEMU and token in words[2]:
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, IndexError):
            continue
    return total / 1024


def _guest(kernel_name: str) -> plan.Guest:
    """Plan web-nat's director with the kernel ``kernel_name``, "" for its own."""
    found = lab_folder.lab(paths.labs() / commands.DEFAULT)
    chosen = find.find(kernel_name or next(iter(found.directors.values())).kernel or "")
    boot = prepare.boot_of(chosen, image.build(chosen))
    return plan.guests_of(found, dict.fromkeys(found.directors, boot))[0]


@contextmanager
def _machine(guest: plan.Guest, choice: Accelerator, memory: Memory) -> Iterator[Machine]:
    """Run ``guest`` without network cards; it ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(guest, choice, Path(folder), cards=False, wrapper=_TIED, memory=memory)
        try:
            yield machine
        finally:
            machine.end()


def _lab_up(*options: str) -> tuple[float, float, dict[str, Any]]:
    """Return the seconds of ``lab.up`` and of ``lab.down``, and the document of the first."""
    name = f"bench-{secrets.token_hex(3)}"
    up_seconds, document = command("lab.up", "--name", name, "--json", *options)
    down_seconds, _ = command("lab.down", "--name", name, "--json")
    return up_seconds, down_seconds, document


def command(*words: str, **environment: str) -> tuple[float, dict[str, Any]]:
    """Run ``./run`` with ``words``, and return its seconds and the document that it prints.

    ``environment`` is added to this process's. Raises BootError where the command fails.
    """
    begun = time.monotonic()
    done = subprocess.run(
        [str(paths.PROJECT / "run"), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        raise BootError(f"{' '.join(words)} ended with status {done.returncode}")
    return seconds, json.loads(done.stdout)
