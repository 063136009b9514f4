"""Live figures of a lab's directors: connections, rates and shares of the real servers.

Pure functions compute the figures from two readings; `Watch` takes the readings. It asks the lab's
supervisor, which asks the directors' agents, and needs no file of the lab.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from lvslab.boot.control import Control
from lvslab.check.ipvs import director as directors
from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.listing import Counters, ListedService, Rates
from lvslab.closing import Closing
from lvslab.cluster import registry
from lvslab.errors import LvsLabError, StateError, UsageError

INTERVAL = 2
"""Seconds between two readings: kernels since 2.6.39 add up their counters every 2 s."""
MOST_SECONDS = 3600
PATIENCE = 8.0
"""Seconds in which a director must answer. Prometheus waits 10 s for a scrape unless told otherwise."""

# A reading is begun a little before the kernel adds up again, or it would wait for the next time.
_EARLY = 0.4
# The supervisor needs a moment beside the time that it gives the director.
_GRACE = 5.0


@dataclass(frozen=True)
class ServerSeen:
    """Figures of a real server of a virtual service.

    ``rates`` are over the time between two readings, None at the first; ``kernel_rates`` are the kernel's
    own averages. ``share`` is the server's part of the connections since the weights last changed, as far as
    that was seen, else since the service was made; ``by_weight`` is its part of all weights. Both are from
    0 to 1, and None where the total is 0.
    """

    server: str
    address: str
    forwarding: str
    weight: int
    active: int
    inactive: int
    total: Counters | None
    rates: Rates | None
    kernel_rates: Rates | None
    share: float | None
    by_weight: float | None


@dataclass(frozen=True)
class ServiceSeen:
    """Figures of a virtual service; servers are in the order of ipvsadm's listing."""

    service: str
    protocol: str
    address: str
    port: int
    mark: int
    scheduler: str
    flags: str
    total: Counters | None
    rates: Rates | None
    kernel_rates: Rates | None
    servers: tuple[ServerSeen, ...]


@dataclass(frozen=True)
class DirectorSeen:
    """Figures of a director.

    ``state`` is "up", or the error of reading it. The rates are over ``seconds`` of its own clock, None
    where there are none.
    """

    director: str
    state: str
    seconds: float | None = None
    services: tuple[ServiceSeen, ...] = ()


@dataclass(frozen=True)
class LabSeen:
    """Figures of a lab's directors, as ``lab.watch --json`` prints them; ``time`` is in Unix seconds."""

    name: str
    time: float
    directors: tuple[DirectorSeen, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Since:
    """The start of a service's shares.

    ``settings`` are those that the shares depend on; ``connections`` are the servers' counters at the start.
    """

    settings: tuple[object, ...] = ()
    connections: Mapping[str, int] = field(default_factory=dict)


def shares_since(now: Reading, last: Mapping[str, Since]) -> dict[str, Since]:
    """Return the start of the shares of each service, given that of the ``last`` reading."""
    return {str(row): _since(row, now, last.get(str(row))) for row in now.connections}


def _since(row: ListedService, now: Reading, last: Since | None) -> Since:
    settings = (row.scheduler, row.flags, *((str(server), server.weight) for server in row.servers))
    counted = {
        str(server): counters.connections
        for server in row.servers
        if (counters := now.by_server.get((str(row), str(server))))
    }
    if last is None:
        return Since(settings)
    if any(count < last.connections.get(server, 0) for server, count in counted.items()):
        return Since(settings)  # they were zeroed
    return last if settings == last.settings else Since(settings, counted)


def director_seen(
    name: str, now: Reading, before: Reading | None, since: Mapping[str, Since], nodes: Mapping[str, str]
) -> DirectorSeen:
    """Compute the figures of a director; ``nodes`` are the names of nodes by address."""
    seconds = now.uptime - before.uptime if before is not None else None
    services = tuple(_service(row, now, before, since[str(row)], nodes) for row in now.connections)
    return DirectorSeen(name, "up", None if seconds is None else round(seconds, 2), services)


def _service(
    row: ListedService, now: Reading, before: Reading | None, since: Since, nodes: Mapping[str, str]
) -> ServiceSeen:
    service = str(row)
    given = {
        str(server): counters.connections - since.connections.get(str(server), 0)
        for server in row.servers
        if (counters := _counted(now, service, str(server)))
    }
    weights, connections = sum(server.weight for server in row.servers), sum(given.values())
    servers = tuple(
        ServerSeen(
            server=nodes.get(server.address, server.address),
            address=str(server),
            forwarding=server.forwarding,
            weight=server.weight,
            active=server.active,
            inactive=server.inactive,
            total=_counted(now, service, str(server)),
            rates=_rates(now, before, service, str(server)),
            kernel_rates=now.rates.get((service, str(server))),
            share=round(given.get(str(server), 0) / connections, 4) if connections else None,
            by_weight=round(server.weight / weights, 4) if weights else None,
        )
        for server in row.servers
    )
    return ServiceSeen(
        service=service,
        protocol=row.protocol,
        address=row.address,
        port=row.port,
        mark=row.mark,
        scheduler=row.scheduler,
        flags=row.flags,
        total=_counted(now, service),
        rates=_rates(now, before, service),
        kernel_rates=now.rates.get((service, "")),
        servers=servers,
    )


def _counted(reading: Reading, service: str, server: str = "") -> Counters | None:
    return reading.by_server.get((service, server)) if server else reading.totals.get(service)


def _rates(now: Reading, before: Reading | None, service: str, server: str = "") -> Rates | None:
    """Compute rates by the director's own clock: an emulated one may be slower than ours."""
    if before is None:
        return None
    counted, earlier = (_counted(reading, service, server) for reading in (now, before))
    if counted is None or earlier is None:
        return None
    return counted.since(earlier).per(now.uptime - before.uptime)


class _Glance(Control):
    """A supervisor that is asked with a time limit."""

    def observe(self, node: str, command: str, seconds: float | None = PATIENCE) -> str:
        return super().observe(node, command, seconds)


def glance(
    name: str, director: str, how: Callable[[directors.Observer, str], Reading]
) -> Reading | LvsLabError:
    """Read a director of the lab ``name`` by ``how``; return the reading, or the error.

    It has a connection of its own to the supervisor, so that a director that hangs does not block others.
    """
    try:
        with _Glance(name, PATIENCE + _GRACE) as supervisor:
            return how(supervisor, director)
    except LvsLabError as error:
        return error


def check_bounds(interval: int, count: int) -> None:
    """Raise UsageError for an interval or a count out of range."""
    if not 1 <= interval <= MOST_SECONDS:
        raise UsageError(
            f"--interval is {interval}", f"it takes a whole number of seconds from 1 to {MOST_SECONDS}"
        )
    if count < 0:
        raise UsageError(f"--count is {count}", "it takes a whole number; 0, the default, sets no limit")


class Watch(Closing):
    """The directors of the lab ``name``, read every ``interval`` seconds, all at the same time.

    Iteration yields a LabSeen for each reading; the first has no rates. Raises StateError when the lab ends.
    Leaving the context ends all waiting, in other threads too.
    """

    def __init__(self, name: str, interval: int = INTERVAL) -> None:
        self.name = name
        self.interval = interval
        self.lab = registry.status(name)
        self._lifeline = registry.talk_to(name)
        self._workers = ThreadPoolExecutor(max(1, len(self.lab.directors)), "watch")
        self._last: dict[str, Reading] = {}
        self._since: dict[str, Mapping[str, Since]] = {}
        self._due: dict[str, float] = {}

    def close(self) -> None:
        self._lifeline.hang_up()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __iter__(self) -> Iterator[LabSeen]:
        while True:
            seen = tuple(self._workers.map(self._look, self.lab.directors))
            if self._lifeline.wait_for_end(0):
                raise self._ended()
            yield LabSeen(self.name, round(time.time(), 3), seen)

    def _look(self, director: str) -> DirectorSeen:
        # Each has a time of its own: the kernels of several directors do not add up at the same moment.
        self._pause(self._due.get(director, 0.0) - time.monotonic())
        now = glance(self.name, director, self._read)
        self._due[director] = time.monotonic() + self.interval - _EARLY
        if isinstance(now, LvsLabError):
            # What it counts meanwhile is not of one interval.
            self._last.pop(director, None)
            return DirectorSeen(director, now.message)
        before = self._last.get(director)
        since = shares_since(now, self._since.get(director, {}))
        self._last[director], self._since[director] = now, since
        return director_seen(director, now, before, since, self.lab.names)

    def _read(self, observer: directors.Observer, director: str) -> Reading:
        early = _EARLY if director in self._last else 0.0
        return directors.read_fresh(observer, director, early=early, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        if self._lifeline.wait_for_end(seconds):
            raise self._ended()

    def _ended(self) -> StateError:
        return StateError(f"the lab '{self.name}' has ended", "it was watched until then")
