"""A run of a matrix as one HTML file that needs nothing else: what is in it. ``report.html.jinja`` and
``report.css`` say how it looks."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from lvslab.apply.transcript import printable
from lvslab.matrix.reading import Kept
from lvslab.matrix.report import excerpts
from lvslab.matrix.report.excerpts import Evidence
from lvslab.matrix.results import WORST_FIRST, Case, Cell, Result, Run, Verdict

NOT_DONE = "not done"

SIGNS: Mapping[str, str] = {
    "error": "!",
    "failed": "✗",
    "unexpectedly passed": "↑",
    "expected failure": "≈",
    "passed": "✓",
    "skipped": "-",
    NOT_DONE: "…",
}
"""A sign for each verdict, for those to whom colours say nothing."""

MEANINGS: Mapping[str, str] = {
    "error": "the lab itself broke, so nothing is known",
    "failed": "a check failed",
    "unexpectedly passed": "a check passed that a known bug must make fail",
    "expected failure": "a check failed by a known bug of this version",
    "passed": "all checks passed",
    "skipped": "this version cannot do what all of the checks are about",
    NOT_DONE: "the run ended before",
}

_FINE = ("passed", "skipped")
_MESSAGE_LINES = 60
_CONSOLE_LINES = 40
_CONSOLE_LINES_PASSED = 10
_EMBEDDED = 4 << 20
"""Captures take no more bytes than that of a report, before base 64."""

_OPEN = """
function reveal() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const closed = target && target.closest("details:not([open])");
  if (closed) { closed.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", reveal);
reveal();
"""
"""What browsers did not do by themselves until 2025: open the evidence that a link leads to."""


@dataclass(frozen=True)
class Shown:
    """A cell with all that is shown of it. ``verdict`` is that of the result, or ``NOT_DONE``."""

    number: int
    cell: Cell
    result: Result | None
    verdict: str
    evidence: Evidence

    @property
    def tally(self) -> str:
        """How many of its checks came to what, in a few characters for the matrix."""
        if self.result is None:
            return ""
        counts, total = self.result.counts, len(self.result.cases)
        tried = total - counts["skipped"]
        if self.verdict == "passed":
            return f"{tried} ({counts['skipped']} skipped)" if counts["skipped"] else f"{total}"
        if self.verdict == "skipped" or not total:
            return f"{total or ''}"
        return f"{counts[self.result.verdict]} of {tried}"

    @property
    def about(self) -> str:
        """The same in full, for a tooltip and for screen readers."""
        words = [f"{self.cell}: {self.verdict}"]
        if self.result is not None:
            words += [f"{count} {verdict}" for verdict, count in self.result.counts.items() if count]
            words += ["flaky: the lab broke the first time"] if self.result.flaky else []
        return ", ".join(words)


@dataclass(frozen=True)
class Finding:
    """A check that did not simply pass, in all the cells where it came to the same for the same reason."""

    lab: str
    name: str
    verdict: Verdict
    bug: str
    reason: str
    cells: tuple[Shown, ...]


def html(kept: Kept, folder: Path | None = None) -> str:
    """The report on ``kept``, for a file in ``folder`` (default: that of the run): links to files of the
    evidence are relative to it."""
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
        counts={verdict: _count(shown, verdict) for verdict in (*WORST_FIRST, NOT_DONE)},
        flaky=sum(each.result.flaky for each in shown if each.result),
        took=_took(run),
        signs=SIGNS,
        size=size,
        reason_in=reason_in,
        meanings=MEANINGS,
        message=lambda text: excerpts.shortened(text, _MESSAGE_LINES, "the evidence"),
        fine=_FINE,
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
    """What is put into the page: text, with control characters shown as escapes; Jinja escapes it then."""
    return value if isinstance(value, Markup) else printable(str(value))


def _policy(style: str) -> str:
    """Nothing is loaded from anywhere, and no script or style runs but ours."""
    ours = [b64encode(sha256(text.encode()).digest()).decode() for text in (_OPEN, style)]
    return f"default-src 'none'; img-src data:; script-src 'sha256-{ours[0]}'; style-src 'sha256-{ours[1]}'"


def _cells(kept: Kept) -> list[Shown]:
    """All cells in the order of the run."""
    results = {result.cell: result for result in kept.run.results}
    left = _EMBEDDED
    shown = []
    for number, cell in enumerate(dict.fromkeys([*kept.run.cells, *results]), start=1):
        result = results.get(cell)
        if result is None:
            shown.append(Shown(number, cell, None, NOT_DONE, Evidence(missing="it is not done yet")))
            continue
        fine = result.verdict in _FINE and not result.flaky
        found = excerpts.read(
            kept.folder,
            result.evidence,
            console_lines=_CONSOLE_LINES_PASSED if fine else _CONSOLE_LINES,
            embed=0 if fine else left,
        )
        left -= sum(capture.bytes for capture in found.captures if capture.data)
        shown.append(Shown(number, cell, result, result.verdict, found))
    return shown


def _rows(shown: list[Shown]) -> Mapping[tuple[str, str], Mapping[str, Shown]]:
    """The cells by kernel and ipvsadm, and then by lab."""
    rows: dict[tuple[str, str], dict[str, Shown]] = {}
    kernels = list(dict.fromkeys(each.cell.kernel for each in shown))
    for each in sorted(shown, key=lambda each: kernels.index(each.cell.kernel)):
        rows.setdefault((each.cell.kernel, each.cell.ipvsadm), {})[each.cell.lab] = each
    return rows


def _findings(shown: list[Shown]) -> list[Finding]:
    """What is not simply as it should be, the worst first; the same in many cells is one finding."""
    found: dict[tuple[Verdict, str, str, str, str], list[Shown]] = {}
    for each in shown:
        for case in _telling(each):
            key = (case.verdict, each.cell.lab, case.name, case.bug, reason_in(case.message))
            found.setdefault(key, []).append(each)
    findings = [
        Finding(lab, name, verdict, bug, reason, tuple(cells))
        for (verdict, lab, name, bug, reason), cells in found.items()
    ]
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.verdict))


def _telling(each: Shown) -> Iterator[Case]:
    """The cases of a cell that go into the findings."""
    if each.result is None:
        return
    if each.verdict == "error" and each.result.error:
        yield Case(name="the lab", verdict="error", seconds=0.0, message=each.result.error)
    yield from (case for case in each.result.cases if case.verdict not in _FINE)


def _releases(shown: list[Shown]) -> Mapping[str, str]:
    """What ``uname -r`` says of each kernel whose name does not say it."""
    found = {each.cell.kernel: each.result.versions.get("kernel", "") for each in shown if each.result}
    return {name: release for name, release in found.items() if release not in name}


def short(name: str) -> str:
    """The name of a lab or a kernel; of a path its last part."""
    return f"…/{Path(name).name}" if "/" in name else name


def reason_in(message: str) -> str:
    """The line of ``message`` that says why. Of what pytest prints it is the first that begins with E."""
    lines = message.strip().splitlines() or [""]
    said = next((line[1:].strip() for line in lines if line.startswith("E ")), lines[0])
    return re.sub(r"^lvslab\.errors\.\w+: ", "", said)


def _count(shown: list[Shown], verdict: str) -> int:
    return sum(each.verdict == verdict for each in shown)


def _took(run: Run) -> str:
    """How long the run took, "" where it has no end or says its times in some other way."""
    try:
        seconds = (datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.begun)).total_seconds()
    except (ValueError, TypeError):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def size(count: int) -> str:
    """A number of bytes for people."""
    return f"{count} B" if count < 1 << 10 else f"{count / (1 << 10):.0f} KiB"
