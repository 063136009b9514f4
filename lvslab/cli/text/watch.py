"""Output of ``lab.watch``: a live table on a terminal, tables or lines of JSON elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lvslab.check.ipvs.listing import Rates

if TYPE_CHECKING:
    from lvslab.check.monitor.watch import DirectorSeen, LabSeen, ServerSeen, ServiceSeen

WIDE = 120
"""Minimum width of a terminal, in columns, for traffic by direction and shares as bars."""
_BAR = 13
_UNKNOWN = "-"


def follow(readings: Iterable[LabSeen], *, count: int, as_json: bool) -> None:
    """Show ``readings`` until ``count`` with rates have been shown.

    With ``count`` 0 there is no limit; without a terminal a table is shown only once.
    """
    console = Console(highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal and not as_json
    if not live and not as_json and not console.is_terminal:
        console.width, count = max(console.width, WIDE), count or 1
    coming = iter(readings)
    if live:
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as shown:
            for seen in islice(coming, count + 1 if count else None):
                # The cursor stays on an empty line, where the terminal may echo keystrokes.
                lines = Group(table(seen, console.width, console.height), Text())
                shown.update(lines, refresh=True)
        return
    next(coming)  # the first reading has no rates
    for seen in islice(coming, count or None):
        if as_json:
            print(json.dumps(seen.as_json()), flush=True)
        else:
            console.print(table(seen, console.width))


Line = Text | list[Text]  # a line of text, or the cells of a line in columns


def table(seen: LabSeen, width: int, height: int = 0) -> Group:
    """Lay a reading out for a terminal of this size; ``height`` 0 means no limit."""
    wide = width >= WIDE
    headings = ["weight", "active", "inact", "conn/s"]
    headings += ["pkt/s in", "pkt/s out", "B/s in", "B/s out"] if wide else ["pkt/s", "B/s"]
    # Wide enough for later numbers: columns that move are hard to read.
    columns = [(heading, max(len(heading), 6)) for heading in [*headings, "share", "due"]]
    if wide:
        columns.append(("", _BAR))
    first = width - sum(wanted + 1 for _, wanted in columns)
    when = f"{time.strftime('%H:%M:%S', time.localtime(seen.time))}  {seen.name}"
    lines: list[Line] = [[Text(when, "bold"), *(Text(heading, "dim") for heading, _ in columns)]]
    lines += [line for director in seen.directors for line in _director(director, wide, first)]
    # The cursor stays on the last line of a terminal.
    if height and len(lines) > height - 1:
        room = max(1, height - 2)
        left_out = len(lines) - room
        lines[room:] = [Text(f"... {left_out} more lines: enlarge the terminal, or use --json", "dim")]
    widths = [first, *(wanted for _, wanted in columns)]
    return Group(*(_in_columns(line, widths) if isinstance(line, list) else line for line in lines))


def _in_columns(cells: list[Text], widths: list[int]) -> Text:
    line = Text(no_wrap=True)
    if len(cells) > 1 and not cells[1]:
        # A long name may use the empty cell beside it.
        cells, widths = [cells[0], *cells[2:]], [widths[0] + 1 + widths[1], *widths[2:]]
    for place, (cell, width) in enumerate(zip(cells, widths, strict=False)):
        cell.truncate(width, overflow="ellipsis")
        # Names and bars are left-aligned, numbers right-aligned.
        cell.align("right" if place > 0 and width != _BAR else "left", width)
        line.append(" " if place else "").append_text(cell)
    line.rstrip()
    return line


def _director(seen: DirectorSeen, wide: bool, first: int) -> Iterator[Line]:
    if seen.state != "up":
        what = seen.state.removeprefix(seen.director)
        told = Text.assemble((seen.director, "bold cyan"), (f"  {what.lstrip()}", "bold red"))
        told.no_wrap, told.overflow = True, "ellipsis"
        yield told
        return
    over = "" if seen.seconds is None else f"  rates over {seen.seconds:.1f} s"
    yield Text.assemble((seen.director, "bold cyan"), (over, "dim"))
    if not seen.services:
        yield Text("  no virtual service", "dim")
    for service in seen.services:
        yield _service(service, wide)
        yield from (_server(server, wide, first) for server in service.servers)


def _service(seen: ServiceSeen, wide: bool) -> list[Text]:
    name = Text.assemble("  ", (seen.service, "bold"), f" {seen.scheduler}", (f" {seen.flags}", "dim"))
    name.rstrip()
    active = sum(server.active for server in seen.servers)
    inactive = sum(server.inactive for server in seen.servers)
    return [name, Text(""), *map(Text, [f"{active}", f"{inactive}", *_rates(seen.rates, wide)])]


def _server(seen: ServerSeen, wide: bool, first: int) -> list[Text]:
    style = "" if seen.weight else "dim"
    name = f"    {seen.server}"
    if seen.server not in seen.address and first > len(name) + len(seen.address) + 2:
        name += f"  {seen.address}"
    cells = [name, f"{seen.weight}", f"{seen.active}", f"{seen.inactive}", *_rates(seen.rates, wide)]
    cells += [_percent(seen.share), _percent(seen.by_weight)]
    return [*(Text(cell, style) for cell in cells), *([bar(seen.share, seen.by_weight)] if wide else [])]


def _rates(rates: Rates | None, wide: bool) -> list[str]:
    if rates is None:
        return [_UNKNOWN] * (5 if wide else 3)
    if wide:
        return [short(rate) for rate in astuple(rates)]
    both = rates.packets_in + rates.packets_out, rates.bytes_in + rates.bytes_out
    return [short(rate) for rate in (rates.connections, *both)]


def _percent(share: float | None) -> str:
    return _UNKNOWN if share is None else f"{share:.1%}"


def short(number: float) -> str:
    """Format a number in at most five characters: ``0``, ``1.5``, ``950``, ``12.3k``, ``4.5M`` (k: 1000)."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 999.5 or unit == "T":
            break
        number /= 1000
    return f"{number:.0f}{unit}" if number == round(number) or number >= 99.95 else f"{number:.1f}{unit}"


def bar(share: float | None, by_weight: float | None) -> Text:
    """Draw the share as a bar, with a mark at the share by weight."""
    filled = round((share or 0) * _BAR)
    text = Text("\u2588" * filled + " " * (_BAR - filled), "cyan")
    if by_weight is not None:
        place = max(0, round(by_weight * _BAR) - 1)  # the last cell of a bar of this length
        text = Text.assemble(text[:place], ("|", "bold yellow"), text[place + 1 :])
    return text
