"""A drawing as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from lvslab.drawing.layout import Layout, PlacedBox
from lvslab.lab.model import Role

_COLOURS: Mapping[Role, str] = {
    "client": "34",
    "router": "36",
    "director": "31",
    "real-server": "32",
    "name-server": "35",
}
"""Colours of ECMA-48's SGR: blue, cyan, red, green, magenta."""
_DIM = "2"


class _Canvas:
    """A sheet of cells, each a character and the style of its row."""

    def __init__(self, width: int, height: int) -> None:
        self._cells = [[(" ", "")] * width for _ in range(height)]

    def at(self, x: int, y: int) -> str:
        return self._cells[y][x][0]

    def put(self, x: int, y: int, text: str, style: str = "") -> None:
        for place, character in enumerate(text, x):
            self._cells[y][place] = character, style

    def lines(self, *, colours: bool) -> list[str]:
        found = list[str]()
        for row in self._cells:
            text, last = "", ""
            for character, style in row:
                if colours and style != last:
                    text += f"\033[0{f';{style}' if style else ''}m"
                    last = style
                text += character
            found.append((text + ("\033[0m" if last else "")).rstrip())
        return found


def as_text(layout: Layout, *, colours: bool = False) -> str:
    """Return a drawing as lines of text, with colours of a terminal where asked for."""
    canvas = _Canvas(layout.width, layout.height)
    for bar in layout.bars:
        canvas.put(0, bar.y, "━" * layout.width, _DIM)
    for placed in layout.boxes:
        _put_box(canvas, placed)
    for line in layout.lines:
        for y in range(line.top + 1, line.bottom):
            if y in line.crosses:
                canvas.put(line.x - 1, y, " │ ", _DIM)
            else:
                canvas.put(line.x, y, "│", _DIM)
        _join(canvas, line.x, line.top, "┯", "┬")
        _join(canvas, line.x, line.bottom, "┷", "┴")
    for bar in layout.bars:
        canvas.put(bar.label, bar.y, f" {bar.bar.name} ", "1")
        canvas.put(bar.label + len(bar.bar.name) + 2, bar.y, f"{bar.bar.subnets} ")
    return "\n".join(canvas.lines(colours=colours))


def _put_box(canvas: _Canvas, placed: PlacedBox) -> None:
    box, x, y, inner = placed.box, placed.x, placed.y, placed.width - 2
    colour = _COLOURS[box.role]
    canvas.put(x, y, f"┌{'─' * inner}┐", colour)
    for number, text in enumerate([box.title, *(row.text for row in box.rows)], 1):
        canvas.put(x, y + number, "│", colour)
        canvas.put(x + 1, y + number, f" {text}".ljust(inner), "" if number > 1 else f"1;{colour}")
        canvas.put(x + placed.width - 1, y + number, "│", colour)
    canvas.put(x, placed.bottom, f"└{'─' * inner}┘", colour)


def _join(canvas: _Canvas, x: int, y: int, at_bar: str, at_box: str) -> None:
    """Join the end of a line with a bar or a frame."""
    there = canvas.at(x, y)
    joined = {"━": at_bar, "┯": "┿", "┷": "┿", "─": at_box}.get(there, there)
    canvas.put(x, y, joined, _DIM)
