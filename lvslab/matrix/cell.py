"""One cell, in a cluster of its own: booted, set up by its how-to, checked by pytest, and judged."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from lvslab import paths
from lvslab.boot.events import Listener, ignore
from lvslab.check import pytest_run
from lvslab.cluster import cluster, registry
from lvslab.cluster import folder as lab_folder
from lvslab.cluster.cluster import Cluster
from lvslab.errors import (
    BuildError,
    CheckFailed,
    GuestKilled,
    LvsLabError,
    MachineError,
    StateError,
    StepFailed,
    UsageError,
)
from lvslab.lab import model
from lvslab.lab.model import Lab
from lvslab.matrix.results import Case, Cell, Result, Verdict, verdict_of

HOWTO_CASE = "howto.md"
"""What the case is called that says whether every step of the how-to ended as it must."""

JUNIT = "junit.xml"
PYTEST_LOG = "pytest.log"
TESTS = "tests"
"""The folder in a cell's evidence with that of the labs that single tests have had, if any check failed."""
FIRST_ATTEMPT = "first-attempt"
"""The folder with the evidence of an attempt in which the lab itself broke."""

_ENDED = (0, 1)
"""Exit statuses of a pytest that has run all its tests."""


@dataclass(frozen=True)
class _Attempt:
    """What came of one try. ``error`` says why the lab itself broke, "" where it did not."""

    cases: tuple[Case, ...] = ()
    error: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    accelerator: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        return "error" if self.error else verdict_of(case.verdict for case in self.cases)


def run(
    cell: Cell,
    folder: Path,
    *,
    seed: int = 0,
    attempts: int = 2,
    report: Listener = ignore,
    select: str = "",
) -> Result:
    """Try ``cell`` in a fresh cluster, and once more in another (if ``attempts`` is 2) where the lab itself
    breaks.

    ``folder`` gets the evidence; what it holds already is deleted. ``seed`` is that of the whole run, from
    which the cell's own comes. ``report`` hears of the boot, as in ``cluster.booted``. Where ``select`` is
    given, only checks are run that pytest -k finds by it. The result has the checksums and the worker left
    out, and the evidence too, which is for whoever keeps the folder. Raises UsageError and its relatives,
    and nothing else that an LvsLabError is, before anything runs.
    """
    place = model.find(cell.lab, paths.labs())
    prepare(cell)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own_seed, first = seed_of(seed, cell), ""
    for attempt in range(1, attempts + 1):
        begun = time.monotonic()
        found = _try(cell, place, folder, own_seed, report, select)
        seconds = time.monotonic() - begun
        if found.verdict != "error" or attempt == attempts:
            break
        first = found.error or _first_error(found.cases)
        _set_aside(folder)
    return Result(
        cell=cell,
        verdict=found.verdict,
        cases=found.cases,
        error=found.error or (_first_error(found.cases) if found.verdict == "error" else first),
        flaky=bool(first) and found.verdict in ("passed", "skipped", "expected failure"),
        attempts=attempt,
        seed=own_seed,
        repeat=repeat(cell, seed),
        seconds=round(seconds, 3),
        versions=dict(found.versions),
        measured=dict(found.measured),
        accelerator=found.accelerator,
    )


def prepare(cell: Cell) -> None:
    """Find and make what the virtual machines of ``cell`` boot.

    Raises UsageError and its relatives where there is no such lab, kernel or ipvsadm. What else keeps them
    from being made is left for the attempt to find.
    """
    from lvslab.cluster import prepare as planning

    lab = find_lab(cell.lab)
    try:
        planning.bootables(lab, cell.spec)
    except UsageError:
        raise
    except LvsLabError:
        return


def find_lab(name: str) -> Lab:
    """The lab of that name or path, which has a how-to and checks. Raises UsageError and its relatives."""
    folder = model.find(name, paths.labs())
    lab = lab_folder.lab(folder)
    lab_folder.steps(folder, lab)
    if not any(folder.rglob("test_*.py")):
        raise UsageError(f"there are no checks in {folder}", "a check is a function test_... in a test_*.py")
    return lab


def seed_of(seed: int, cell: Cell) -> int:
    """The seed of ``cell`` in a run whose seed is ``seed``: 32 bits that no other cell's have to do with."""
    about = "\0".join((str(seed), cell.lab, cell.kernel, cell.ipvsadm))
    return int.from_bytes(sha256(about.encode()).digest()[:4])


def repeat(cell: Cell, seed: int) -> str:
    """The command that tries ``cell`` alone once more, with the same seed."""
    ipvsadm = ("--ipvsadm", cell.ipvsadm) if cell.ipvsadm else ()
    words = ("--kernels", cell.kernel, *ipvsadm, "--labs", cell.lab, "--seed", str(seed))
    return shlex.join(("./run", "matrix.run", *words))


def _try(cell: Cell, place: Path, folder: Path, own_seed: int, report: Listener, select: str) -> _Attempt:
    name = registry.name_of_its_own(place.resolve().name)
    found = _Attempt()
    with ExitStack() as held:
        try:
            booted = held.enter_context(
                cluster.booted(
                    place,
                    name=name,
                    spec=cell.spec,
                    report=report,
                    evidence=folder,
                )
            )
            versions = dict(booted.versions)
            found = replace(found, versions=versions, accelerator=booted.status().accelerator)
            howto = _apply(booted)
            found = replace(found, cases=(howto,))
            if howto.verdict != "failed":
                done = pytest_run.run(
                    place,
                    name,
                    folder / JUNIT,
                    log=folder / PYTEST_LOG,
                    environment={"LVSLAB_SEED": str(own_seed), "LVSLAB_STATE": str(folder / TESTS)},
                    select=select,
                )
                found = replace(found, cases=(howto, *map(judged, done.cases)), measured=done.measured)
                if done.status not in _ENDED:
                    found = replace(found, error=f"pytest ended with status {done.status}")
            found = replace(found, error=_broken(booted) or found.error)
        except LvsLabError as error:
            found = replace(found, error=str(error))
    if found.verdict not in ("error", "failed", "unexpectedly passed"):
        shutil.rmtree(folder / TESTS, ignore_errors=True)
    return found


def _apply(booted: Cluster) -> Case:
    """Type the how-to. A step that does not end as it says is a case that failed."""
    begun = time.monotonic()
    message = ""
    try:
        booted.apply()
    except StepFailed as failed:
        message = str(failed)
    outcome = "failed" if message else "passed"
    took = round(time.monotonic() - begun, 3)
    return judged(pytest_run.Case(HOWTO_CASE, outcome, took, message))


def judged(case: pytest_run.Case) -> Case:
    """The verdict on a test that pytest ran.

    A director that panics is a failure: that is its kernel's doing. Whatever else keeps a test from being
    made is an error: nothing is known then.
    """
    verdict = _VERDICTS.get(case.outcome) or ("failed" if _is_failure(case) else "error")
    return Case(name=case.name, verdict=verdict, seconds=case.seconds, message=case.message, bug=case.bug)


def _is_failure(case: pytest_run.Case) -> bool:
    family = case.family or Exception
    if case.outcome == "error":  # in a fixture, before or after the test itself
        return issubclass(family, (CheckFailed, StepFailed))
    return not issubclass(family, _OF_THE_LAB)


_VERDICTS: Mapping[str, Verdict] = MappingProxyType(
    {
        "passed": "passed",
        "skipped": "skipped",
        "xfailed": "expected failure",
        "xpassed": "unexpectedly passed",
    }
)
"""Of outcomes that leave no question; the others are failures or errors."""

_OF_THE_LAB = (MachineError, StateError, BuildError, GuestKilled)
"""Errors of the lab itself. Other BootErrors, such as a panic, are failures of the guest's kernel."""


def _broken(booted: Cluster) -> str:
    """Describe what is wrong with the lab that its kernel has not caused; "" for nothing."""
    for name, node in booted.status().nodes.items():
        if node.state.is_fault_of_lab:
            return f"{name}: {node.text}"
    return ""


def _first_error(cases: Iterable[Case]) -> str:
    case = next((case for case in cases if case.verdict == "error"), None)
    return f"{case.name}: {case.message}" if case else "pytest ran no check"


def _set_aside(folder: Path) -> None:
    """Move the evidence of an attempt into a folder of its own."""
    found = list(folder.iterdir())
    aside = folder / FIRST_ATTEMPT
    aside.mkdir()
    for file in found:
        file.rename(aside / file.name)
