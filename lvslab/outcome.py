"""Outcomes of steps, checks, labs, trials of a kernel, and claims of the tutorial.

There is one enum for all of them, and a `Vocabulary` for each kind of document with words of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Outcomes, worst first. The value is the word in reports and in ``results.json``."""

    ERROR = "error"
    """The lab itself broke, so nothing is known."""
    FAILED = "failed"
    UNEXPECTEDLY_PASSED = "unexpectedly passed"
    """It passed although a known failure or a known bug was expected."""
    EXPECTED_FAILURE = "expected failure"
    """It failed as a known failure or a known bug makes it."""
    PASSED = "passed"
    SKIPPED = "skipped"
    """The version under test lacks the feature that it is about."""
    NOT_RUN = "not run"

    @property
    def bad(self) -> bool:
        """True if a person has to look at it."""
        return self in (Outcome.ERROR, Outcome.FAILED, Outcome.UNEXPECTEDLY_PASSED)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Worst of ``outcomes``; ERROR where there are none."""
    found = set(outcomes)
    return next((outcome for outcome in Outcome if outcome in found), Outcome.ERROR)


@dataclass(frozen=True)
class Vocabulary:
    """Words of one kind of document, in its order, for the outcomes that occur there."""

    words: Mapping[Outcome, str]

    def word(self, outcome: Outcome) -> str:
        """Word for ``outcome``. Raises KeyError where it does not occur in such a document."""
        return self.words[outcome]

    def outcome(self, word: str) -> Outcome:
        """Outcome that ``word`` stands for. Raises ValueError."""
        for outcome, known in self.words.items():
            if known == word:
                return outcome
        raise ValueError(f"unknown outcome {word!r}")


STEPS = Vocabulary(
    {
        Outcome.PASSED: "ok",
        Outcome.FAILED: "failed",
        Outcome.EXPECTED_FAILURE: "expected failure",
        Outcome.UNEXPECTEDLY_PASSED: "unexpectedly passed",
        Outcome.NOT_RUN: "not run",
    }
)
"""Steps of a how-to: ``transcript.jsonl``, ``verdicts.json`` and ``howto.verify --json``."""
PYTEST = Vocabulary(
    {
        Outcome.PASSED: "passed",
        Outcome.FAILED: "failed",
        Outcome.ERROR: "error",
        Outcome.SKIPPED: "skipped",
        Outcome.EXPECTED_FAILURE: "xfailed",
        Outcome.UNEXPECTEDLY_PASSED: "xpassed",
    }
)
"""Tests, as pytest counts them: ``lab.check --json``."""
CELLS = Vocabulary({**{outcome: outcome.value for outcome in Outcome}, Outcome.NOT_RUN: "not done"})
"""Cells of a matrix and their checks: ``results.json`` and reports."""
TRIALS = Vocabulary({Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.ERROR: "cannot tell"})
"""Trials of a kernel, in the words of ``git bisect``: ``kernel.try``."""
CLAIMS = Vocabulary(
    {Outcome.PASSED: "yes", Outcome.FAILED: "no", Outcome.NOT_RUN: "not tried", Outcome.SKIPPED: "-"}
)
"""Claims of the tutorial: ``claims.toml`` and the review. "-": not about that kernel."""
