"""Results of a matrix: data as kept in the folder of a run, sent between machines, and reported.

The published schema of ``results.json`` is generated from these models.
"""

from __future__ import annotations

import re
from collections import Counter
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from lvslab.lab.directors import DirectorSpec
from lvslab.outcome import Outcome

RESULTS = "results.json"

FORMAT: Literal["lvslab matrix 1"] = "lvslab matrix 1"
"""Value of ``format`` in ``results.json``. Its number changes if older readers would misread the file."""

OUTCOMES = tuple(outcome for outcome in Outcome if outcome is not Outcome.NOT_RUN)
"""Outcomes of a check and of a cell, worst first. That of a cell is the worst of its checks.

EXPECTED_FAILURE and UNEXPECTEDLY_PASSED are for checks that a known bug of this kernel or ipvsadm must fail.
"""

FINE = (Outcome.PASSED, Outcome.SKIPPED)
"""Outcomes that reports do not go into."""


def _of_a_check(outcome: Outcome) -> Outcome:
    if outcome not in OUTCOMES:
        raise ValueError(f"a check that has ended is not {outcome!r}")
    return outcome


Verdict = Annotated[
    Outcome,
    AfterValidator(_of_a_check),
    WithJsonSchema({"enum": [outcome.value for outcome in OUTCOMES], "title": "Verdict", "type": "string"}),
]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Data(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,  # what is written has all fields
    )


class Cell(_Data):
    """One combination to try."""

    lab: str
    """The name of a folder of labs/, or the path of a lab's folder."""
    kernel: str
    """A kernel as in lab.up --kernel."""
    ipvsadm: str = ""
    """A version of ipvsadm, or the path of its source; "" for the image's usual one."""

    @property
    def spec(self) -> DirectorSpec:
        """The cell's directors."""
        return DirectorSpec(self.kernel, ipvsadm=self.ipvsadm)

    @property
    def identity(self) -> str:
        """Its fields in one text, from which seeds and keys are derived."""
        return f"{self.lab}\0{self.kernel}\0{self.ipvsadm}"

    @property
    def key(self) -> str:
        """Unique name for files and messages, the same in every run."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", self.identity).strip("-")
        return f"{words[-60:]}-{sha256(self.identity.encode()).hexdigest()[:6]}"

    def __str__(self) -> str:
        with_ipvsadm = f" with ipvsadm {self.ipvsadm}" if self.ipvsadm else ""
        return f"{self.lab} on {self.kernel}{with_ipvsadm}"


class Case(_Data):
    """One check of a cell."""

    name: str
    """The test's name, as pytest has it."""
    verdict: Verdict
    """Its outcome."""
    seconds: Seconds
    """Its duration."""
    message: str = ""
    """Why it did not pass, "" if it did."""
    bug: str = ""
    """The known bug (an identifier of bugs.toml) that it shows, or should have shown; "" for none."""


class Result(_Data):
    """Result of a cell."""

    cell: Cell
    """The cell that was tried."""
    verdict: Verdict
    """The worst of its checks, or "error" if the lab itself broke."""
    cases: tuple[Case, ...] = ()
    """Its checks, in the order in which they were made."""
    error: str = ""
    """Why the lab itself broke, "" if it did not. If the verdict is not "error", why it broke the first
    time."""
    flaky: bool = False
    """True if the lab broke the first time, and nothing went wrong the second time."""
    attempts: Annotated[int, Field(ge=1, le=2)] = 1
    """Number of attempts: a second one is made if the lab itself broke."""
    seed: int = 0
    """Seed of random choices of its checks."""
    repeat: str = ""
    """Command that runs only this cell again."""
    seconds: Seconds = 0.0
    """Duration of the last attempt, on the worker."""
    evidence: str = ""
    """Folder, relative to that of the run, with transcript, console, captures and pytest's report."""
    versions: dict[str, str] = {}
    """By program: "kernel" (uname -r), "iptables", "ipvsadm", "qemu", "lvslab"."""
    checksums: dict[str, str] = {}
    """SHA-256 of what it was made of: "kernel", "config" and "source" (the kernel's), "ipvsadm", "image"
    (the guest's), "lab" (the lab's folder), "lvslab" (its own code). Of what has none it is not known
    whether it is the same in another run."""
    measured: dict[str, str] = {}
    """Figures that checks have found, with their units, by name."""
    accelerator: str = ""
    """Accelerator of the directors: "kvm", or "tcg" (emulation)."""
    worker: str = ""
    """Host and name of the worker that ran it."""

    @property
    def counts(self) -> dict[Outcome, int]:
        """Number of checks by verdict."""
        found = Counter(case.verdict for case in self.cases)
        return {verdict: found[verdict] for verdict in OUTCOMES}


class Run(_Data):
    """A run of a matrix: results.json."""

    format: Literal["lvslab matrix 1"] = FORMAT
    """Its number changes if older readers would misread the file."""
    begun: str
    """ISO 8601 with a zone."""
    ended: str = ""
    """ISO 8601 with a zone; "" while it runs, or where it was interrupted."""
    seed: int = 0
    """Seed from which the seeds of the cells are derived."""
    machine: dict[str, str] = {}
    """Facts about the machine by name: processors, QEMU, its kernel, the version of lvslab."""
    cells: tuple[Cell, ...]
    """The cells to try. Those without a result are not done yet."""
    results: tuple[Result, ...] = ()
    """Results of the cells that are done."""

    def of(self, cell: Cell) -> Result:
        """Return the result of ``cell``, which must have one."""
        return next(result for result in self.results if result.cell == cell)

    @property
    def by_cell(self) -> dict[Cell, Result | None]:
        """Result of each cell in order, None if it is not done."""
        found = {result.cell: result for result in self.results}
        return {cell: found.get(cell) for cell in (*self.cells, *found)}

    @property
    def counts(self) -> dict[Outcome, int]:
        """Number of cells by verdict."""
        found = Counter(result.verdict for result in self.results)
        return {verdict: found[verdict] for verdict in OUTCOMES}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``results.json``: docs/matrix.schema.json."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    schema = Run.model_json_schema(mode="serialization")
    return {"$schema": dialect, **schema, "title": f"lvslab matrix: {RESULTS}"}
