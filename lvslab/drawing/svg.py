"""A drawing as an SVG picture, with colours for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lvslab.drawing.layout import Layout, Line, PlacedBar, PlacedBox

_ACROSS, _DOWN = 8.0, 18.0
"""Size of a cell in pixels: of a character of 13 px, and of a line of text."""
_MARGIN = 16.0
_HEAD = 34.0
_TITLE = 9.2
"""Width of a character of the title in pixels, as a mean."""
_BAR = 22.0

_STYLE = """
  svg {
    color-scheme: light dark; --page: #fff; --ink: #1c2430; --quiet: #5b6675; --wire: #9aa5b4;
    --bar: #e7ebf1; --client: #2563c9; --router: #0f7c86; --director: #c2410c; --real-server: #1f7a3a;
    --name-server: #7c3aa8; --tint: 8%;
  }
  @media (prefers-color-scheme: dark) {
    svg {
      --page: #14181f; --ink: #e6eaf0; --quiet: #9aa6b5; --wire: #66728a; --bar: #2a313c;
      --client: #7cb0ff; --router: #4cc7d1; --director: #ff9a62; --real-server: #66cc88;
      --name-server: #cf9bff; --tint: 14%;
    }
  }
  text { font: 13px "DejaVu Sans Mono", ui-monospace, Menlo, Consolas, monospace; fill: var(--ink) }
  text { white-space: pre }
  .title { font: 600 16px system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
  .page { fill: var(--page) }
  .name { font-weight: 700; fill: var(--own) }
  .about, .gateway, .more { fill: var(--quiet) }
  .virtual, .net { font-weight: 700 }
  .frame { fill: color-mix(in srgb, var(--own) var(--tint), var(--page)); stroke: var(--own) }
  .bar { fill: var(--bar) }
  .wire { stroke: var(--wire); stroke-width: 2 }
  .case { stroke: var(--page); stroke-width: 8 }
  .end { fill: var(--wire) }
"""


def as_svg(layout: Layout) -> str:
    """Return a drawing as the text of an SVG file."""
    width = max(layout.width * _ACROSS, len(layout.title) * _TITLE) + 2 * _MARGIN
    height = layout.height * _DOWN + 2 * _MARGIN + _HEAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(layout.title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width:g}" height="{height:g}" rx="10"/>',
        f'<text class="title" x="{_MARGIN:g}" y="{_MARGIN + 14:g}">{escape(layout.title)}</text>',
        *(_bar(bar, layout.width) for bar in layout.bars),
        *(part for line in layout.lines for part in _line(layout, line)),
        *(_label(bar) for bar in layout.bars),
        *(part for box in layout.boxes for part in _box(box)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _x(column: float) -> float:
    """Return the middle of a column."""
    return _MARGIN + (column + 0.5) * _ACROSS


def _y(row: float) -> float:
    """Return the middle of a row."""
    return _MARGIN + _HEAD + (row + 0.5) * _DOWN


def _bar(placed: PlacedBar, width: int) -> str:
    return (
        f'<rect class="bar" x="{_MARGIN:g}" y="{_y(placed.y) - _BAR / 2:g}" '
        f'width="{width * _ACROSS:g}" height="{_BAR:g}" rx="{_BAR / 2:g}"/>'
    )


def _label(placed: PlacedBar) -> str:
    bar = placed.bar
    return (
        f'<text x="{_x(placed.label):g}" y="{_y(placed.y) + 4.5:g}"><tspan class="net">{escape(bar.name)}'
        f"</tspan>  {escape(bar.subnets)}</text>"
    )


def _line(layout: Layout, line: Line) -> Iterator[str]:
    x, bars = _x(line.x), {bar.y for bar in layout.bars}
    top, bottom = _y(line.top), _y(line.bottom)
    for row in line.crosses:  # with a gap on both sides, as a bridge over the bar
        yield _wire("case", x, _y(row) - _BAR / 2, _y(row) + _BAR / 2)
    yield _wire("wire", x, top, bottom)
    at = top if line.top in bars else bottom
    yield f'<circle class="end" cx="{x:g}" cy="{at:g}" r="4"/>'


def _wire(name: str, x: float, top: float, bottom: float) -> str:
    return f'<line class="{name}" x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}"/>'


def _box(placed: PlacedBox) -> Iterator[str]:
    x, y = _x(placed.x), _y(placed.y)
    width, height = (placed.width - 1) * _ACROSS, (placed.height - 1) * _DOWN
    yield f'<g style="--own: var(--{placed.box.role})">'
    yield f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7"/>'
    texts = [("name", placed.box.title), *((row.kind, row.text) for row in placed.box.rows)]
    for number, (name, text) in enumerate(texts, 1):
        yield (
            f'<text class="{name}" x="{_x(placed.x + 1.5):g}" y="{_y(placed.y + number) + 4.5:g}">'
            f"{escape(text)}</text>"
        )
    yield "</g>"
