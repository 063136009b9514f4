"""Model of a report: suites of cases, which every format of reports is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lvslab.outcome import Outcome


@dataclass(frozen=True)
class ReportCase:
    """A check or a step.

    ``word`` is the word for its outcome, by default that of `Outcome`; ``message`` says why it ended so.
    ``output`` is what it printed. ``seconds`` is None if it has no duration of its own.
    """

    name: str
    outcome: Outcome
    seconds: float | None = None
    message: str = ""
    output: str = ""
    word: str = ""


@dataclass(frozen=True)
class Suite:
    """Cases of one lab on one kernel.

    ``group`` is their common name in hierarchies, with dots. ``properties`` are facts by name, such as
    versions and the folder of the evidence.
    """

    name: str
    group: str
    cases: tuple[ReportCase, ...]
    seconds: float | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Suites of a run. ``begun`` is the time in ISO 8601, "" if it is not known."""

    name: str
    suites: tuple[Suite, ...]
    begun: str = ""
