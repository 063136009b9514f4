"""Printing and laying out what commands have found."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TextIO


def document(value: object) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of text in columns, indented by two blanks; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(f"  {line}" for line in lines)


def indented(text: str) -> str:
    """Indent each line of ``text`` by two blanks."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def colourful(stream: TextIO) -> bool:
    """Return whether to print colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
