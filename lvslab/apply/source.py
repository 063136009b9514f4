"""Which Markdown file is meant, and in which lab it is typed: one of ours, or a reader's own.

A lab's ``howto.md`` belongs to its lab. Any other file says so itself, or is told, or stands beside a
``lab.yaml``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lvslab.apply.howto import HOWTO_FILE
from lvslab.errors import LabFileError, UsageError
from lvslab.lab import files as lab_files
from lvslab.lab.files import LAB_FILE

_SHELLS = frozenset({"bash", "console", "ksh", "sh", "shell", "shell-session", "zsh"})
"""Languages of blocks that a reader would type."""


@dataclass(frozen=True)
class Source:
    """A how-to's ``file``, and the ``folder`` of the lab that it is typed in."""

    file: Path
    folder: Path


def find(word: str, lab: str, labs: Path) -> Source:
    """The how-to that ``word`` means: a Markdown file, or a lab's name or folder (then its howto.md).

    The lab of a Markdown file is, by the first of these that there is: ``lab``, a name or a folder with a
    slash in it; the line ``lab: ...`` of the file's front matter; the folder of the file, where that has a
    lab.yaml. ``labs`` is the folder in which labs have names. Raises UsageError where there is no such file
    or lab, or nothing that says which.
    """
    file = Path(word)
    if not file.is_file():
        if file.suffix == ".md":
            raise UsageError(
                f"there is no file {word}", "give a Markdown file, or the name or folder of a lab"
            )
        folder = lab_files.find(word, labs)
        return Source(folder / HOWTO_FILE, lab_files.find(lab, labs) if lab else folder)
    if lab:
        return Source(file, lab_files.find(lab, labs))
    named, line = front_matter_lab(lab_files.read_text(file))
    if named:
        return Source(file, _named_in(file, named, line, labs))
    if (file.parent / LAB_FILE).is_file():
        return Source(file, file.parent)
    raise UsageError(
        f"nothing says in which lab {word} is typed",
        f"give --lab NAME, put a {LAB_FILE} beside it, or begin it with front matter that has a line"
        f" `lab: NAME`; known labs: {', '.join(lab_files.list_labs(labs))}",
    )


def front_matter_lab(text: str) -> tuple[str, int]:
    """What the line ``lab: ...`` of a Markdown file's front matter says, and its line; "" and 0 without it.

    Front matter is what stands between a first line ``---`` and the next one. Its other lines are somebody
    else's, a site generator's say, and need not be YAML that we can read.
    """
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return "", 0
    for number, line in enumerate(lines[1:], 2):
        if line.rstrip() in ("---", "..."):
            break
        if found := re.fullmatch(r"lab:\s+(\"[^\"]*\"|'[^']*'|[^#]*?)\s*(?:#.*)?", line):
            return found[1].strip("\"'"), number
    return "", 0


def untyped(text: str) -> tuple[int, ...]:
    """The lines of the shell blocks of a Markdown file that are not typed, since nothing says where."""
    from markdown_it import MarkdownIt

    return tuple(
        token.map[0] + 1
        for token in MarkdownIt("commonmark").parse(text)
        if token.type == "fence" and token.map is not None and token.info.strip() in _SHELLS
    )


def _named_in(file: Path, named: str, line: int, labs: Path) -> Path:
    """The folder of the lab that ``file`` names in its ``line``; a path is meant from where the file is."""
    try:
        return lab_files.find(f"{file.parent / named}" if "/" in named else named, labs)
    except UsageError as error:
        raise LabFileError(file, line, error.message, error.hint) from None
