"""Is this kernel good? Labs' checks on a kernel that somebody has at hand, with an answer for ``git bisect
run``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lvslab import paths
from lvslab.boot.events import Listener, ignore
from lvslab.check import pytest_run
from lvslab.cluster import prepare
from lvslab.errors import LvsLabError, UsageError
from lvslab.kernel import supplied
from lvslab.matrix import cell
from lvslab.matrix.results import Case, Cell, Result
from lvslab.run import run as run_program

Answer = Literal["good", "bad", "cannot tell"]

STATUS: dict[Answer, int] = {"good": 0, "bad": 1, "cannot tell": 125}
"""What ``git bisect run`` makes of an exit status: 125 skips a commit, other ones up to 127 call it bad."""

STOP = 128
"""The least status by which ``git bisect run`` stops: for a mistake in the command line, which is the same
with every commit."""

_USAGE = 4  # pytest.ExitCode.USAGE_ERROR


@dataclass(frozen=True)
class Trial:
    """What came of a trial. ``kernel`` says what was tried, "" where there is none; ``why`` explains an
    answer other than good."""

    answer: Answer
    why: str = ""
    kernel: str = ""
    results: tuple[Result, ...] = ()
    evidence: str = ""

    @property
    def exit_code(self) -> int:
        """For ``git bisect run``."""
        return STATUS[self.answer]

    @property
    def unusual(self) -> Iterator[tuple[Result, Case]]:
        """The checks that did not pass, but for those that were skipped."""
        for result in self.results:
            yield from ((result, case) for case in result.cases if case.verdict not in ("passed", "skipped"))

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
    """Run the checks of ``labs`` on the kernel of ``path``; only those that pytest -k finds by ``select``,
    where that is given.

    With ``message``, a regular expression, any failure without it in what it says is no answer. With
    ``strict`` a failure is one even where a known bug explains it. ``build``, ``config`` and ``jobs`` are as
    in ``kernel_given.usable``, ``report`` as in ``cluster.booted``. Raises UsageError for whatever is wrong
    with the command line, and not with the kernel.
    """
    wanted = _with_checks(labs, select)
    try:
        re.compile(message)
    except re.error as error:
        raise UsageError(f"--message is {message!r}, which is no regular expression: {error}") from None
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
    except LvsLabError as error:
        return Trial("cannot tell", str(error), what, tuple(results), evidence)
    answer, why = answer_of(results, select=select, message=message, strict=strict)
    return Trial(answer, why, what, tuple(results), evidence)


def answer_of(
    results: Sequence[Result], *, select: str = "", message: str = "", strict: bool = False
) -> tuple[Answer, str]:
    """What the ``results`` of labs say of their kernel, and why where it is not good.

    One failure is enough to call it bad, if ``message`` is found in what it says. Of a single check
    (``select``) nothing is known where the how-to failed before it. An expected failure is one with
    ``strict`` only. Nothing is known either where a lab broke, whatever failed then, or every check was
    skipped.
    """
    bad = ("failed", "expected failure") if strict else ("failed",)
    failed = [
        case
        for result in results
        if result.verdict != "error"
        for case in result.cases
        if case.verdict in bad and not (select and case.name == cell.HOWTO_CASE)
    ]
    as_said = sum(bool(re.search(message, case.message)) for case in failed)
    if as_said:
        return "bad", f"{as_said} {'check' if as_said == 1 else 'checks'} failed"
    if failed:
        return "cannot tell", f"{failed[0].name} failed, and does not say {message!r}"
    for result in results:
        if result.error:
            return "cannot tell", f"{result.cell.lab}: {result.error}"
    ran = [case for result in results for case in result.cases if case.name != cell.HOWTO_CASE]
    if not ran:
        return "cannot tell", "the how-to failed, so no check was run"
    skipped = [case for case in ran if case.verdict == "skipped"]
    if len(skipped) == len(ran):
        return "cannot tell", f"every check was skipped: {skipped[0].message.splitlines()[-1]}"
    return "good", ""


def _with_checks(labs: Sequence[str], select: str) -> list[str]:
    """Those of ``labs`` that have checks which ``select`` finds. Raises UsageError where there are none, and
    where a lab is no lab."""
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
