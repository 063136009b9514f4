"""Parsers of the kernel's counters of all services together, in /proc/net.

``ip_vs_stats`` has a heading of two lines, the counters, an empty line, a heading, and the rates; all
numbers are hexadecimal, without a prefix. It has been so from Linux 2.4 to today
(``ip_vs_stats_show`` in ip_vs_ctl.c, ``ip_vs_stats_get_info`` in that of 2.4.37.11). ``ip_vs_stats_percpu``,
since 2.6.39, has a line of counters for each processor, and one that begins with "~" for the sum when it was
last added up, which is the one in ``ip_vs_stats`` and ipvsadm (``ip_vs_stats_percpu_show``).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import astuple, dataclass

from lvslab.check.ipvs.listing import Counters, Rates
from lvslab.check.ipvs.table import TableError

STATS = "/proc/net/ip_vs_stats"
PERCPU = "/proc/net/ip_vs_stats_percpu"


@dataclass(frozen=True)
class Stats:
    """Counters of all services together, and the kernel's own rates (see `listing.parse_rates`)."""

    counters: Counters
    rates: Rates


@dataclass(frozen=True)
class PerProcessor:
    """Counters of each processor (``counted``), and the sum when it was last added up (``shown``)."""

    counted: tuple[Counters, ...]
    shown: Counters

    @property
    def up_to_date(self) -> bool:
        """True if the sum is that of the processors' counters.

        It never is again once the counters were zeroed: that zeroes the sum alone.
        """
        summed = tuple(map(sum, zip(*map(astuple, self.counted), strict=True)))
        return summed == astuple(self.shown)


def parse_stats(text: str) -> Stats:
    """Parse /proc/net/ip_vs_stats. Raises TableError."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if len(rows) != 5:
        raise TableError(f"not what {STATS} holds: {text!r}")
    counters, rates = (_hexadecimal(rows[place], text, STATS) for place in (2, 4))
    return Stats(Counters(*counters), Rates(*rates))


def parse_percpu(text: str) -> PerProcessor:
    """Parse /proc/net/ip_vs_stats_percpu. Raises TableError."""
    # The rates come after an empty line.
    rows = [line.split() for line in text.partition("\n\n")[0].splitlines()[2:]]
    found = {name: Counters(*_hexadecimal(numbers, text, PERCPU)) for name, *numbers in rows}
    if "~" not in found:
        raise TableError(f"not what {PERCPU} holds: {text!r}")
    shown = found.pop("~")
    return PerProcessor(tuple(found.values()), shown)


def _hexadecimal(columns: list[str], text: str, file: str) -> list[int]:
    with suppress(ValueError):
        numbers = [int(column, 16) for column in columns]
        if len(numbers) == 5:
            return numbers
    raise TableError(f"not what {file} holds: {text!r}")
