"""Transcript of a how-to's steps: one JSON object a line, with command, output and outcome.

A line is written as soon as its step has ended, so no step is lost, however lvslab ends. An incomplete last
line, which a killed writer leaves, is ignored when reading and cut off before the next line is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lvslab.closing import Closing
from lvslab.errors import LvsLabError, StateError
from lvslab.outcome import STEPS, Outcome

_DIM, _RED, _YELLOW, _BOLD, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class StepRecord:
    """One step that was taken.

    ``number`` counts the how-to's steps from 1, ``line`` is the line of howto.md. ``status`` is the exit
    status, None if the end of the command is not known. ``seconds`` is its duration, ``started`` the time in
    UTC as ISO 8601. ``reason`` says why it failed, or why it was expected to; else it is empty.
    """

    number: int
    node: str
    line: int
    command: str
    output: str
    status: int | None
    seconds: float
    started: str
    outcome: Outcome
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """Line of the transcript."""
        return {**asdict(self), "outcome": STEPS.word(self.outcome)}


Entry = StepRecord
"""Former name, for labs' tests; to be removed after the next release."""


class Transcript(Closing):
    """Writer that appends to the transcript ``path``, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # Without a buffer: a record is with the operating system when append returns.
        self._file = path.open("a+b", buffering=0)
        try:
            self._cut_torn_line()
        except BaseException:
            self._file.close()
            raise

    def append(self, record: StepRecord) -> None:
        """Write ``record`` and hand it to the operating system. Raises OSError if the disk is full."""
        line = memoryview(json.dumps(record.as_json()).encode() + b"\n")
        while line:
            line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def _cut_torn_line(self) -> None:
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        if whole < self._file.tell():
            os.truncate(self._file.fileno(), whole)


def records(path: Path) -> list[StepRecord]:
    """Read the transcript ``path``, oldest record first; an incomplete last line is ignored.

    Raises StateError if the file does not exist, LvsLabError if a complete line is not a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise StateError(f"no transcript: {path} does not exist", "./run lab.apply makes one") from None
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(_record(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise LvsLabError(f"{path}:{number}: not an entry of a transcript: {error}") from error
    return found


def render(steps: Iterable[StepRecord], colour: bool) -> str:
    """Text of ``steps`` as a terminal would have shown them, with a remark after each.

    ``colour`` allows escape sequences for dim, bold, red and yellow; the text is the same without them.
    """
    return "\n".join(_rendered(step, colour) for step in steps)


def _record(fields: object) -> StepRecord:
    if not isinstance(fields, dict):
        raise TypeError("not a JSON object")
    record = StepRecord(**fields)
    return replace(record, outcome=STEPS.outcome(record.outcome))


def _rendered(step: StepRecord, colour: bool) -> str:
    def paint(text: str, escape: str) -> str:
        return f"{escape}{text}{_PLAIN}" if colour else text

    first, *others = printable(step.command).splitlines() or [""]
    lines = [f"{paint(step.node + '#', _BOLD)} {first}"]
    lines += [f"{paint('>', _BOLD)} {line}" for line in others]
    if step.output:
        lines.append(printable(step.output).removesuffix("\n"))
    status = "no status" if step.status is None else f"status {step.status}"
    remark = f"step {step.number}, howto.md:{step.line}, {status}, {step.seconds:.3f} s"
    lines.append(paint(f"  [{remark}]", _DIM))
    if step.outcome != Outcome.PASSED:
        words = f"{step.outcome}: {printable(step.reason)}" if step.reason else step.outcome
        lines.append(paint(f"  [{words}]", _RED if step.outcome.bad else _YELLOW))
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """``text`` with visible escapes in place of control characters other than newline and tab."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text.replace("\r\n", "\n")
    )
