"""Find the Markdown file of a how-to and the lab to type it in.

The ``howto.md`` of a lab belongs to that lab. For other files, the lab is named by an option or in the file,
or is that of a ``lab.yaml`` in the same folder.
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
"""Languages of blocks that readers type."""


@dataclass(frozen=True)
class Source:
    """The ``file`` of a how-to, and the ``folder`` of its lab."""

    file: Path
    folder: Path


def find(word: str, lab: str, labs: Path) -> Source:
    """Find the how-to ``word``: a Markdown file, or a lab's name or folder (then its howto.md).

    The lab of a Markdown file is the first of these that is given: ``lab``, a name or a folder with a slash
    in it; the line ``lab: ...`` of the file's front matter; the folder of the file, if it has a lab.yaml.
    ``labs`` is the folder with the labs that have names. Raises UsageError if the file or lab does not
    exist, or if nothing names a lab.
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
    """Value and line of ``lab: ...`` in a Markdown file's front matter; "" and 0 without one.

    Front matter is the text between a first line ``---`` and the next one. Its other lines belong to other
    programs, such as site generators, and need not be YAML that we can read.
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
    """Lines of the shell blocks that are not typed, since they name no node."""
    from markdown_it import MarkdownIt

    return tuple(
        token.map[0] + 1
        for token in MarkdownIt("commonmark").parse(text)
        if token.type == "fence" and token.map is not None and token.info.strip() in _SHELLS
    )


def _named_in(file: Path, named: str, line: int, labs: Path) -> Path:
    """Folder of the lab that ``file`` names; a path is relative to the file's folder."""
    try:
        return lab_files.find(f"{file.parent / named}" if "/" in named else named, labs)
    except UsageError as error:
        raise LabFileError(file, line, error.message, error.hint) from None
