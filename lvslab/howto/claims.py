"""What the tutorial says, whether it holds, and how that is known: claims, and results that they rest on.

``docs/tutorial/claims.toml`` has the claims, in our words. The evidence of a claim is what came of the steps
under a heading of a how-to in the same folder, of a lab's check, or of reading. What came of steps and of
checks on each kernel is recorded in ``results.json`` (by ``review_run``); nothing here runs anything.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from lvslab import paths
from lvslab.errors import LabFileError

CLAIMS, RESULTS, REVIEW = "claims.toml", "results.json", "tutorial-review.md"
Holds = Literal["yes", "no", "not tried", "-"]
"""The last one: the claim is not about that kernel."""


@dataclass(frozen=True)
class Group:
    """Kernels that share a column: ``name``, and the kernels as ``--kernel`` has them."""

    name: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """Evidence: the steps under ``heading`` in ``howto`` (a file's name without .md). Where they end as they
    should, the claim holds, or, if ``refutes``, it does not."""

    howto: str
    heading: str
    refutes: bool


@dataclass(frozen=True)
class Check:
    """Evidence: a ``test`` of ``lab``. Where it passes, the claim holds, or, if ``refutes``, it does not.

    A test that runs with several parameters is all of its runs, or, as ``test_files[PASV]``, one of them.
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
    """Evidence: ``source`` was read, and says so for groups and kernels by their names."""

    source: str
    holds: Mapping[str, Holds]


@dataclass(frozen=True)
class Claim:
    """What ``section`` of the tutorial ``says``, and what we say to that.

    Without any evidence it has not been tried; ``later`` is the lab that is going to show it, where one is.
    It is ``about`` these groups or kernels, or, if there are none, about all. On those of ``untried`` the
    evidence says nothing of it. With ``bugs``, what checks of the labs are known to show there is told too.
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


@dataclass(frozen=True)
class Claims:
    """All of claims.toml."""

    groups: tuple[Group, ...]
    sections: Mapping[str, str]
    claims: tuple[Claim, ...]

    def numbered(self) -> Iterator[tuple[int, Claim]]:
        """The claims in the order of the sections, counted from 1."""
        return enumerate(
            (claim for section in self.sections for claim in self.claims if claim.section == section), 1
        )

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels of all groups."""
        return tuple(kernel for group in self.groups for kernel in group.kernels)

    @property
    def howtos(self) -> tuple[str, ...]:
        """The how-tos that evidence comes from, each once."""
        return tuple(dict.fromkeys(step.howto for claim in self.claims for step in claim.steps))

    @property
    def labs(self) -> tuple[str, ...]:
        """The labs that evidence comes from, each once."""
        return tuple(dict.fromkeys(check.lab for claim in self.claims for check in claim.checks))


def folder() -> Path:
    """Where claims, how-tos and results are."""
    return paths.PROJECT / "docs/tutorial"


def read_claims(path: Path) -> Claims:
    """The claims of ``path``. Raises LabFileError where it is not as it should be."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        groups = tuple(Group(row["name"], tuple(row["kernels"])) for row in table["group"])
        claims = tuple(_claim(row) for row in table["claim"])
        return Claims(groups, table["section"], claims)
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
    steps = [_steps(word, False) for word in row.get("shown_by", ())]
    steps += [_steps(word, True) for word in row.get("refuted_by", ())]
    checks = [Check(*_two(word), False) for word in row.get("passes", ())]
    checks += [Check(*_two(word), True) for word in row.get("refuted_where_passes", ())]
    reading = Reading(row["source"], row["read"]) if "read" in row else None
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


def _two(word: str) -> tuple[str, str]:
    lab, test = word.split("::")
    return lab, test


def _steps(word: str, refutes: bool) -> Steps:
    howto, _, heading = word.partition("#")
    return Steps(howto, heading, refutes)


def read_results(path: Path) -> dict[str, Any]:
    """What was recorded; of nothing where there is no such file."""
    if not path.exists():
        return {"howtos": {}, "checks": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def checksum(text: str) -> str:
    """What tells a how-to from an older one of the same name."""
    return sha256(text.encode()).hexdigest()[:16]


def headings(text: str) -> tuple[tuple[int, str], ...]:
    """The headings of a Markdown text with their lines."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(text)
    return tuple(
        (token.map[0] + 1, tokens[place + 1].content)
        for place, token in enumerate(tokens)
        if token.type == "heading_open" and token.map is not None
    )


def under(text: str, heading: str) -> range:
    """The lines of ``text`` under ``heading``, up to the next one; none where there is no such heading."""
    found = headings(text)
    for place, (line, title) in enumerate(found):
        if title == heading:
            end = found[place + 1][0] if place + 1 < len(found) else text.count("\n") + 2
            return range(line, end)
    return range(0)


@dataclass(frozen=True)
class Recorded:
    """``results`` of ``read_results``, with the texts of the how-tos by name, and the checksums of the labs'
    folders as they are now."""

    results: Mapping[str, Any]
    texts: Mapping[str, str]
    labs: Mapping[str, str] = field(default_factory=dict)

    def stale(self) -> list[str]:
        """The how-tos that have changed since their results were recorded."""
        found = self.results["howtos"]
        return [
            name for name, text in self.texts.items() if found.get(name, {}).get("sha256") != checksum(text)
        ]

    def changed(self) -> list[str]:
        """The labs whose files are not those that all results of their checks were recorded with."""
        return [
            name
            for name, now in self.labs.items()
            if any(run.get("sha256") != now for run in self.results["checks"].get(name, {}).values())
        ]

    def steps(self, evidence: Steps, kernel: str) -> list[dict[str, Any]]:
        """What came of the steps of ``evidence`` on ``kernel``; nothing where it was not recorded."""
        lines = under(self.texts[evidence.howto], evidence.heading)
        run = self.results["howtos"].get(evidence.howto, {}).get("kernels", {}).get(kernel, {})
        return [step for step in run.get("steps", ()) if step["line"] in lines]

    def outcome(self, check: Check, kernel: str) -> str:
        """What came of ``check`` on ``kernel``; "" where it was not recorded. Of several runs it is the
        worst; those that were skipped count only where all were."""
        tests = self.results["checks"].get(check.lab, {}).get(kernel, {}).get("tests", {})
        found = {outcome for name, outcome in tests.items() if check.test in (name, name.partition("[")[0])}
        return next(
            (outcome for outcome in ("error", "failed", "passed", "skipped") if outcome in found), ""
        )


def holds(claim: Claim, group: Group, kernel: str, recorded: Recorded) -> Holds:
    """Whether ``claim`` holds on ``kernel``, one of ``group``; any evidence against it is enough."""
    names = {group.name, kernel}
    if claim.about and not names & {*claim.about}:
        return "-"
    if names & {*claim.untried}:
        return "not tried"
    verdicts: list[Holds] = [_of_steps(evidence, kernel, recorded) for evidence in claim.steps]
    checked = [_of_check(check, kernel, recorded) for check in claim.checks]
    # A check that a kernel cannot have, or that was not run, takes nothing from what the steps have shown.
    verdicts += [found for found in checked if found != "not tried" or not verdicts]
    if claim.reading is not None:
        read = claim.reading.holds
        verdicts.append(read.get(kernel, read.get(group.name, "not tried")))
    if "no" in verdicts:
        return "no"
    return "yes" if verdicts and "not tried" not in verdicts else "not tried"


def _of_steps(evidence: Steps, kernel: str, recorded: Recorded) -> Holds:
    found = {step["verdict"] for step in recorded.steps(evidence, kernel)}
    if not found or "not run" in found:
        return "not tried"
    works = found == {"ok"}
    return "yes" if works != evidence.refutes else "no"


def _of_check(check: Check, kernel: str, recorded: Recorded) -> Holds:
    outcome = recorded.outcome(check, kernel)
    if outcome in ("", "skipped"):
        return "not tried"
    return "yes" if (outcome == "passed") != check.refutes else "no"


def wrong_references(claims: Claims, texts: Mapping[str, str], tests: Mapping[str, str]) -> Iterator[str]:
    """What claims refer to and is not there: headings of how-tos, tests of labs (``tests``: a lab's test
    modules as text), sections, groups and kernels."""
    for claim in claims.claims:
        if claim.section not in claims.sections:
            yield f"no section {claim.section}: {claim.says}"
        for step in claim.steps:
            if step.howto not in texts or not under(texts[step.howto], step.heading):
                yield f"no heading {step.heading!r} in {step.howto}.md"
        for check in claim.checks:
            if not re.search(rf"^def {re.escape(check.function)}\(", tests.get(check.lab, ""), re.MULTILINE):
                yield f"no test {check.test} in the lab {check.lab}"
        names = [*claims.kernels, *(group.name for group in claims.groups)]
        read = claim.reading.holds if claim.reading is not None else {}
        for name in (*read, *claim.about, *claim.untried):
            if name not in names:
                yield f"no group or kernel {name!r}: {claim.says}"
