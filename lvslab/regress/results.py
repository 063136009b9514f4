"""What comes of a matrix: data, as it is kept in a run's folder, travels between machines, and is reported.

The published schema of ``results.json`` is made of these models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Literal["lvslab matrix 1"] = "lvslab matrix 1"
"""What ``results.json`` begins with. The number changes when an older reader would misread a newer file."""

Verdict = Literal["error", "failed", "unexpectedly passed", "expected failure", "passed", "skipped"]
"""What came of a check, and of a cell: the first of these that any of its checks has come to.

``error``: the lab itself broke, and nothing is known. ``expected failure`` and ``unexpectedly passed`` are
of checks that a known bug of this kernel or ipvsadm must fail. ``skipped``: the version lacks the feature.
"""

WORST_FIRST: tuple[Verdict, ...] = (
    "error",
    "failed",
    "unexpectedly passed",
    "expected failure",
    "passed",
    "skipped",
)

Seconds = Annotated[float, Field(ge=0)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_Data):
    """One combination to try: a lab (the name of a folder of labs/, or a path), a kernel as ``lab.up
    --kernel`` takes it, and a version of ipvsadm ("" for the image's usual one)."""

    lab: str
    kernel: str
    ipvsadm: str = ""

    def __str__(self) -> str:
        with_ipvsadm = f" with ipvsadm {self.ipvsadm}" if self.ipvsadm else ""
        return f"{self.lab} on {self.kernel}{with_ipvsadm}"


class Case(_Data):
    """One check of a cell. ``message`` says why it did not pass; ``bug`` is the known bug (an identifier of
    ``bugs.toml``) that it shows, or should have shown, "" for none."""

    name: str
    verdict: Verdict
    seconds: Seconds
    message: str = ""
    bug: str = ""


class Result(_Data):
    """What came of a cell.

    ``seed`` is what random choices of its checks came from, ``repeat`` a command that runs it alone once
    more. ``error`` says why the lab itself broke, "" where it did not; ``attempts`` is 2 where the first
    broke, and it is ``flaky`` if the second then passed. ``evidence`` is a folder, relative to that of the
    run; ``captures`` and other files are in it. ``versions`` are by program, ``checksums`` (SHA-256) by what
    they are of: "kernel", "config", "ipvsadm". ``seconds`` is the time from the begin of the cell's last
    attempt to its end, on ``worker``.
    """

    cell: Cell
    verdict: Verdict
    cases: tuple[Case, ...] = ()
    error: str = ""
    flaky: bool = False
    attempts: Annotated[int, Field(ge=1, le=2)] = 1
    seed: int = 0
    repeat: str = ""
    seconds: Seconds = 0.0
    evidence: str = ""
    versions: dict[str, str] = {}
    checksums: dict[str, str] = {}
    measured: dict[str, str] = {}
    accelerator: str = ""
    worker: str = ""

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many checks came to each verdict."""
        found = Counter(case.verdict for case in self.cases)
        return {verdict: found[verdict] for verdict in WORST_FIRST}


class Run(_Data):
    """A run of a matrix: ``results.json``. ``begun`` and ``ended`` are ISO 8601 with a zone, ``ended`` is ""
    while it runs or where it was interrupted. ``machine`` says what it ran on, by what it says (processors,
    QEMU, this machine's kernel, lvslab's version). Cells that have no result are not done yet."""

    format: Literal["lvslab matrix 1"] = FORMAT
    begun: str
    ended: str = ""
    seed: int = 0
    machine: dict[str, str] = {}
    cells: tuple[Cell, ...]
    results: tuple[Result, ...] = ()

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many cells came to each verdict."""
        found = Counter(result.verdict for result in self.results)
        return {verdict: found[verdict] for verdict in WORST_FIRST}


def verdict_of(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a cell whose checks came to ``verdicts``: the worst; "error" where there are none."""
    found = set(verdicts)
    return next((verdict for verdict in WORST_FIRST if verdict in found), "error")
