"""Copies of a lab's directors after the how-to's last step, for labs to begin with.

They live in the process that made them, and in labs that begin with them: nothing of them is in a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lvslab.apply.howto import Step
from lvslab.boot.plan import Guest
from lvslab.boot.status import Notes, Summary

TYPED_IN = "typed-in.json"


@dataclass(frozen=True)
class Applied:
    """Copies of the directors ``guests`` after ``steps``: descriptors of memory and state, by name.

    ``evidence`` is the folder of the lab in which the steps were typed, ``transcript`` that lab's
    transcript.
    """

    guests: tuple[Guest, ...]
    steps: tuple[Step, ...]
    copies: Mapping[str, tuple[int, int]]
    evidence: Path
    transcript: bytes
    summary: Summary

    def fits(self, guests: Sequence[Guest], steps: Sequence[Step]) -> bool:
        """Return whether a lab of ``guests`` and ``steps`` can begin here. They must be the very same."""
        return (self.guests, self.steps) == (tuple(guests), tuple(steps))

    @property
    def notes(self) -> Notes:
        """The notes of a lab that began with these copies."""
        return Notes(steps=self.summary, typed_in=str(self.evidence))

    def record(self, transcript: Path) -> None:
        """Write the transcript, and where it was typed, into the evidence of another lab."""
        transcript.write_bytes(self.transcript)
        transcript.with_name(TYPED_IN).write_text(json.dumps(self.notes.as_json(), indent=1) + "\n")

    def close(self) -> None:
        """Close the descriptors; labs that began with the copies keep them until they end."""
        close(self.copies)


def close(copies: Mapping[str, tuple[int, int]]) -> None:
    for pair in copies.values():
        for descriptor in pair:
            os.close(descriptor)
