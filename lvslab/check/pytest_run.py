"""Run the checks of a lab with pytest, and read its report."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab import paths
from lvslab.check.pytest_plugin.figures import FAMILY, KNOWN_BUG, MEASURED, OWN_LAB, RAISED, SAID
from lvslab.errors import CheckFailed, LvsLabError, UsageError, named
from lvslab.outcome import PYTEST, Outcome
from lvslab.run import spawn

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ENDED = {"failure": Outcome.FAILED, "error": Outcome.ERROR, "skipped": Outcome.SKIPPED}
USAGE_ERROR, NO_TESTS = 4, 5  # of pytest.ExitCode; NO_TESTS_COLLECTED


@dataclass(frozen=True)
class Case:
    """Result of one test; ``message`` says why it ended so.

    ``raised`` names the class of the LvsLabError that ended it, ``family`` is the nearest class of
    `lvslab.errors`, and ``bug`` the known bug that must make it fail; "" or None where there is none. With
    ``own_lab``, the test has booted a lab of its own although one was up.
    """

    name: str
    outcome: Outcome
    seconds: float
    message: str
    raised: str = ""
    bug: str = ""
    family: type[LvsLabError] | None = None
    own_lab: bool = False

    def as_json(self) -> dict[str, Any]:
        """The case in the document of ``--json``."""
        document = {**asdict(self), "outcome": PYTEST.word(self.outcome)}
        del document["family"]
        return document


@dataclass(frozen=True)
class Checked:
    """Results of the checks of a lab.

    ``status`` is pytest's own exit status; ``measured`` are the figures that tests have measured, with their
    units, by name.
    """

    name: str
    junit: str
    cases: tuple[Case, ...]
    status: int
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if there is a test and every one passed or was skipped, else 1."""
        return 0 if self.status == 0 else CheckFailed.exit_code

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        outcomes = Counter(case.outcome for case in self.cases)
        counts = {word: outcomes[outcome] for outcome, word in PYTEST.words.items()}
        return {
            "name": self.name,
            **counts,
            "junit": self.junit,
            "measured": self.measured,
            "cases": [case.as_json() for case in self.cases],
        }


def run(
    folder: Path,
    name: str,
    junit: Path,
    *,
    quiet: bool = False,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    select: str = "",
    here: bool = False,
) -> Checked:
    """Run the checks in ``folder`` on the running lab ``name``.

    The JUnit report is written to ``junit``. ``quiet`` redirects pytest's stdout to stderr, ``log`` all its
    output to a file. ``environment`` is added to that of this process. With ``select``, only tests are run
    that match it as pytest's ``-k``; with ``here``, none that boot labs of their own. Raises CheckFailed
    without a check, and without a report, and UsageError for a ``select`` that matches none.
    """
    junit = junit.resolve()
    junit.unlink(missing_ok=True)
    # If this process ends, pytest ends too, and with it the labs that it has booted.
    tied = ["setpriv", "--pdeathsig", "TERM", "--"]
    pytest = [*tied, sys.executable, "-P", "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    pytest += ["-k", select] if select else []
    pytest += ["--here"] if here else []
    with (
        log.open("wb") if log else nullcontext() as stream,
        spawn(
            [*pytest, f"--junit-xml={junit}", f"--lab={name}", folder.resolve()],
            stdout=stream or (sys.stderr if quiet else None),
            stderr=stream,
            cwd=paths.PROJECT,
            env=environment,
        ) as process,
    ):
        status = process.wait()
    if select and status in (NO_TESTS, USAGE_ERROR):
        wrong = "matches no check" if status == NO_TESTS else "is not an expression"
        raise UsageError(
            f"--select {select!r} {wrong} of {folder}",
            "it is an expression as of pytest's -k: words of names of checks, with 'and', 'or' and 'not'",
        )
    if status == NO_TESTS and here:
        raise CheckFailed(f"all checks of {folder} boot labs of their own", "leave out --here")
    if status == NO_TESTS:
        raise CheckFailed(f"{folder} has no checks", "a check is a function test_... in a test_*.py")
    if not junit.exists():
        raise CheckFailed(f"pytest ended with status {status} and wrote no report")
    return from_junit(name, junit, status)


def from_junit(name: str, junit: Path, status: int) -> Checked:
    """Read ``junit``, the report of a pytest that ended with ``status``, for the lab ``name``."""
    from xml.etree import ElementTree

    report = ElementTree.parse(junit).getroot()
    found = ((str(each.get("name")), str(each.get("value"))) for each in report.iter("property"))
    figures = {name.removeprefix(MEASURED): figure for name, figure in found if name.startswith(MEASURED)}
    return Checked(name, str(junit), tuple(_cases(report)), status, figures)


def _cases(report: Element) -> Iterator[Case]:
    for case in report.iter("testcase"):
        ended = next((child for child in case if child.tag in _ENDED), None)
        outcome, message = Outcome.PASSED, ""
        if ended is not None:
            outcome = _ENDED[ended.tag]
            said = (ended.text or "", ended.get("message") or "")
            # The text of a skipped test includes the place.
            message = next(filter(None, reversed(said) if ended.tag == "skipped" else said), "").strip()
        told = {str(each.get("name")): str(each.get("value")) for each in case.iter("property")}
        bug = told.get(KNOWN_BUG, "")
        if bug:
            failed = outcome is Outcome.SKIPPED  # pytest reports an expected failure as a skipped test
            outcome = Outcome.EXPECTED_FAILURE if failed else Outcome.UNEXPECTEDLY_PASSED
            message = f"{message}\n{told.get(SAID, '')}".strip()
        yield Case(
            case.get("name", ""),
            outcome,
            float(case.get("time", "0")),
            message,
            told.get(RAISED, ""),
            bug,
            named(told.get(FAMILY, "")),
            OWN_LAB in told,
        )
