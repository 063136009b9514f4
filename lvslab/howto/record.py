"""``howto.review``: run and record the evidence of claims on each kernel, and write the page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lvslab import commands, paths
from lvslab.errors import LvsLabError, StateError, UsageError
from lvslab.howto import claims as review
from lvslab.howto import page, verify
from lvslab.howto.claims import Claims, Recorded
from lvslab.howto.verify import Listeners
from lvslab.lab.directors import DirectorSpec
from lvslab.lab.files import suggest
from lvslab.outcome import PYTEST
from lvslab.report import checksums

_OUTPUT_LINES, _OUTPUT = 8, 800
"""Maximum number of lines and of characters of a step's output that are recorded."""


def recorded(claims: Claims) -> Recorded:
    """Read the results for ``claims``. Raises OSError if one of their how-tos is missing."""
    folder = review.folder()
    texts = {name: (folder / f"{name}.md").read_text(encoding="utf-8") for name in claims.howtos}
    labs = {name: _lab_checksum(name) for name in claims.labs}
    return Recorded(review.read_results(folder / review.RESULTS), texts, labs)


def _lab_checksum(name: str) -> str:
    return checksums.of_folder(paths.labs() / name)[:16]


def write() -> Path:
    """Write the page from the results, and return its path. Raises StateError if a how-to changed."""
    claims = review.read_claims(review.folder() / review.CLAIMS)
    found = recorded(claims)
    if stale := found.stale():
        message = f"changed since it was recorded, or not recorded: {', '.join(stale)}"
        raise StateError(message, f"./run howto.review --record --only {stale[0]}")
    file = review.folder().parent / review.REVIEW
    file.write_text(page.document(claims, found), encoding="utf-8")
    return file


def record(only: str, kernels: Sequence[str], listeners: Listeners) -> None:
    """Run the how-tos and checks of all claims, and record their results on each kernel.

    With ``only``, run the how-to or the lab of that name alone. The default for ``kernels`` are those of all
    claims. Each result is written at once. Raises UsageError if ``only`` is unknown, and what ``lab.verify``
    raises if a lab does not come up.
    """
    claims = review.read_claims(review.folder() / review.CLAIMS)
    known, kernels = [*claims.howtos, *claims.labs], kernels or claims.kernels
    if only and only not in known:
        raise UsageError(f"no claim rests on {only!r}", suggest(only, known))
    for name in claims.howtos:
        if only in ("", name):
            _record_howto(name, kernels, listeners)
    for name in claims.labs:
        if only in ("", name):
            checks = (check for claim in claims.claims for check in claim.checks)
            wanted = {check.function for check in checks if check.lab == name}
            for kernel in kernels:
                listeners.kernel(kernel)
                _record_checks(name, kernel, wanted, listeners)


def _record_howto(name: str, kernels: Sequence[str], listeners: Listeners) -> None:
    file = review.folder() / f"{name}.md"
    checksum = review.checksum(file.read_text(encoding="utf-8"))
    result = verify.verify(str(file), kernels=kernels, listeners=listeners)
    for run in result.runs:
        if run.error:
            raise LvsLabError(f"on {run.label}, the lab did not come up: {run.error}")
    results = review.read_results(review.folder() / review.RESULTS)
    old = results["howtos"].get(name, {})
    # Results of an older text do not count for this one.
    runs = old["kernels"] if old.get("sha256") == checksum else {}
    for run in result.runs:
        steps = [_recorded(step.as_json()) for step in run.steps]
        runs[run.kernel] = {"versions": dict(run.versions), "steps": steps}
    results["howtos"][name] = {"sha256": checksum, "kernels": runs}
    _write(results)


def _record_checks(name: str, kernel: str, wanted: set[str], listeners: Listeners) -> None:
    checksum = _lab_checksum(name)
    spec, told = DirectorSpec.chosen(kernel), commands.Listeners(listeners.event)
    done = commands.verify(name, spec=spec, reports={}, listeners=told, only=wanted)
    if done.up is None:
        return  # skipped as a whole: its kernel lacks what the lab needs
    tests = {
        case.name: PYTEST.word(case.outcome)
        for case in sorted(done.checked.cases, key=lambda case: case.name)
        if case.name.partition("[")[0] in wanted
    }
    results = review.read_results(review.folder() / review.RESULTS)
    runs = results["checks"].setdefault(name, {})
    runs[kernel] = {"kernel": done.up.kernel, "sha256": checksum, "tests": tests}
    _write(results)


def _recorded(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a step that the page shows."""
    kept = ("number", "line", "node", "command", "verdict", "reason", "status")
    lines = step["output"].splitlines(keepends=True)[:_OUTPUT_LINES]
    return {**{name: step[name] for name in kept}, "output": "".join(lines)[:_OUTPUT]}


def _write(results: dict[str, Any]) -> None:
    text = dumped(results).replace(str(paths.PROJECT), ".")
    (review.folder() / review.RESULTS).write_text(text, encoding="utf-8")


def dumped(results: Mapping[str, Any]) -> str:
    """Format ``results`` as JSON with a line for each step, for readable differences."""
    steps: list[str] = []

    def kept(value: object) -> object:
        """Copy ``value``, with each step replaced by its index in ``steps``."""
        if isinstance(value, dict):
            if "verdict" in value:
                steps.append(json.dumps(value))
                return len(steps) - 1
            return {key: kept(value[key]) for key in sorted(value)}
        return [kept(one) for one in value] if isinstance(value, list) else value

    frame = json.dumps(kept(dict(results)), indent=1)
    numbers = re.compile(r"^( *)(\d+)(,?)$", re.MULTILINE)
    return numbers.sub(lambda line: f"{line[1]}{steps[int(line[2])]}{line[3]}", frame) + "\n"
