"""Try one cell: boot a cluster for it, apply the how-to, run the checks, and judge the results."""

from __future__ import annotations

import shlex
import shutil
import time
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from lvslab import errors, paths
from lvslab.boot.events import Listener, ignore
from lvslab.check import pytest_run
from lvslab.cluster import cluster, registry
from lvslab.cluster import folder as lab_folder
from lvslab.lab import files as lab_files
from lvslab.lab.files import LAB_FILE
from lvslab.lab.model import Lab
from lvslab.matrix.results import Case, Cell, Result
from lvslab.outcome import Outcome, worst

HOWTO_CASE = "howto.md"
"""Name of the case for the steps of the how-to."""

JUNIT = "junit.xml"
PYTEST_LOG = "pytest.log"
TESTS = "tests"
"""Folder in a cell's evidence for the labs of single tests; kept if a check failed."""
FIRST_ATTEMPT = "first-attempt"
"""Folder in a cell's evidence for an attempt in which the lab itself broke."""

_ENDED = (0, 1)
"""Exit statuses of a pytest that has run all its tests."""


def run(
    cell: Cell,
    folder: Path,
    *,
    seed: int = 0,
    attempts: int = 2,
    report: Listener = ignore,
    select: str = "",
) -> Result:
    """Try ``cell`` in a fresh cluster. If the lab itself breaks, try again, up to ``attempts`` times.

    The evidence is written to ``folder``, whose old contents are deleted. ``seed`` is that of the run, from
    which the seed of the cell is derived. ``report`` gets the events of the boot, as in ``cluster.booted``.
    With ``select``, only checks are run that match it as pytest's ``-k``. If the kernel or ipvsadm lacks a
    feature that the lab needs, nothing is booted, and ``folder`` is not made. The fields ``checksums``,
    ``worker`` and ``evidence`` of the result are left empty. Raises UsageError and its subclasses, but no
    other LvsLabError, before anything runs.
    """
    place = lab_files.find(cell.lab, paths.labs())
    try:
        prepare(cell)
    except errors.FeatureLacking as lacking:
        return skipped(cell, seed, str(lacking))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own_seed, first = seed_of(seed, cell), ""
    for attempt in range(1, attempts + 1):
        begun = time.monotonic()
        found = _try(cell, place, folder, own_seed, report, select)
        seconds = time.monotonic() - begun
        if found.verdict is not Outcome.ERROR or attempt == attempts:
            break
        first = found.error
        _set_aside(folder)
    about = {"attempts": attempt, "repeat": repeat(cell, seed), "seconds": round(seconds, 3)}
    flaky = bool(first) and not found.verdict.bad
    return found.model_copy(update={**about, "error": found.error or first, "flaky": flaky})


def skipped(cell: Cell, seed: int, reason: str) -> Result:
    """Result of a cell whose kernel or ipvsadm lacks what its lab needs: nothing is booted for it."""
    case = Case(name=LAB_FILE, verdict=Outcome.SKIPPED, seconds=0, message=reason)
    own, again = seed_of(seed, cell), repeat(cell, seed)
    return Result(cell=cell, verdict=Outcome.SKIPPED, cases=(case,), seed=own, repeat=again)


def prepare(cell: Cell) -> None:
    """Find or build the files that ``cell`` boots from.

    Raises UsageError and its subclasses if there is no such lab, kernel or ipvsadm. Other errors are left to
    the attempt, which meets them again.
    """
    from lvslab.cluster import prepare as planning

    lab = find_lab(cell.lab)
    try:
        planning.prepared(lab, cell.spec)
    except errors.LvsLabError as error:
        if isinstance(error, errors.UsageError):
            raise


def find_lab(name: str) -> Lab:
    """Read the lab of that name or path. Raises UsageError if it has no how-to or no check."""
    folder = lab_files.find(name, paths.labs())
    lab = lab_folder.lab(folder)
    lab_folder.steps(folder, lab)
    if not any(folder.rglob("test_*.py")):
        hint = "a check is a function test_... in a test_*.py"
        raise errors.UsageError(f"there are no checks in {folder}", hint)
    return lab


def seed_of(seed: int, cell: Cell) -> int:
    """Derive an independent 32-bit seed for ``cell`` from the run's ``seed``."""
    return int.from_bytes(sha256(f"{seed}\0{cell.identity}".encode()).digest()[:4])


def repeat(cell: Cell, seed: int) -> str:
    """Command line that tries only ``cell`` again, with the same seed."""
    ipvsadm = ("--ipvsadm", cell.ipvsadm) if cell.ipvsadm else ()
    words = ("--kernels", cell.kernel, *ipvsadm, "--labs", cell.lab, "--seed", str(seed))
    return shlex.join(("./run", "matrix.run", *words))


def _try(cell: Cell, place: Path, folder: Path, own_seed: int, report: Listener, select: str) -> Result:
    """Make one attempt. Its ``error`` is the reason of the verdict ERROR, "" for another verdict."""
    name = registry.name_of_its_own(place.resolve().name)
    cases: tuple[Case, ...] = ()
    versions, measured = dict[str, str](), dict[str, str]()
    accelerator = error = ""
    with ExitStack() as held:
        try:
            booting = cluster.booted(place, name=name, spec=cell.spec, report=report, evidence=folder)
            booted = held.enter_context(booting)
            versions, accelerator = dict(booted.versions), booted.status().accelerator
            cases = (_apply(booted),)
            if cases[0].verdict is Outcome.PASSED:
                done = pytest_run.run(
                    place,
                    name,
                    folder / JUNIT,
                    log=folder / PYTEST_LOG,
                    environment={"LVSLAB_SEED": str(own_seed), "LVSLAB_STATE": str(folder / TESTS)},
                    select=select,
                )
                cases, measured = (*cases, *map(judged, done.cases)), dict(done.measured)
                if done.status not in _ENDED:
                    error = f"pytest ended with status {done.status}"
            error = _broken(booted) or error
        except errors.LvsLabError as broke:
            error = str(broke)
    verdict = Outcome.ERROR if error else worst(case.verdict for case in cases)
    if verdict is Outcome.ERROR and not error:
        broken = (f"{case.name}: {case.message}" for case in cases if case.verdict is Outcome.ERROR)
        error = next(broken, "pytest ran no check")
    if not verdict.bad:
        shutil.rmtree(folder / TESTS, ignore_errors=True)
    return Result(
        cell=cell,
        verdict=verdict,
        cases=cases,
        error=error,
        seed=own_seed,
        versions=versions,
        measured=measured,
        accelerator=accelerator,
    )


def _apply(booted: cluster.Cluster) -> Case:
    """Apply the how-to. A step that does not end as the how-to says makes the case FAILED."""
    begun = time.monotonic()
    verdict, message = Outcome.PASSED, ""
    try:
        booted.apply()
    except errors.StepFailed as failed:
        verdict, message = Outcome.FAILED, str(failed)
    took = round(time.monotonic() - begun, 3)
    return Case(name=HOWTO_CASE, verdict=verdict, seconds=took, message=message)


def judged(case: pytest_run.Case) -> Case:
    """Judge a test that pytest ran: FAILED if the kernel or the lab's files are at fault, else ERROR.

    A panic of a director is a failure of its kernel. If something else prevents a test from running, nothing
    is known about the kernel, so that is an ERROR.
    """
    verdict, family = case.outcome, case.family or Exception
    if verdict is Outcome.ERROR and issubclass(family, (errors.CheckFailed, errors.StepFailed)):
        verdict = Outcome.FAILED  # in a fixture, before or after the test itself
    elif verdict is Outcome.FAILED and issubclass(family, _OF_THE_LAB):
        verdict = Outcome.ERROR
    return Case(name=case.name, verdict=verdict, seconds=case.seconds, message=case.message, bug=case.bug)


_OF_THE_LAB = (errors.MachineError, errors.StateError, errors.BuildError, errors.GuestKilled)
"""Errors of the lab itself. Other BootErrors, such as a panic, are failures of the guest's kernel."""


def _broken(booted: cluster.Cluster) -> str:
    """Describe the first fault of the lab itself, not of its kernel; "" for none."""
    nodes = booted.status().nodes.items()
    return next((f"{name}: {node.text}" for name, node in nodes if node.state.is_fault_of_lab), "")


def _set_aside(folder: Path) -> None:
    """Move the evidence of an attempt into a subfolder."""
    found = list(folder.iterdir())
    (folder / FIRST_ATTEMPT).mkdir()
    for file in found:
        file.rename(folder / FIRST_ATTEMPT / file.name)
