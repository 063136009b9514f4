"""``kernel.try``: run the checks of labs on a given kernel, and answer ``git bisect run``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.boot.events import Listener, ignore
from lvslab.check import pytest_run
from lvslab.cluster import prepare
from lvslab.errors import LvsLabError, UsageError
from lvslab.kernel import supplied
from lvslab.lab.files import LAB_FILE
from lvslab.matrix import cell
from lvslab.matrix.results import FINE, Case, Cell, Result
from lvslab.outcome import TRIALS, Outcome
from lvslab.run import run as run_program

STATUS = {Outcome.PASSED: 0, Outcome.FAILED: 1, Outcome.ERROR: 125}
"""Exit statuses for ``git bisect run``: 125 skips a commit, any other up to 127 marks it as bad."""

STOP = 128
"""Lowest status that stops ``git bisect run``: for errors in the command line, equal for all commits."""

_USAGE = 4  # pytest.ExitCode.USAGE_ERROR


@dataclass(frozen=True)
class Trial:
    """Result of a trial: PASSED, FAILED, or ERROR if nothing can be said about the kernel.

    ``kernel`` describes the kernel, "" if there is none; ``why`` explains an outcome other than PASSED.
    """

    outcome: Outcome
    why: str = ""
    kernel: str = ""
    results: tuple[Result, ...] = ()
    evidence: str = ""

    @property
    def answer(self) -> str:
        """The outcome in the words of ``git bisect``: "good", "bad" or "cannot tell"."""
        return TRIALS.word(self.outcome)

    @property
    def exit_code(self) -> int:
        """Exit status for ``git bisect run``."""
        return STATUS[self.outcome]

    @property
    def unusual(self) -> Iterator[tuple[Result, Case]]:
        """Checks that neither passed nor were skipped."""
        for result in self.results:
            yield from ((result, case) for case in result.cases if case.verdict not in FINE)

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "answer": self.answer,
            "why": self.why,
            "kernel": self.kernel,
            "evidence": self.evidence,
            "results": [result.model_dump() for result in self.results],
        }


def run(
    path: Path,
    *,
    labs: Sequence[str],
    select: str = "",
    message: str = "",
    strict: bool = False,
    build: bool = False,
    config: Path | None = None,
    jobs: int | None = None,
    report: Listener = ignore,
) -> Trial:
    """Run the checks of ``labs`` on the kernel in ``path``.

    With ``select``, only checks are run that match it as pytest's ``-k``. ``message`` is a regular
    expression: failures whose message does not match it do not count. With ``strict``, failures that a known
    bug explains count as well. ``build``, ``config`` and ``jobs`` are as in `lvslab.kernel.supplied.usable`,
    ``report`` as in ``cluster.booted``. Raises UsageError for errors in the command line, but not for those
    of the kernel.
    """
    wanted = _with_checks(labs, select)
    try:
        re.compile(message)
    except re.error as error:
        raise UsageError(f"--message is {message!r}, which is not a regular expression: {error}") from None
    if config is not None and not config.is_file():
        raise UsageError(f"there is no file {config}", "--config takes a file of kernel settings")
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs is {jobs}, and make takes at least 1")
    results: list[Result] = []
    what = evidence = ""
    try:
        name, what = supplied.usable(path, build=build, config=config, jobs=jobs)
        folder = prepare.evidence_folder("kernel-try")
        evidence = str(folder)
        for number, lab in enumerate(wanted, start=1):
            own = Cell(lab=lab, kernel=name)
            place = folder / Path(lab).resolve().name
            if place.exists():  # of another lab whose folder has that name
                place = folder / f"{place.name}-{number}"
            found = cell.run(own, place, attempts=1, report=report, select=select)
            results.append(found.model_copy(update={"evidence": place.name}))
        outcome, why = judge(results, select=select, message=message, strict=strict)
    except LvsLabError as error:
        outcome, why = Outcome.ERROR, str(error)
    return Trial(outcome, why, what, tuple(results), evidence)


def judge(
    results: Sequence[Result], *, select: str = "", message: str = "", strict: bool = False
) -> tuple[Outcome, str]:
    """Outcome of a trial, and the reason unless it is PASSED.

    One failure whose text matches ``message`` makes it FAILED; expected failures count with ``strict`` only.
    It is ERROR if a lab broke, even if a check failed in it, if every check was skipped, or if the how-to
    failed before the check that ``select`` asks for.
    """
    bad = (Outcome.FAILED, Outcome.EXPECTED_FAILURE) if strict else (Outcome.FAILED,)
    failed = [
        case
        for result in results
        if result.verdict is not Outcome.ERROR
        for case in result.cases
        if case.verdict in bad and not (select and case.name == cell.HOWTO_CASE)
    ]
    as_said = sum(bool(re.search(message, case.message)) for case in failed)
    if as_said:
        return Outcome.FAILED, f"{as_said} {'check' if as_said == 1 else 'checks'} failed"
    if failed:
        return Outcome.ERROR, f"{failed[0].name} failed, and does not say {message!r}"
    for result in results:
        if result.error:
            return Outcome.ERROR, f"{result.cell.lab}: {result.error}"
    ran = [case for result in results for case in result.cases if case.name != cell.HOWTO_CASE]
    if not ran:
        return Outcome.ERROR, "the how-to failed, so no check was run"
    skipped = [case for case in ran if case.verdict is Outcome.SKIPPED]
    if len(skipped) == len(ran):
        # pytest's reason comes last; that of a lab that was not booted comes first, before what to do.
        line = 0 if skipped[0].name == LAB_FILE else -1
        return Outcome.ERROR, f"every check was skipped: {skipped[0].message.splitlines()[line]}"
    return Outcome.PASSED, ""


def _with_checks(labs: Sequence[str], select: str) -> list[str]:
    """Filter ``labs`` by checks that match ``select``. Raises UsageError if none is left."""
    folders = {lab: cell.find_lab(lab).folder for lab in labs}
    if not select:
        return list(folders)
    found = []
    for lab, folder in folders.items():
        command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q"]
        done = run_program([*command, "-k", select, folder.resolve()], cwd=paths.PROJECT, check=False)
        if done.returncode == _USAGE:
            said = done.stderr.decode().strip().splitlines()
            raise UsageError(f"--select is {select!r}: {said[-1] if said else 'pytest does not take it'}")
        if done.returncode != pytest_run.NO_TESTS:
            found.append(lab)
    if not found:
        raise UsageError(f"no check of {', '.join(labs)} matches --select {select!r}", "it is pytest's -k")
    return found
