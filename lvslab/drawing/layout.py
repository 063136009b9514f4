"""Places of bars, boxes and lines in a drawing, in cells of a terminal.

Networks are horizontal bars below each other. A box hangs below the topmost of its networks, and has a line
to each; clients stand above the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lvslab.drawing.content import Bar, Box, Content

_GAP = 2
_APART = 4
"""Cells between the lines of a box to several networks below."""


@dataclass(frozen=True)
class PlacedBox:
    """A box with its frame: ``x`` and ``y`` are its upper left cell."""

    box: Box
    x: int
    y: int
    width: int
    height: int

    @property
    def middle(self) -> int:
        """The column in its middle."""
        return self.x + self.width // 2

    @property
    def bottom(self) -> int:
        """The row of the lower frame."""
        return self.y + self.height - 1


@dataclass(frozen=True)
class PlacedBar:
    """A bar in row ``y``; its label begins at ``label``."""

    bar: Bar
    y: int
    label: int


@dataclass(frozen=True)
class Line:
    """A line in column ``x``, between a bar and the frame of a box. ``crosses`` are rows of other bars."""

    x: int
    top: int
    bottom: int
    bar: int
    crosses: tuple[int, ...] = ()


@dataclass(frozen=True)
class _End:
    """The end of a line at a box, in column ``x``.

    ``bar`` is the number of the bar at the other end.
    """

    box: PlacedBox
    x: int
    bar: int


@dataclass(frozen=True)
class Layout:
    """A drawing of ``width`` by ``height`` cells; all bars have that width."""

    title: str
    width: int
    height: int
    bars: tuple[PlacedBar, ...]
    boxes: tuple[PlacedBox, ...]
    lines: tuple[Line, ...]


def size_of(box: Box) -> tuple[int, int]:
    """Return width and height of a box with its frame, in cells. The width is odd: there is a middle."""
    texts = [box.title, *(row.text for row in box.rows)]
    below = _APART * len(set(box.networks)) + 1
    return (max(*map(len, texts), below) + 4) | 1, len(texts) + 2


def lay_out(content: Content) -> Layout:
    """Place all that a drawing shows.

    Boxes come into its middle where no line passes a row of them.
    """
    found = _placed(content, 0)
    return found if any(line.crosses for line in found.lines) else _placed(content, found.width | 1)


def _placed(content: Content, width: int) -> Layout:
    """Place all that a drawing shows.

    Rows of boxes come into the middle of ``width`` cells.
    """
    number = {bar.name: place for place, bar in enumerate(content.bars)}
    above, rows = list[Box](), [list[Box]() for _ in content.bars]
    for box in content.boxes:
        on = {number[network] for network in box.networks}
        (above if box.role == "client" and on == {0} else rows[min(on)]).append(box)
    placed, up, down = list[PlacedBox](), list[_End](), list[_End]()
    y, bar_rows = 0, list[int]()
    if above:
        put = _row(above, (), y, width)
        y = max(each.bottom for each in put) + 2
        placed += (put := [replace(each, y=y - 1 - each.height) for each in put])  # they stand on the bar
        down += [_End(each, each.middle, 0) for each in put]
    for place, boxes in enumerate(rows):
        bar_rows.append(y)
        passing = [end.x for end in down if end.bar > place]
        put = _row(sorted(boxes, key=lambda box: -len({*box.networks})), passing, y + 2, width)
        for each in put:
            bars = [number[network] for network in each.box.networks]
            up += [_End(each, x, place) for x in _spread(each.middle, bars.count(place))]
            lower = sorted({bar for bar in bars if bar > place}, reverse=True)
            begin = each.middle if len(lower) == 1 else each.x + 2
            down += [_End(each, begin + _APART * turn, bar) for turn, bar in enumerate(lower)]
        placed += put
        y = max((each.bottom for each in put), default=y) + 2
    lines = [Line(end.x, bar_rows[end.bar], end.box.y, end.bar) for end in up]
    for end in down:
        crossed = tuple(row for row in bar_rows[: end.bar] if row > end.box.bottom)
        lines.append(Line(end.x, end.box.bottom, bar_rows[end.bar], end.bar, crossed))
    placed_bars, width = _bars(content, bar_rows, lines, max(each.x + each.width for each in placed) + 1)
    height = max(*(each.bottom for each in placed), *bar_rows) + 1
    return Layout(content.title, width, height, placed_bars, tuple(placed), tuple(lines))


def _bars(
    content: Content, rows: Sequence[int], lines: Sequence[Line], width: int
) -> tuple[tuple[PlacedBar, ...], int]:
    """Place the bars, and their labels where no line meets them.

    Returns the width that all need, too.
    """
    bars = list[PlacedBar]()
    for place, (bar, row) in enumerate(zip(content.bars, rows, strict=True)):
        size = len(str(bar)) + 2
        label = _free((line.x for line in lines if line.bar == place or row in line.crosses), size + 2) + 1
        bars.append(PlacedBar(bar, row, label))
        width = max(width, label + size + 1)
    return tuple(bars), width


def _row(boxes: Sequence[Box], passing: Iterable[int], y: int, room: int) -> list[PlacedBox]:
    """Place boxes beside each other in the middle of ``room``, where no line passes."""
    together = sum(size_of(box)[0] + _GAP for box in boxes) - _GAP
    found, x, passing = list[PlacedBox](), max(1, (room - together) // 2), sorted(passing)
    for box in boxes:
        width, height = size_of(box)
        for line in passing:
            if x - 2 < line < x + width + 1:
                x = line + 2
        found.append(PlacedBox(box, x, y, width, height))
        x += width + _GAP
    return found


def _spread(middle: int, count: int) -> list[int]:
    """Return ``count`` columns around ``middle``."""
    return [middle + _APART * turn - _APART * (count - 1) // 2 for turn in range(count)]


def _free(taken: Iterable[int], size: int) -> int:
    """Return the first column with ``size`` free cells from there on."""
    start = 1
    for x in sorted(taken):
        if x - start >= size:
            break
        start = max(start, x + 1)
    return start
