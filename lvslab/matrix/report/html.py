"""Report of a matrix as one self-contained HTML file: its contents.

``report.html.jinja`` and ``report.css`` define its look.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from lvslab.apply.transcript import printable
from lvslab.matrix.reading import Kept
from lvslab.matrix.report import excerpts
from lvslab.matrix.results import FINE, OUTCOMES, Case, Cell, Result, Run
from lvslab.outcome import CELLS, Outcome

NOT_DONE = CELLS.word(Outcome.NOT_RUN)

SIGNS: Mapping[str, str] = {
    Outcome.ERROR: "!",
    Outcome.FAILED: "✗",
    Outcome.UNEXPECTEDLY_PASSED: "↑",
    Outcome.EXPECTED_FAILURE: "≈",
    Outcome.PASSED: "✓",
    Outcome.SKIPPED: "-",
    NOT_DONE: "…",
}
"""Signs of verdicts, for readers who do not see colours."""

MEANINGS: Mapping[str, str] = {
    Outcome.ERROR: "the lab itself broke, so nothing is known",
    Outcome.FAILED: "a check failed",
    Outcome.UNEXPECTEDLY_PASSED: "a check passed that a known bug must make fail",
    Outcome.EXPECTED_FAILURE: "a check failed by a known bug of this version",
    Outcome.PASSED: "all checks passed",
    Outcome.SKIPPED: "this version cannot do what all of the checks are about",
    NOT_DONE: "the run ended before",
}

_MESSAGE_LINES = 60
_CONSOLE_LINES = 40
_CONSOLE_LINES_PASSED = 10
_EMBEDDED = 4 << 20
"""Maximum number of bytes of captures in a report, before base 64."""

_OPEN = """
function reveal() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const closed = target && target.closest("details:not([open])");
  if (closed) { closed.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", reveal);
reveal();
"""
"""Opens the evidence that a link leads to; browsers do so by themselves since 2025."""


@dataclass(frozen=True)
class Shown:
    """A cell and its data in the report."""

    number: int
    cell: Cell
    result: Result | None
    evidence: excerpts.Evidence

    @property
    def verdict(self) -> str:
        """Word for the verdict of the result, or NOT_DONE."""
        return self.result.verdict if self.result else NOT_DONE

    @property
    def tally(self) -> str:
        """Numbers of checks, in a few characters for the matrix."""
        if self.result is None:
            return ""
        counts, total = self.result.counts, len(self.result.cases)
        skipped = counts[Outcome.SKIPPED]
        tried = total - skipped
        if self.verdict == Outcome.PASSED:
            return f"{tried} ({skipped} skipped)" if skipped else f"{total}"
        if self.verdict == Outcome.SKIPPED or not total:
            return f"{total or ''}"
        return f"{counts[self.result.verdict]} of {tried}"

    @property
    def about(self) -> str:
        """Numbers of checks in words, for a tooltip and for screen readers."""
        words = [f"{self.cell}: {self.verdict}"]
        if self.result is not None:
            words += [f"{count} {verdict}" for verdict, count in self.result.counts.items() if count]
            words += ["flaky: the lab broke the first time"] if self.result.flaky else []
        return ", ".join(words)


class Finding(NamedTuple):
    """Verdict of a check that did not simply pass. The same in several cells is one finding."""

    verdict: Outcome
    lab: str
    name: str
    bug: str
    reason: str


def html(kept: Kept, folder: Path | None = None) -> str:
    """Return the page for ``kept``. Links to evidence are relative to ``folder``, by default the run's."""
    run = kept.run
    shown = _cells(kept)
    base = (folder or kept.folder).resolve()

    def link(path: Path) -> str:
        return quote(os.path.relpath(path.resolve(), base))

    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return _template().render(
        run=run,
        link=link,
        labs=list(dict.fromkeys(each.cell.lab for each in shown)),
        matrix=_rows(shown),
        kernels=len({each.cell.kernel for each in shown}),
        releases=_releases(shown),
        short=short,
        several_ipvsadm=len({each.cell.ipvsadm for each in shown}) > 1,
        cells=shown,
        findings=_findings(shown),
        counts={verdict: sum(each.verdict == verdict for each in shown) for verdict in MEANINGS},
        flaky=sum(each.result.flaky for each in shown if each.result),
        took=_took(run),
        signs=SIGNS,
        size=size,
        reason_in=reason_in,
        meanings=MEANINGS,
        message=lambda text: excerpts.shortened(text, _MESSAGE_LINES, "the evidence"),
        fine=FINE,
        style=Markup(style),
        script=Markup(_OPEN),
        policy=_policy(style),
    )


@lru_cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("lvslab.matrix.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.jinja")


def _visible(value: object) -> object:
    """Replace control characters in ``value`` by visible escapes. Jinja escapes the HTML afterwards."""
    return value if isinstance(value, Markup) else printable(str(value))


def _policy(style: str) -> str:
    """Content security policy: no external resources, no scripts and styles but our own."""
    ours = [b64encode(sha256(text.encode()).digest()).decode() for text in (_OPEN, style)]
    return f"default-src 'none'; img-src data:; script-src 'sha256-{ours[0]}'; style-src 'sha256-{ours[1]}'"


def _cells(kept: Kept) -> list[Shown]:
    """Cells in the order of the run."""
    left = _EMBEDDED
    shown = []
    for number, (cell, result) in enumerate(kept.run.by_cell.items(), start=1):
        if result is None:
            shown.append(Shown(number, cell, None, excerpts.Evidence(missing="it is not done yet")))
            continue
        fine = result.verdict in FINE and not result.flaky
        found = excerpts.collect(
            kept.folder,
            result.evidence,
            console_lines=_CONSOLE_LINES_PASSED if fine else _CONSOLE_LINES,
            embed=0 if fine else left,
        )
        left -= sum(capture.bytes for capture in found.captures if capture.data)
        shown.append(Shown(number, cell, result, found))
    return shown


def _rows(shown: list[Shown]) -> Mapping[tuple[str, str], Mapping[str, Shown]]:
    """Group the cells by kernel and ipvsadm, and then by lab."""
    rows: dict[tuple[str, str], dict[str, Shown]] = {}
    kernels = list(dict.fromkeys(each.cell.kernel for each in shown))
    for each in sorted(shown, key=lambda each: kernels.index(each.cell.kernel)):
        rows.setdefault((each.cell.kernel, each.cell.ipvsadm), {})[each.cell.lab] = each
    return rows


def _findings(shown: list[Shown]) -> list[tuple[Finding, list[Shown]]]:
    """Collect the findings and their cells, the worst first."""
    found: dict[Finding, list[Shown]] = {}
    for each in shown:
        if each.result is None:
            continue
        cases = [case for case in each.result.cases if case.verdict not in FINE]
        if each.verdict == Outcome.ERROR and each.result.error:
            broke = each.result.error
            cases.insert(0, Case(name="the lab", verdict=Outcome.ERROR, seconds=0, message=broke))
        for case in cases:
            finding = Finding(case.verdict, each.cell.lab, case.name, case.bug, reason_in(case.message))
            found.setdefault(finding, []).append(each)
    return sorted(found.items(), key=lambda pair: OUTCOMES.index(pair[0].verdict))


def _releases(shown: list[Shown]) -> Mapping[str, str]:
    """Releases (``uname -r``) of the kernels whose names do not tell them."""
    found = {each.cell.kernel: each.result.versions.get("kernel", "") for each in shown if each.result}
    return {name: release for name, release in found.items() if release not in name}


def short(name: str) -> str:
    """Name of a lab or kernel; the last part of a path."""
    return f"…/{Path(name).name}" if "/" in name else name


def reason_in(message: str) -> str:
    """Line of ``message`` with the reason: the first that begins with E in a traceback of pytest."""
    lines = message.strip().splitlines() or [""]
    said = next((line[1:].strip() for line in lines if line.startswith("E ")), lines[0])
    return re.sub(r"^lvslab\.errors\.\w+: ", "", said)


def _took(run: Run) -> str:
    """Duration of the run in words, "" if its times are not known."""
    try:
        seconds = (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.begun)).total_seconds()
    except (ValueError, TypeError):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def size(count: int) -> str:
    """Format a number of bytes for people."""
    return f"{count} B" if count < 1 << 10 else f"{count / (1 << 10):.0f} KiB"
