"""Results of a how-to that was typed step by step, on one kernel or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvslab.apply.verdicts import StepVerdict
from lvslab.errors import BootError, StepFailed
from lvslab.outcome import STEPS, Outcome

OUTCOMES = (Outcome.PASSED, Outcome.FAILED, Outcome.EXPECTED_FAILURE, Outcome.NOT_RUN)
"""Verdicts on steps, in the order in which they are counted."""


@dataclass(frozen=True)
class OnKernel:
    """Results of a how-to on one kernel.

    ``kernel`` is the requested name, "" for that of lab.yaml. ``versions``, ``accelerator`` and ``evidence``
    (a folder) are those of the lab. If it did not come up, they may be empty, ``error`` says why with the
    exit status ``error_status``, and no step was run. ``seconds`` is the duration of all steps.
    """

    kernel: str
    versions: Mapping[str, str]
    accelerator: str
    evidence: str
    seconds: float
    steps: tuple[StepVerdict, ...]
    error: str = ""
    error_status: int = 0

    @property
    def label(self) -> str:
        """The kernel's name for people."""
        return self.kernel or self.versions.get("kernel", "") or "lab.yaml's kernel"

    @property
    def counts(self) -> dict[Outcome, int]:
        """The number of steps by verdict."""
        found = Counter(step.verdict for step in self.steps)
        return {verdict: found[verdict] for verdict in OUTCOMES}

    @property
    def exit_code(self) -> int:
        """The exit status: 0 if every step ended as the how-to says, 5 if one failed.

        Otherwise it is that of the lab that did not come up, or 4 if a step was not run.
        """
        if self.counts[Outcome.FAILED]:
            return StepFailed.exit_code
        if self.error:
            return self.error_status
        return BootError.exit_code if self.counts[Outcome.NOT_RUN] else 0

    def as_json(self) -> dict[str, Any]:
        """Return this kernel's part of the document of ``--json``."""
        document = asdict(self)
        del document["error_status"], document["steps"]
        counts = {STEPS.word(verdict): count for verdict, count in self.counts.items()}
        return {**document, "counts": counts, "steps": [step.as_json() for step in self.steps]}


@dataclass(frozen=True)
class Verified:
    """Results of the how-to ``file`` in the lab ``lab``, by kernel.

    ``untyped`` are the lines of shell blocks that name no node, and so were not typed.
    """

    file: str
    lab: str
    untyped: tuple[int, ...]
    runs: tuple[OnKernel, ...]

    @property
    def exit_code(self) -> int:
        """The exit status: 5 if a step failed on any kernel, else the first that is not 0."""
        codes = [run.exit_code for run in self.runs if run.exit_code]
        return StepFailed.exit_code if StepFailed.exit_code in codes else next(iter(codes), 0)

    def as_json(self) -> dict[str, Any]:
        """Return the document of ``--json``."""
        return {
            "howto": self.file,
            "lab": self.lab,
            "untyped": list(self.untyped),
            "kernels": [run.as_json() for run in self.runs],
        }
