"""What came of a how-to that was typed step by step: on one kernel, and on several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lvslab.apply.verdicts import Judged
from lvslab.errors import BootError, StepFailed


@dataclass(frozen=True)
class OnKernel:
    """What came of a how-to on one kernel.

    ``kernel`` is the name that was asked for, "" for the one of lab.yaml. ``versions``, ``accelerator`` and
    ``evidence`` (a folder) are of the lab that was booted. Where it did not come up they may be empty,
    ``error`` says why, ``error_status`` is its exit status, and no step was run; else ``error`` is "".
    ``seconds`` is the time from the first step's beginning to the last one's end.
    """

    kernel: str
    versions: Mapping[str, str]
    accelerator: str
    evidence: str
    seconds: float
    steps: tuple[Judged, ...]
    error: str = ""
    error_status: int = 0

    @property
    def label(self) -> str:
        """What to call the kernel."""
        return self.kernel or self.versions.get("kernel", "") or "lab.yaml's kernel"

    @property
    def counts(self) -> dict[str, int]:
        """How many steps there are of each verdict."""
        found = Counter(step.verdict for step in self.steps)
        return {verdict: found[verdict] for verdict in ("ok", "failed", "expected failure", "not run")}

    @property
    def exit_code(self) -> int:
        """0 where every step ended as the how-to says; 5 where one failed; else that of what kept the lab
        from coming up, or a step from being run."""
        if self.counts["failed"]:
            return StepFailed.exit_code
        if self.error:
            return self.error_status
        return BootError.exit_code if self.counts["not run"] else 0

    def as_json(self) -> dict[str, Any]:
        """This kernel's part of the document of ``--json``."""
        document = asdict(self)
        del document["error_status"]
        steps = document.pop("steps")
        return {**document, "counts": self.counts, "steps": list(steps)}


@dataclass(frozen=True)
class Verified:
    """What came of a how-to: ``file`` in the lab ``lab``, on each kernel. ``untyped`` are the lines of its
    shell blocks that say no node."""

    file: str
    lab: str
    untyped: tuple[int, ...]
    runs: tuple[OnKernel, ...]

    @property
    def exit_code(self) -> int:
        """5 where a step failed on any kernel; else that of the first kernel which was not well; else 0."""
        codes = [run.exit_code for run in self.runs if run.exit_code]
        return StepFailed.exit_code if StepFailed.exit_code in codes else next(iter(codes), 0)

    def as_json(self) -> dict[str, Any]:
        """The document of ``--json``."""
        return {
            "howto": self.file,
            "lab": self.lab,
            "untyped": list(self.untyped),
            "kernels": [run.as_json() for run in self.runs],
        }
