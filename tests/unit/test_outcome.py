from __future__ import annotations

import pytest

from lvslab import outcome
from lvslab.outcome import CELLS, CLAIMS, PYTEST, STEPS, TRIALS, Outcome, Vocabulary, worst


@pytest.mark.parametrize("vocabulary", [STEPS, PYTEST, CELLS, TRIALS, CLAIMS])
def test_a_word_stands_for_one_outcome(vocabulary: Vocabulary) -> None:
    assert {vocabulary.outcome(word): word for word in vocabulary.words.values()} == vocabulary.words
    assert [vocabulary.word(found) for found in vocabulary.words] == [*vocabulary.words.values()]
    with pytest.raises(ValueError, match="unknown outcome 'fine'"):
        vocabulary.outcome("fine")


def test_words_that_documents_have() -> None:
    """These stand in files that others read: a word that changes here is a change of format."""
    words = {
        name: [*found.words.values()]
        for name, found in vars(outcome).items()
        if isinstance(found, Vocabulary)
    }
    assert words == {
        "STEPS": ["ok", "failed", "expected failure", "unexpectedly passed", "not run"],
        "PYTEST": ["passed", "failed", "error", "skipped", "xfailed", "xpassed"],
        "CELLS": [
            "error",
            "failed",
            "unexpectedly passed",
            "expected failure",
            "passed",
            "skipped",
            "not done",
        ],
        "TRIALS": ["good", "bad", "cannot tell"],
        "CLAIMS": ["yes", "no", "not tried", "-"],
    }


def test_the_worst_counts() -> None:
    assert worst([Outcome.SKIPPED, Outcome.PASSED, Outcome.EXPECTED_FAILURE]) is Outcome.EXPECTED_FAILURE
    assert worst([Outcome.FAILED, Outcome.ERROR]) is Outcome.ERROR
    assert worst([Outcome.SKIPPED, Outcome.SKIPPED]) is Outcome.SKIPPED
    # Of nothing, nothing is known.
    assert worst([]) is Outcome.ERROR


def test_what_a_person_has_to_look_at() -> None:
    assert [found.value for found in Outcome if found.bad] == ["error", "failed", "unexpectedly passed"]
