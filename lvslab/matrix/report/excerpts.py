"""Excerpts from the folder of a cell's evidence, short enough to read."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from pathlib import Path

from lvslab.apply import transcript
from lvslab.cluster.cluster import TRANSCRIPT
from lvslab.errors import LvsLabError
from lvslab.outcome import STEPS

CONSOLES = "console-*.log"
CAPTURES = (".pcapng", ".pcap")
EMBEDDED_EACH = 64 << 10
"""Maximum number of bytes of a capture that is embedded in the report."""

_LINE = 400
_STEP_LINES = 40
_STEPS = 250
_TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class Cut:
    """Shortened text; ``left_out`` says what is missing, "" if nothing is."""

    text: str
    left_out: str = ""


@dataclass(frozen=True)
class Step:
    """Step that was typed, its output, and the word for its outcome."""

    record: transcript.StepRecord
    output: Cut
    word: str


@dataclass(frozen=True)
class File:
    """File of the evidence. ``name`` is relative to its folder; ``data`` is its content in base 64 if it is
    embedded in the report, else ""."""

    name: str
    path: Path
    bytes: int
    data: str = ""


@dataclass(frozen=True)
class Evidence:
    """Evidence of one cell. ``consoles`` are by file name; ``missing`` says why there is none."""

    steps: tuple[Step, ...] = ()
    steps_left_out: str = ""
    consoles: tuple[tuple[str, Cut], ...] = ()
    captures: tuple[File, ...] = ()
    files: tuple[File, ...] = ()
    missing: str = ""


def collect(run_folder: Path, relative: str, *, console_lines: int, embed: int) -> Evidence:
    """Collect the evidence in the folder ``relative`` to that of the run.

    It has the last ``console_lines`` lines of each console of the cell's lab, and embeds at most ``embed``
    bytes of captures. Files outside of the run's folder are not read, even if ``results.json`` names them.
    """
    folder = run_folder / relative
    if not relative:
        return Evidence(missing="no evidence was kept")
    if not folder.resolve().is_relative_to(run_folder.resolve()):
        return Evidence(missing=f"{relative} is not in the folder of the run")
    if not folder.is_dir():
        return Evidence(missing=f"{relative} is not there any more")
    captures, others, consoles = list[File](), list[File](), list[tuple[str, Cut]]()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or not (size := path.stat().st_size):
            continue
        file = File(path.relative_to(folder).as_posix(), path, size)
        if not file.name.endswith(CAPTURES):
            others.append(file)
            if path.parent == folder and path.match(CONSOLES):
                consoles.append((file.name, _tail(path, console_lines)))
            continue
        if size <= min(embed, EMBEDDED_EACH):
            embed -= size
            file = replace(file, data=base64.b64encode(path.read_bytes()).decode())
        captures.append(file)
    return Evidence(*_steps(folder), tuple(consoles), tuple(captures), tuple(others))


def shortened(text: str, lines: int, whole: str) -> Cut:
    """Shorten ``text`` to ``lines`` lines by leaving out its middle, and cut very long lines.

    ``whole`` is the place of the full text, for the note.
    """
    # Not splitlines, which takes other control characters for ends of lines, and drops them.
    kept, left_out = text.replace("\r\n", "\n").removesuffix("\n").split("\n"), []
    if (gone := len(kept) - lines) > 0:
        kept[lines // 2 : lines // 2 + gone] = [f"[... {gone} lines ...]"]
        left_out.append(f"{gone} lines are left out")
    if any(len(line) > _LINE for line in kept):
        kept = [line if len(line) <= _LINE else f"{line[:_LINE]} [...]" for line in kept]
        left_out.append(f"lines are cut after {_LINE} characters")
    note = " and ".join(left_out)
    return Cut("\n".join(kept), f"{note}: {whole} has all of it" if note else "")


def _steps(folder: Path) -> tuple[tuple[Step, ...], str]:
    file = folder / TRANSCRIPT
    if not file.is_file():
        return (), ""
    try:
        records = transcript.records(file)
    except LvsLabError as error:
        return (), error.message
    steps = tuple(
        Step(each, shortened(each.output, _STEP_LINES, TRANSCRIPT), STEPS.word(each.outcome))
        for each in records[:_STEPS]
    )
    gone = len(records) - len(steps)
    return steps, f"{gone} more steps are left out: {TRANSCRIPT} has all of them" if gone else ""


def _tail(file: Path, lines: int) -> Cut:
    """Last ``lines`` lines of a console log, which may be large."""
    with file.open("rb") as console:
        size = console.seek(0, 2)
        console.seek(max(0, size - _TAIL_BYTES))
        text = console.read().decode(errors="replace")
    # Serial consoles end lines with \r\n, some kernels with \n\r.
    all_lines = text.replace("\r", "").removesuffix("\n").split("\n")
    shown = [line[:_LINE] for line in all_lines[-lines:]]
    whole = size <= _TAIL_BYTES and shown == all_lines
    return Cut("\n".join(shown), "" if whole else f"the last {len(shown)} lines: {file.name} has all of it")
