"""Does the suite see what is wrong with a cluster? Faults of faults.toml are made in labs of their own, and
the checks that are named there must fail, as the same checks of a whole lab must pass.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from lvslab.check.pytest_plugin.pool import Spares, Wanted
from lvslab.lab.directors import USUAL
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed

QUICK = 1
"""Number of each lab's faults that are not slow."""
CHECK_SECONDS = 120.0
"""After which a check is taken to hang."""


@dataclass(frozen=True)
class Fault:
    """One table of faults.toml."""

    name: str
    lab: str
    seen_by: tuple[str, ...]
    on: str = ""
    command: str = ""
    without: str = ""
    stop: str = ""
    says: str = ""

    @property
    def wanted(self) -> Wanted:
        """The lab that the fault is made in."""
        return Wanted(PROJECT / "labs" / self.lab, USUAL, applied=not self.without)

    def make(self, lab: Testbed) -> None:
        """Break ``lab``."""
        if self.without:
            lab.apply(without=[self.without])
        if self.command:
            lab.node(self.on).execute(self.command)
        if self.stop:
            lab.cluster.stop_service(self.stop)


@dataclass
class Seen:
    """Which checks saw which fault, and what the first one said."""

    lines: list[str] = field(default_factory=list)

    def add(self, fault: Fault, failures: Mapping[str, str]) -> None:
        """Write down one fault."""
        first = next(iter(failures.values())).partition("\n")[0]
        self.lines.append(f"{fault.lab}: {fault.name}: {', '.join(failures)}: {first}")


def read(text: str) -> tuple[Fault, ...]:
    """The faults of ``text``, in TOML."""
    return tuple(
        Fault(**{**table, "seen_by": tuple(table["seen_by"])}) for table in tomllib.loads(text)["fault"]
    )


FAULTS = read(Path(__file__).with_name("faults.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def seen(pytestconfig: pytest.Config) -> Iterator[Seen]:
    """Prints at the end which check saw what."""
    seen = Seen()
    yield seen
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", f"{len(seen.lines)} faults were seen", *seen.lines, sep="\n  ")


def failures(lab: Testbed, tests: tuple[str, ...], report: Path) -> dict[str, str]:
    """Which of a lab's ``tests`` fail in it, with what they say, in a pytest of their own."""
    (module,) = lab.cluster.lab.folder.glob("test_*.py")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--lab", lab.cluster.name, f"--junit-xml={report}"),
            *(f"{module}::{test}" for test in tests),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        assert case.find("error") is None, done.stdout
        assert case.find("skipped") is None, done.stdout
        if (failure := case.find("failure")) is not None:
            found[str(case.get("name"))] = (failure.text or failure.get("message") or "").strip()
    return found


def is_slow(fault: Fault) -> bool:
    return fault not in [each for each in FAULTS if each.lab == fault.lab][:QUICK]


def coming_after(fault: Fault) -> list[Wanted]:
    """Return the labs of the later faults that are tried in the same run."""
    later = FAULTS[FAULTS.index(fault) + 1 :]
    return [each.wanted for each in later if is_slow(each) == is_slow(fault)]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            each,
            id=f"{each.lab}-{each.name.replace(' ', '-')}",
            marks=[pytest.mark.slow] if is_slow(each) else [],
        )
        for each in FAULTS
    ],
)
def test_a_fault_is_seen(fault: Fault, spares: Spares, seen: Seen, tmp_path: Path) -> None:
    coming = coming_after(fault)
    own = spares.take(fault.wanted, coming)
    try:
        lab = own.testbed()
        spares.prepare(coming)
        fault.make(lab)
        found = failures(lab, fault.seen_by, tmp_path / "junit.xml")
    finally:
        spares.end(own)
    assert tuple(found) == fault.seen_by, "\n".join(found.values())
    if fault.says:
        said = found[fault.seen_by[0]]
        assert re.search(fault.says, said), said
    seen.add(fault, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({fault.lab for fault in FAULTS}))
def test_a_whole_lab_passes_the_same_checks(name: str, spares: Spares, tmp_path: Path) -> None:
    checks = dict.fromkeys(test for fault in FAULTS if fault.lab == name for test in fault.seen_by)
    own = spares.take(Wanted(PROJECT / "labs" / name, USUAL, applied=True), [])
    try:
        assert failures(own.testbed(), tuple(checks), tmp_path / "junit.xml") == {}
    finally:
        spares.end(own)


def test_faults_have_names_of_their_own() -> None:
    assert len({(fault.lab, fault.name) for fault in FAULTS}) == len(FAULTS)
