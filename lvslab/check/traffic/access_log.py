"""The real servers' access logs: one JSON object a line, as the lab's nginx writes it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lvslab.errors import LvsLabError


class AccessLogError(LvsLabError, ValueError):
    """A line of an access log that the lab's nginx does not write. The message quotes it."""


@dataclass(frozen=True)
class LogEntry:
    """One request as a real server saw it. ``time`` is in seconds since 1970, to the millisecond.

    ``request_id`` is "" where the client sent none; ``client`` is the address that the connection came from.
    """

    time: float
    request_id: str
    client: str
    client_port: int
    status: int
    path: str
    server: str


def parse_access_log(text: str) -> tuple[LogEntry, ...]:
    """Parse an access log into its entries, in their order.

    A last line without a line end is still being written and is left out. Raises AccessLogError on any other
    line that cannot be read.
    """
    whole, _, _ = text.rpartition("\n")
    return tuple(_entry(line) for line in whole.splitlines() if line.strip())


def _entry(line: str) -> LogEntry:
    try:
        fields = json.loads(line)
        request_id = fields["request_id"]
        return LogEntry(
            time=float(fields["time"]),
            request_id="" if request_id == "-" else str(request_id),
            client=str(fields["client"]),
            client_port=int(fields["client_port"]),
            status=int(fields["status"]),
            path=str(fields["path"]),
            server=str(fields["server"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AccessLogError(
            f"not a line of the lab's access log ({type(error).__name__}: {error}): {line!r}"
        ) from None


def with_ids(entries: Iterable[LogEntry], request_ids: Collection[str]) -> tuple[LogEntry, ...]:
    """Return the entries of the requests with these ids, in the order of ``entries``."""
    wanted = frozenset(request_ids)
    return tuple(entry for entry in entries if entry.request_id in wanted)


def missing_ids(entries: Iterable[LogEntry], request_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the ids that no entry has, in their order.

    nginx writes an entry when the request has ended, which may be a moment after the client has the reply:
    wait until no id is missing before counting.
    """
    logged = {entry.request_id for entry in entries}
    return tuple(request_id for request_id in request_ids if request_id not in logged)


def requests_by_server(entries: Iterable[LogEntry]) -> dict[str, int]:
    """Count the requests that each server logged."""
    return dict(Counter(entry.server for entry in entries))


def client_addresses(entries: Iterable[LogEntry]) -> frozenset[str]:
    """Return the client addresses that the servers saw."""
    return frozenset(entry.client for entry in entries)
