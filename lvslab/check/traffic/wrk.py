"""wrk, the generator of load: its command line as text, and what it says. Nothing is run here.

Each request has a connection of its own, since connections are what a director balances.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lvslab.errors import CheckFailed

PROGRAM = "wrk"
SCRIPT = Path(__file__).with_name("wrk.lua")
ERRORS = ("connect", "read", "write", "status", "timeout")
"""The kinds of errors that wrk tells apart: no connection, one that cannot be read from or written to, a
status of 400 or more, and no answer for 2 s. A refused connection shows up as one of the first three."""

_MARK = "lvslab "


@dataclass(frozen=True)
class Sent:
    """What one wrk has done in ``seconds``: whole answers, their bytes with heads, errors by kind (of
    ERRORS), and how long an answer took, in seconds."""

    seconds: float
    requests: int
    bytes: int
    errors: dict[str, int]
    median: float
    slowest: float


def command(url: str, seconds: int, connections: int, threads: int) -> list[str]:
    """wrk for ``seconds``, with so many ``connections`` open at a time."""
    return [
        PROGRAM,
        *("--duration", f"{seconds}s"),
        *("--connections", str(connections)),
        *("--threads", str(min(threads, connections))),
        *("--header", "Connection: close"),
        *("--script", str(SCRIPT)),
        url,
    ]


def parse(output: str) -> Sent:
    """What wrk's script has printed. Raises CheckFailed where it has not, with wrk's own words."""
    line = next((line for line in output.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise CheckFailed("wrk did not say what came of its requests", output.strip() or None)
    return Sent(**json.loads(line.removeprefix(_MARK)))


def together(parts: Iterable[Sent]) -> Sent:
    """What several that ran at the same time have done; at least one. The median is the worst one's."""
    all_of = list(parts)
    return Sent(
        seconds=max(part.seconds for part in all_of),
        requests=sum(part.requests for part in all_of),
        bytes=sum(part.bytes for part in all_of),
        errors={kind: sum(part.errors[kind] for part in all_of) for kind in ERRORS},
        median=max(part.median for part in all_of),
        slowest=max(part.slowest for part in all_of),
    )
