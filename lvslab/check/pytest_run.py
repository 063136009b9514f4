"""The checks of a lab, run by pytest, and what came of them by its report."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab import paths
from lvslab.check.pytest_plugin.figures import FAMILY, KNOWN_BUG, MEASURED, RAISED, SAID
from lvslab.errors import CheckFailed, LvsLabError, named
from lvslab.run import spawn

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
"""What a test may come to; the last two where a known bug must make it fail: it did, or passed."""
_UNEXPECTED = "[XPASS(strict)]"
"""How pytest's message begins for a test that passed where it was expected to fail."""
NO_TESTS = 5  # pytest.ExitCode.NO_TESTS_COLLECTED


@dataclass(frozen=True)
class Case:
    """One test: ``outcome`` is one of OUTCOMES; ``message`` says why.

    ``raised`` names the class of the LvsLabError that ended it, ``family`` is the nearest class of
    `lvslab.errors`, and ``bug`` the known bug that must make it fail; "" or None where there is none.
    """

    name: str
    outcome: str
    seconds: float
    message: str
    raised: str = ""
    bug: str = ""
    family: type[LvsLabError] | None = None

    def as_json(self) -> dict[str, Any]:
        """The case in the document of ``--json``."""
        return {name: value for name, value in asdict(self).items() if name != "family"}


@dataclass(frozen=True)
class Checked:
    """What came of ``check``. ``status`` is pytest's own exit status; ``measured`` are the figures that the
    tests have found, with their units, by name."""

    name: str
    junit: str
    cases: tuple[Case, ...]
    status: int
    measured: dict[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where every test passed or was skipped, and there was one; else 1."""
        return 0 if self.status == 0 else CheckFailed.exit_code

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        outcomes = Counter(case.outcome for case in self.cases)
        counts = {outcome: outcomes[outcome] for outcome in OUTCOMES}
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
) -> Checked:
    """Run the checks in ``folder`` on the lab that is up as ``name``; ``junit`` is where the report goes.
    ``quiet`` sends pytest's words to stderr, ``log`` all that is said to a file. ``environment`` is added to
    this process's. Where ``select`` is given, only tests are run that pytest -k finds by it. Raises
    CheckFailed where there is no check, or no report.
    """
    junit = junit.resolve()
    junit.unlink(missing_ok=True)
    # pytest ends with this process, however this one ends, and the labs that it has booted end with pytest.
    tied = ["setpriv", "--pdeathsig", "TERM", "--"]
    pytest = [*tied, sys.executable, "-P", "-m", "pytest", "-v", "-p", "no:cacheprovider"]
    if select:
        pytest += ["-k", select]
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
    if status == NO_TESTS:
        raise CheckFailed(
            f"there are no checks in {folder}", "a check is a function test_... in a test_*.py"
        )
    if not junit.exists():
        raise CheckFailed(f"pytest ended with status {status} and wrote no report")
    return read(name, junit, status)


def read(name: str, junit: Path, status: int) -> Checked:
    """What the report ``junit`` of a pytest that ended with ``status`` says of the lab ``name``."""
    from xml.etree import ElementTree

    report = ElementTree.parse(junit).getroot()
    return Checked(name, str(junit), tuple(_cases(report)), status, _measured(report))


def _cases(report: Element) -> Iterator[Case]:
    for case in report.iter("testcase"):
        ended = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if ended is None else {"failure": "failed"}.get(ended.tag, ended.tag)
        message = "" if ended is None else _message(ended)
        told = {str(each.get("name")): str(each.get("value")) for each in case.iter("property")}
        bug = _bug(ended) if ended is not None else ""
        if bug:
            outcome = "xfailed" if outcome == "skipped" else "xpassed"
            message = f"{message}\n{told.get(SAID, '')}".strip()
        yield Case(
            case.get("name", ""),
            outcome,
            float(case.get("time", "0")),
            message,
            told.get(RAISED, ""),
            bug,
            named(told.get(FAMILY, "")),
        )


def _message(ended: Element) -> str:
    """Why a test ended as it did. Of one that was skipped the reason alone: its text says where, too."""
    said = (ended.text or "", ended.get("message") or "")
    first, second = reversed(said) if ended.tag == "skipped" else said
    return (first or second).strip()


def _bug(ended: Element) -> str:
    """The known bug for which a test was expected to fail, whether it did (a skip of a kind of its own) or
    not; "" for none."""
    message = ended.get("message") or ""
    if ended.get("type") == "pytest.xfail" or message.startswith(_UNEXPECTED):
        found = re.search(rf"{KNOWN_BUG}([\w.-]+):", message)
        return found[1] if found else ""
    return ""


def _measured(report: Element) -> dict[str, str]:
    """The figures of the fixture ``measured``, by name."""
    found = ((str(each.get("name")), str(each.get("value"))) for each in report.iter("property"))
    return {name.removeprefix(MEASURED): figure for name, figure in found if name.startswith(MEASURED)}
