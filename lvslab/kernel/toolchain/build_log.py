"""Progress and first error in the output of a build."""

from __future__ import annotations

import re
from collections.abc import Sequence

# From 2.6 on make names what it does in two columns; 2.4's shows each command whole.
_OBJECT = re.compile(r"\s{2}(?:HOST)?(?:CC|AS|LD)\s|.*\s-c\s+(?:-o\s+)?\S+|.*\s-o\s+\S+\.o(?:\s|$)")
_MISTAKE = re.compile(
    r"[Ee]rror:|sorry, unimplemented|\bline \d+\.$|undefined reference|No space left on device"
    r"|No rule to make target|command not found"
    r"|: not found$|Permission denied|Killed|^(?:make(?:\[\d+\])?|\S+:\d+): \*\*\* (?!\[)|^#error"
    r"|[Ss]egmentation fault|multiple definition"
)
# The end of a chain of makes, where nothing better is found.
_STOP = re.compile(r"\*\*\* ")
# Warnings and notes mention errors, and are not errors.
_HARMLESS = re.compile(r"warning:|note:|\(ignored\)|^\s+(?:CC|LD|AS|AR)\b")


def is_object(line: str) -> bool:
    """Return whether a line reports the compilation of a file."""
    return bool(_OBJECT.match(line))


def first_error(log: str, before: int = 3, after: int = 6) -> Sequence[str]:
    """Return the first error with some lines around it, else the last lines."""
    lines = log.splitlines()
    for pattern in (_MISTAKE, _STOP):
        for number, line in enumerate(lines):
            if pattern.search(line) and not _HARMLESS.search(line):
                return [text for text in lines[max(0, number - before) : number + after] if text.strip()]
    return [text for text in lines[-(before + after) :] if text.strip()]
