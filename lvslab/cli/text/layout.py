"""Printing and laying out what commands have found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TextIO


def document(value: object) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(value, indent=2))


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of text in columns, indented by two blanks."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligned = (map(str.ljust, row, widths) for row in rows)
    return "\n".join(f"  {'  '.join(cells)}".rstrip() for cells in aligned)


def named(found: Mapping[str, Sequence[str]], none: str = "") -> str:
    """Names after the only key of ``found``, or ``none`` if there are no names."""
    [(what, names)] = found.items()
    return f"{what}: {', '.join(names)}" if names else none


def indented(text: str) -> str:
    """Indent each line of ``text`` by two blanks."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def colourful(stream: TextIO) -> bool:
    """Return whether to print colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return interactive(stream) and not os.environ.get("NO_COLOR")


def interactive(stream: TextIO) -> bool:
    """Return whether ``stream`` is a terminal that can change what it shows."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"
