"""A lab's directors as they were right after the how-to was typed on them, for further labs to begin with.

All of it lives in the process that has it, and in labs that begin with it: nothing of it is in a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lvslab.apply.howto import Step
from lvslab.apply.runner import Summary
from lvslab.boot.plan import Guest

TYPED_IN = "typed-in.json"


@dataclass(frozen=True)
class Applied:
    """Copies of the directors ``guests`` after ``steps``: descriptors of memory and state, by name.

    ``evidence`` is the folder of the lab in which the steps were typed, ``transcript`` what was written
    down of them.
    """

    guests: tuple[Guest, ...]
    steps: tuple[Step, ...]
    copies: Mapping[str, tuple[int, int]]
    evidence: Path
    transcript: bytes
    summary: Summary

    def fits(self, guests: Sequence[Guest], steps: Sequence[Step]) -> bool:
        """Whether a lab of these guests with these steps can begin here: only with the very same ones."""
        return (self.guests, self.steps) == (tuple(guests), tuple(steps))

    @property
    def notes(self) -> dict[str, Any]:
        """What the status of a lab says that began here."""
        return {"steps": asdict(self.summary), "typed_in": str(self.evidence)}

    def tell(self, transcript: Path) -> None:
        """Put into a lab's evidence what was typed, and where it was."""
        transcript.write_bytes(self.transcript)
        transcript.with_name(TYPED_IN).write_text(json.dumps(self.notes, indent=1) + "\n")

    def close(self) -> None:
        """Let go of the copies; labs that began with them keep them until they end."""
        close(self.copies)


def close(copies: Mapping[str, tuple[int, int]]) -> None:
    """Close all descriptors."""
    for pair in copies.values():
        for descriptor in pair:
            os.close(descriptor)
