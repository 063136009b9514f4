"""The transcript: what was typed on which node, what it answered, and how that was judged.

One JSON object a line, written as soon as a step has ended, so that no end of lvslab loses a step that was
done. What a killed writer leaves of its last line is not a step; it is passed over in reading, and cut off
before anything is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

from lvslab.errors import LvsLabError, StateError

Outcome = Literal["ok", "failed", "expected failure", "unexpectedly passed"]

_DIM, _RED, _YELLOW, _BOLD, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


@dataclass(frozen=True)
class Entry:
    """One step that was taken.

    ``number`` counts the how-to's steps from 1, ``line`` is the line of howto.md. ``status`` is None where
    the command had no end that we know of. ``seconds`` is its duration, ``started`` the time in UTC as
    ISO 8601. ``reason`` says why it failed, or why it was expected to; else it is empty.
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


class Transcript:
    """A transcript that is being written, appended to ``path``, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: an entry is with the operating system when append returns.
        self._file = path.open("a+b", buffering=0)
        try:
            self._cut_torn_line()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, entry: Entry) -> None:
        """Add ``entry`` for good. Raises OSError where the disk is full."""
        line = memoryview(json.dumps(asdict(entry)).encode() + b"\n")
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


def read(path: Path) -> list[Entry]:
    """The entries in ``path``, oldest first; a last line without an end is passed over.

    Raises StateError where there is no such file, LvsLabError where a whole line of it is no entry.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        raise StateError(f"no transcript: {path} does not exist", "./run lab.apply makes one") from None
    entries = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entries.append(_entry(json.loads(line)))
        except (TypeError, ValueError) as error:
            raise LvsLabError(f"{path}:{number}: not an entry of a transcript: {error}") from error
    return entries


def render(entries: Iterable[Entry], colour: bool) -> str:
    """The transcript as a terminal would have shown it, with a remark after each step.

    ``colour`` allows escape sequences for dim, bold, red and yellow; the text is the same without them.
    """
    return "\n".join(_rendered(entry, colour) for entry in entries)


def _entry(fields: object) -> Entry:
    if not isinstance(fields, dict):
        raise TypeError("not a JSON object")
    entry = Entry(**fields)
    if entry.outcome not in get_args(Outcome):
        raise ValueError(f"unknown outcome {entry.outcome!r}")
    return entry


def _rendered(entry: Entry, colour: bool) -> str:
    def paint(text: str, escape: str) -> str:
        return f"{escape}{text}{_PLAIN}" if colour else text

    first, *others = printable(entry.command).splitlines() or [""]
    lines = [f"{paint(entry.node + '#', _BOLD)} {first}"]
    lines += [f"{paint('>', _BOLD)} {line}" for line in others]
    if entry.output:
        lines.append(printable(entry.output).removesuffix("\n"))
    status = "no status" if entry.status is None else f"status {entry.status}"
    remark = f"step {entry.number}, howto.md:{entry.line}, {status}, {entry.seconds:.3f} s"
    if entry.outcome == "ok":
        lines.append(paint(f"  [{remark}]", _DIM))
    else:
        words = f"{entry.outcome}: {printable(entry.reason)}" if entry.reason else entry.outcome
        lines.append(paint(f"  [{remark}]", _DIM))
        lines.append(paint(f"  [{words}]", _YELLOW if entry.outcome == "expected failure" else _RED))
    return "\n".join(lines) + "\n"


def printable(text: str) -> str:
    """``text`` without what would make a terminal do things: control characters become visible escapes."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text.replace("\r\n", "\n")
    )
