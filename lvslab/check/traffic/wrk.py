"""The command line and the output of wrk, the load generator. Nothing is run here.

Each request has a connection of its own, since a director balances connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lvslab.check.traffic.http import ID_HEADER
from lvslab.errors import CheckFailed

PROGRAM = "wrk"
SCRIPT = Path(__file__).with_name("wrk.lua")
ERRORS = ("connect", "read", "write", "status", "timeout")
"""Kinds of errors that wrk counts: no connection, one that cannot be read from or written to, a status of
400 or more, and no reply for 2 s. A refused connection is counted as one of the first three."""

MARK = "lvslab "
"""The beginning of the line with the results."""


@dataclass(frozen=True)
class WrkResult:
    """Result of one wrk, or of several at the same time.

    ``requests`` counts whole replies in ``seconds``, and ``bytes`` their bytes with heads; ``errors`` are
    counted by kind (of `ERRORS`); ``median`` and ``slowest`` are latencies in seconds.
    """

    seconds: float
    requests: int
    bytes: int
    errors: dict[str, int]
    median: float
    slowest: float


def command(url: str, seconds: int, connections: int, threads: int, request_id: str = "") -> list[str]:
    """Return the command line for ``seconds`` of load with ``connections`` open at a time.

    All requests have the same ``request_id`` in the servers' logs.
    """
    return [
        PROGRAM,
        *("--duration", f"{seconds}s"),
        *("--connections", str(connections)),
        *("--threads", str(min(threads, connections))),
        *("--header", "Connection: close"),
        *(("--header", f"{ID_HEADER}: {request_id}") if request_id else ()),
        *("--script", str(SCRIPT)),
        url,
    ]


def parse(output: str) -> WrkResult:
    """Parse what wrk's script prints. Raises CheckFailed with the output where that is missing."""
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise CheckFailed("wrk did not say how its requests ended", output.strip() or None)
    return WrkResult(**json.loads(line.removeprefix(MARK)))


def merge(parts: Iterable[WrkResult]) -> WrkResult:
    """Merge the results of concurrent wrk runs, at least one. The median is the highest of theirs."""
    all_of = list(parts)
    return WrkResult(
        seconds=max(part.seconds for part in all_of),
        requests=sum(part.requests for part in all_of),
        bytes=sum(part.bytes for part in all_of),
        errors={kind: sum(part.errors[kind] for part in all_of) for kind in ERRORS},
        median=max(part.median for part in all_of),
        slowest=max(part.slowest for part in all_of),
    )
