"""The beginning of a round, on a director that may have been in use before.

Finished connections stay in the director's table for two minutes. Schedulers count them, and they expire
during rounds. So a round waits for a time in which none expires; and one that checks a promise for an idle
cluster (weight 2 has twice what weight 1 has) first makes requests until the next ones are shared like that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lvslab.check.ipvs.director import delay_until_gap, expiries
from lvslab.check.ipvs.listing import Connection
from lvslab.check.ipvs.table import Service, address_of
from lvslab.check.schedulers import Forecast, Server

WITHOUT_TEMPLATES = ("listing", "counters")
WITH_TEMPLATES = ("listing", "counters", "entries", "quiescent")
"""The parts of a reading that forecasts need, without and with persistence."""
MOST_LEADING = 300
"""Maximum number of requests that are made before a round so that it begins as on an idle cluster."""


def leading(
    servers: Sequence[Server], count: int, foresee: Callable[[Sequence[Server], int], Forecast]
) -> int | None:
    """Return after how many requests the next ``count`` are shared as on an idle cluster.

    ``foresee`` forecasts a number of requests to ``servers``. None where it takes more than MOST_LEADING.
    """
    if not any(server.active + server.inactive for server in servers):
        return 0
    idle = [replace(server, active=0, inactive=0, overloaded=False) for server in servers]
    wanted = Counter(foresee(idle, count).names)
    if Counter(foresee(servers, count).names) == wanted:
        return 0
    names = foresee(servers, MOST_LEADING + count).names
    starts = range(MOST_LEADING + 1)
    return next((start for start in starts if Counter(names[start : start + count]) == wanted), None)


def of_service(connections: Iterable[Connection], service: Service) -> list[Connection]:
    """Return those of ``connections`` that count at the servers of ``service``; templates do not.

    A server of port 0 has the connections of every port.
    """
    servers = {str(server) for server in service.destinations if server.port}
    addresses = {server.address for server in service.destinations if not server.port}
    return [
        entry
        for entry in connections
        if (entry.server in servers or address_of(entry.server) in addresses)
        and not entry.client.endswith(":0")
    ]


def delay(connections: Iterable[Connection], seconds: float, *, all_gone: bool = False) -> float:
    """Return the delay until no finished one of ``connections`` expires within ``seconds``.

    With ``all_gone``, until all of them have expired.
    """
    times = expiries(connections)
    return max(times, default=-1) + 1.0 if all_gone else delay_until_gap(times, seconds)
