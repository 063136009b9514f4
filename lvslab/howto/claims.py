"""Claims of the tutorial, their evidence, and the verdict on each kernel.

``docs/tutorial/claims.toml`` has the claims, in our words. Evidence of a claim are the steps under a heading
of a how-to in the same folder, a check of a lab, or reading. The results of steps and checks on each kernel
are recorded in ``results.json`` (by `lvslab.howto.record`); nothing is run here.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.errors import LabFileError
from lvslab.outcome import CLAIMS as WORDS
from lvslab.outcome import PYTEST, STEPS, Outcome

CLAIMS, RESULTS, REVIEW = "claims.toml", "results.json", "tutorial-review.md"
_WORST_FIRST = (Outcome.ERROR, Outcome.FAILED, Outcome.PASSED, Outcome.SKIPPED)
"""Outcomes of a check that count; one that shows a known bug is as if it had not been run."""


@dataclass(frozen=True)
class Group:
    """Kernels that share a column, by their names for ``--kernel``."""

    name: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """Evidence: the steps under ``heading`` in ``howto`` (a file name without .md).

    If they end as they should, the claim holds, or does not with ``refutes``.
    """

    howto: str
    heading: str
    refutes: bool


@dataclass(frozen=True)
class Check:
    """Evidence: a ``test`` of ``lab``. If it passes, the claim holds, or does not with ``refutes``.

    A parametrized test stands for all of its runs, or, written as ``test_files[PASV]``, for one of them.
    """

    lab: str
    test: str
    refutes: bool

    @property
    def function(self) -> str:
        """The name of the test without parameters."""
        return self.test.partition("[")[0]


@dataclass(frozen=True)
class Reading:
    """Evidence: what ``source`` says, by name of group or kernel."""

    source: str
    holds: Mapping[str, Outcome]


@dataclass(frozen=True)
class Claim:
    """Statement of a ``section`` of the tutorial, our ``remark`` on it, and its evidence.

    Without evidence it has not been tried; ``later`` is the planned lab that will show it. It is ``about``
    these groups or kernels, or about all if there are none; the evidence does not count on those in
    ``untried``. With ``bugs``, the review also lists known bugs that checks show on these kernels.
    """

    section: str
    says: str
    remark: str
    steps: tuple[Steps, ...]
    checks: tuple[Check, ...]
    reading: Reading | None
    later: str
    about: tuple[str, ...]
    untried: tuple[str, ...]
    bugs: bool = False

    def concerns(self, group: Group, kernel: str) -> bool:
        """True if the claim is about ``kernel``, one of ``group``."""
        return not self.about or group.name in self.about or kernel in self.about


@dataclass(frozen=True)
class Claims:
    """Contents of claims.toml."""

    groups: tuple[Group, ...]
    sections: Mapping[str, str]
    claims: tuple[Claim, ...]

    def numbered(self) -> Iterator[tuple[int, Claim]]:
        """Yield the claims in the order of the sections, counted from 1."""
        return enumerate(
            (each for section in self.sections for each in self.claims if each.section == section), 1
        )

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels of all groups."""
        return tuple(kernel for group in self.groups for kernel in group.kernels)

    @property
    def howtos(self) -> tuple[str, ...]:
        """The how-tos with evidence, without repetitions."""
        return tuple(dict.fromkeys(step.howto for claim in self.claims for step in claim.steps))

    @property
    def labs(self) -> tuple[str, ...]:
        """The labs with evidence, without repetitions."""
        return tuple(dict.fromkeys(check.lab for claim in self.claims for check in claim.checks))


def folder() -> Path:
    """Return the folder of claims, how-tos and results."""
    return paths.PROJECT / "docs/tutorial"


def read_claims(path: Path) -> Claims:
    """Read the claims in ``path``. Raises LabFileError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        groups = tuple(Group(row["name"], tuple(row["kernels"])) for row in table["group"])
        return Claims(groups, table["section"], tuple(map(_claim, table["claim"])))
    except OSError as error:
        raise LabFileError(path, 0, f"cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise LabFileError(path, 0, f"this is not TOML: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise LabFileError(path, 0, f"a claim or group is not as it should be: {error!r}") from None


def _claim(row: dict[str, Any]) -> Claim:
    known = {"section", "says", "remark", "shown_by", "refuted_by", "passes", "refuted_where_passes", "read"}
    known |= {"source", "later", "about", "untried", "bugs"}
    if unknown := row.keys() - known:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r} in the claim {row.get('says', '')!r}")
    steps = [Steps(*_two(word, "#"), False) for word in row.get("shown_by", ())]
    steps += [Steps(*_two(word, "#"), True) for word in row.get("refuted_by", ())]
    checks = [Check(*_two(word, "::"), False) for word in row.get("passes", ())]
    checks += [Check(*_two(word, "::"), True) for word in row.get("refuted_where_passes", ())]
    reading = None
    if "read" in row:
        reading = Reading(row["source"], {name: WORDS.outcome(word) for name, word in row["read"].items()})
    return Claim(
        row["section"],
        row["says"].strip(),
        row.get("remark", "").strip(),
        tuple(steps),
        tuple(checks),
        reading,
        row.get("later", ""),
        tuple(row.get("about", ())),
        tuple(row.get("untried", ())),
        bool(row.get("bugs", False)),
    )


def _two(word: str, between: str) -> tuple[str, str]:
    file, part = word.split(between, 1)
    return file, part


def read_results(path: Path) -> dict[str, Any]:
    """Read the results in ``path``, which need not exist."""
    if not path.exists():
        return {"howtos": {}, "checks": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def checksum(text: str) -> str:
    """Return a short checksum of the text of a how-to."""
    return sha256(text.encode()).hexdigest()[:16]


def under(text: str, heading: str) -> range:
    """Return the lines of a Markdown ``text`` from ``heading`` to the next one."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(text)
    headings = [
        (token.map[0] + 1, tokens[place + 1].content)
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.map is not None
    ]
    sections = pairwise([*headings, (text.count("\n") + 2, "")])
    return next((range(line, end) for (line, title), (end, _) in sections if title == heading), range(0))


@dataclass(frozen=True)
class Recorded:
    """Recorded ``results``, with the present texts of how-tos and checksums of labs, by name."""

    results: Mapping[str, Any]
    texts: Mapping[str, str]
    labs: Mapping[str, str] = field(default_factory=dict)

    def stale(self) -> list[str]:
        """Return the how-tos whose text is not the recorded one."""
        sums = {name: howto["sha256"] for name, howto in self.results["howtos"].items()}
        return [name for name, text in self.texts.items() if sums.get(name) != checksum(text)]

    def changed(self) -> list[str]:
        """Return the labs that have changed since their checks were recorded."""
        return [
            name
            for name, now in self.labs.items()
            if any(run.get("sha256") != now for run in self.results["checks"].get(name, {}).values())
        ]

    def steps(self, evidence: Steps, kernel: str) -> list[dict[str, Any]]:
        """Return the recorded steps of ``evidence`` on ``kernel``."""
        lines = under(self.texts[evidence.howto], evidence.heading)
        run = self.results["howtos"].get(evidence.howto, {}).get("kernels", {}).get(kernel, {})
        return [step for step in run.get("steps", ()) if step["line"] in lines]

    def outcome(self, check: Check, kernel: str) -> Outcome | None:
        """Return the worst outcome of ``check`` on ``kernel``; None if it was not recorded.

        It is SKIPPED only if all runs were.
        """
        tests = self.results["checks"].get(check.lab, {}).get(kernel, {}).get("tests", {})
        words = {word for name, word in tests.items() if check.test in (name, name.partition("[")[0])}
        found = set(map(PYTEST.outcome, words))
        return next((outcome for outcome in _WORST_FIRST if outcome in found), None)


def holds(claim: Claim, group: Group, kernel: str, recorded: Recorded) -> Outcome:
    """Return the verdict on ``claim`` on ``kernel``, one of ``group``.

    It is FAILED if any evidence is against it, SKIPPED on kernels that it is not about, otherwise PASSED or
    NOT_RUN.
    """
    if not claim.concerns(group, kernel):
        return Outcome.SKIPPED
    if {group.name, kernel} & {*claim.untried}:
        return Outcome.NOT_RUN
    verdicts = [_of_steps(evidence, kernel, recorded) for evidence in claim.steps]
    checked = [_of_check(check, kernel, recorded) for check in claim.checks]
    # A check that was skipped or not run does not count if there are steps.
    verdicts += [found for found in checked if found is not Outcome.NOT_RUN or not verdicts]
    if claim.reading is not None:
        read = claim.reading.holds
        verdicts.append(read.get(kernel, read.get(group.name, Outcome.NOT_RUN)))
    if Outcome.FAILED in verdicts:
        return Outcome.FAILED
    return Outcome.PASSED if verdicts and Outcome.NOT_RUN not in verdicts else Outcome.NOT_RUN


def _of_steps(evidence: Steps, kernel: str, recorded: Recorded) -> Outcome:
    found = {STEPS.outcome(step["verdict"]) for step in recorded.steps(evidence, kernel)}
    if not found or Outcome.NOT_RUN in found:
        return Outcome.NOT_RUN
    return _shown(found == {Outcome.PASSED}, evidence.refutes)


def _of_check(check: Check, kernel: str, recorded: Recorded) -> Outcome:
    outcome = recorded.outcome(check, kernel)
    if outcome in (None, Outcome.SKIPPED):
        return Outcome.NOT_RUN
    return _shown(outcome is Outcome.PASSED, check.refutes)


def _shown(works: bool, refutes: bool) -> Outcome:
    return Outcome.PASSED if works != refutes else Outcome.FAILED
