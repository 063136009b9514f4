"""What the folder of a cell's evidence has to show, cut to what a person reads."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lvslab.apply import transcript
from lvslab.apply.transcript import Entry
from lvslab.cluster.cluster import TRANSCRIPT
from lvslab.errors import LvsLabError

CONSOLES = "console-*.log"
CAPTURES = (".pcapng", ".pcap")
EMBEDDED_EACH = 64 << 10
"""Captures of cells that did not pass are in the report itself up to so many bytes each."""

_LINE = 400
_STEP_LINES = 40
_STEPS = 250
_TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class Cut:
    """A text of which ``left_out`` says what is missing, "" where nothing is."""

    text: str
    left_out: str = ""


@dataclass(frozen=True)
class Step:
    """A step that was typed, and what it printed."""

    entry: Entry
    output: Cut


@dataclass(frozen=True)
class File:
    """A file of the evidence. ``name`` is relative to its folder; ``data`` is its content in base 64 where
    it is to be in the report itself, else ""."""

    name: str
    path: Path
    bytes: int
    data: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that is shown of one cell. ``consoles`` are by file name; ``missing`` says why nothing is
    there."""

    steps: tuple[Step, ...] = ()
    steps_left_out: str = ""
    consoles: tuple[tuple[str, Cut], ...] = ()
    captures: tuple[File, ...] = ()
    files: tuple[File, ...] = ()
    missing: str = ""


def read(run_folder: Path, relative: str, *, console_lines: int, embed: int) -> Evidence:
    """The evidence in the folder ``relative`` to that of the run. Of the consoles of its own lab the last
    ``console_lines`` lines are shown; captures of ``embed`` bytes in all are to be in the report itself.

    What is not below the run's folder is not read, whatever its ``results.json`` says.
    """
    folder = run_folder / relative
    if not relative:
        return Evidence(missing="no evidence was kept")
    if not folder.resolve().is_relative_to(run_folder.resolve()):
        return Evidence(missing=f"{relative} is not in the folder of the run")
    if not folder.is_dir():
        return Evidence(missing=f"{relative} is not there any more")
    files = tuple(_files(folder))
    captures, others = [], []
    for file in files:
        if not file.name.endswith(CAPTURES):
            others.append(file)
            continue
        if file.bytes <= min(embed, EMBEDDED_EACH):
            embed -= file.bytes
            data = base64.b64encode(file.path.read_bytes()).decode()
            file = File(file.name, file.path, file.bytes, data)
        captures.append(file)
    steps, left_out = _steps(folder)
    at_top = {path.name for path in folder.glob(CONSOLES)}
    consoles = tuple((file.name, _tail(file.path, console_lines)) for file in files if file.name in at_top)
    return Evidence(steps, left_out, consoles, tuple(captures), tuple(others))


def shortened(text: str, lines: int, whole: str) -> Cut:
    """``text`` without its middle, if it has more than ``lines`` lines, and with the begin only of lines
    that are very long; ``whole`` says where all of it is."""
    # Not splitlines, which takes other control characters for ends of lines, and drops them.
    all_lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    kept, left_out = all_lines, []
    if len(all_lines) > lines:
        head = lines // 2
        gone = len(all_lines) - lines
        kept = [*all_lines[:head], f"[... {gone} lines ...]", *all_lines[len(all_lines) - (lines - head) :]]
        left_out.append(f"{gone} lines are left out")
    if any(len(line) > _LINE for line in kept):
        kept = [line if len(line) <= _LINE else f"{line[:_LINE]} [...]" for line in kept]
        left_out.append(f"lines are cut after {_LINE} characters")
    note = " and ".join(left_out)
    return Cut("\n".join(kept), f"{note}: {whole} has all of it" if note else "")


def _files(folder: Path) -> Iterator[File]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and (size := path.stat().st_size):
            yield File(path.relative_to(folder).as_posix(), path, size)


def _steps(folder: Path) -> tuple[tuple[Step, ...], str]:
    file = folder / TRANSCRIPT
    if not file.is_file():
        return (), ""
    try:
        entries = transcript.read(file)
    except LvsLabError as error:
        return (), error.message
    steps = tuple(
        Step(entry, shortened(entry.output, _STEP_LINES, TRANSCRIPT)) for entry in entries[:_STEPS]
    )
    gone = len(entries) - len(steps)
    return steps, f"{gone} more steps are left out: {TRANSCRIPT} has all of them" if gone else ""


def _tail(file: Path, lines: int) -> Cut:
    """The last ``lines`` lines of a console, which may be long."""
    with file.open("rb") as console:
        size = console.seek(0, 2)
        console.seek(max(0, size - _TAIL_BYTES))
        text = console.read().decode(errors="replace")
    # Serial consoles end lines with \r\n, some kernels with \n\r.
    all_lines = text.replace("\r", "").removesuffix("\n").split("\n")
    shown = [line[:_LINE] for line in all_lines[-lines:]]
    whole = size <= _TAIL_BYTES and shown == all_lines
    return Cut("\n".join(shown), "" if whole else f"the last {len(shown)} lines: {file.name} has all of it")
