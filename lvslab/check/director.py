"""What a director says of its virtual services, read in one go."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lvslab.check.ipvs_listing import (
    Counters,
    ServiceConnections,
    parse_connections,
    parse_counters,
    parse_entries,
    parse_thresholds,
)
from lvslab.check.ipvs_rules import parse_rules
from lvslab.check.ipvs_table import Destination, Service
from lvslab.check.ipvs_typed import spelled_out
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.cluster import Cluster

ESTIMATION_PERIOD = 2.5
"""Seconds of the director's own clock in which its kernel adds up all of its counters: every 2 s
(``IPVS_EST_TICK`` times 50 in include/net/ip_vs.h since Linux 6.2), and a little for threads that come late.
"""

_COMMANDS = {
    "rules": "ipvsadm -Sn",
    "thresholds": "ipvsadm -Ln --thresholds",
    "listing": "ipvsadm -Ln",
    "counters": "ipvsadm -Ln --stats --exact",
    "entries": "ipvsadm -Lnc",
    "ip_forward": "cat /proc/sys/net/ipv4/ip_forward",
}
EVERYTHING = tuple(_COMMANDS)


@dataclass(frozen=True)
class Reading:
    """A director at one moment: its table, its connections and counters, and whether it forwards.

    ``entries`` maps the client's end of each connection that it remembers to the real server's, both as
    ``address:port``. ``rules`` have their thresholds only where these were read too. The counters
    (``totals``, ``by_server``) lag behind since Linux 2.6.39: see `settled`. Connections and entries are of
    this moment.
    """

    rules: tuple[Service, ...]
    connections: tuple[ServiceConnections, ...]
    totals: dict[str, Counters]
    by_server: dict[tuple[str, str], Counters]
    entries: dict[str, str]
    ip_forward: int
    listing: str

    def connections_of(self, service: Service) -> ServiceConnections | None:
        """The row of ``service``, None where the director does not have it."""
        return next((row for row in self.connections if str(row) == str(service)), None)


def read(cluster: Cluster, director: str, what: Sequence[str] = EVERYTHING) -> Reading:
    """Read the director named ``director``; only ``what`` (of EVERYTHING), where that is enough and the
    rest shall be as if there were nothing. Raises CheckFailed where its ipvsadm does not answer.
    """
    mark = f"-- {secrets.token_hex(8)}"
    said = cluster.observe(director, f" && echo '{mark}' && ".join(_COMMANDS[part] for part in what))
    parts = said.split(f"{mark}\n")
    if len(parts) != len(what):
        raise CheckFailed(f"{director} did not say all that it was asked for", "has it too much to list?")
    found = dict.fromkeys(EVERYTHING, "") | dict(zip(what, parts, strict=True))
    counters = parse_counters(found["counters"])
    return Reading(
        rules=_with_thresholds(parse_rules(found["rules"]), parse_thresholds(found["thresholds"])),
        connections=parse_connections(found["listing"]),
        totals={str(service): service.counters for service in counters},
        by_server={
            (str(service), str(server)): server.counters
            for service in counters
            for server in service.servers
        },
        ip_forward=int(found["ip_forward"] or 0),
        entries={entry.client: entry.server for entry in parse_entries(found["entries"])},
        listing=found["listing"].rstrip(),
    )


def _with_thresholds(
    rules: tuple[Service, ...], thresholds: Mapping[tuple[str, str], tuple[int, int]]
) -> tuple[Service, ...]:
    """``rules`` with the thresholds of their servers, which ``ipvsadm -S`` does not print."""

    def of(service: Service, server: Destination) -> Destination:
        upper, lower = thresholds.get((str(service), str(server)), (0, 0))
        return replace(server, upper_threshold=upper, lower_threshold=lower)

    return tuple(
        replace(service, destinations=tuple(of(service, server) for server in service.destinations))
        for service in rules
    )


def settled(
    cluster: Cluster, director: str, seconds: float = 20.0, what: Sequence[str] = EVERYTHING
) -> Reading:
    """Read the director, all or ``what`` of it, when its counters have caught up with what has happened.

    Kernels since 2.6.39 count on each processor, and add that up every 2 s into what ipvsadm shows
    (net/netfilter/ipvs/ip_vs_est.c). ``ip_vs_stats_percpu``, which came with it, shows both for all services
    together. Up to 6.1 one timer adds up all there is, so what holds for the whole holds for each server.
    Since 6.2 threads do, server by server; there, and where the whole has been zeroed, which makes the two
    differ for good, the counters must stand still for a period of the director's own clock.

    Raises CheckFailed where they go on moving: there is other traffic then.
    """
    deadline = time.monotonic() + seconds
    before = None
    while time.monotonic() < deadline:
        now = _added_up(cluster.observe(director, _ADDED_UP))
        if now is None or (now.at_once and now.counted == now.shown):
            return read(cluster, director, what)
        if before is None or now.counted != before.counted:
            before = now
        elif now.uptime - before.uptime > ESTIMATION_PERIOD:
            return read(cluster, director, what)
    raise CheckFailed(
        f"the counters of {director} do not stand still", "is somebody else using the service?"
    )


_ADDED_UP = (
    "cat /proc/uptime; for name in /proc/sys/net/ipv4/vs/est_nice /proc/net/ip_vs_stats_percpu; do "
    "[ ! -e $name ] || { echo $name; cat $name; }; done"
)


@dataclass(frozen=True)
class _AddedUp:
    """How far a director's kernel has added up what its processors have counted for all services:
    connections, packets and bytes, in and out. ``at_once``: all there is to add up is added up together.
    """

    uptime: float
    at_once: bool
    counted: tuple[int, ...]
    shown: tuple[int, ...]


def _added_up(text: str) -> _AddedUp | None:
    """What _ADDED_UP prints; None where the kernel counts in one place, so that nothing lags behind."""
    uptime, _, rest = text.partition("\n")
    threads, found, table = rest.partition("/proc/net/ip_vs_stats_percpu\n")
    if not found:
        return None
    # A heading of two lines, a line for each processor, and "~" for what is shown, in hexadecimal numbers.
    lines = [line.split() for line in table.partition("\n\n")[0].splitlines()[2:]]
    rows = {name: tuple(int(number, 16) for number in numbers) for name, *numbers in lines}
    shown = rows.pop("~")
    counted = tuple(map(sum, zip(*rows.values(), strict=True)))
    return _AddedUp(float(uptime.split()[0]), not threads, counted, shown)


def kernel(cluster: Cluster, director: str) -> str:
    """The version of the kernel that ``director`` runs, to the last number where the kernel says so.

    Debian's releases (``uname -r``) have it in their name only since 6.6: 6.1.0-50-cloud-amd64 is an update
    of 6.1, and /proc/version says which ("Debian 6.1.176-1").
    """
    return exact_version(cluster.observe(director, "cat /proc/version"))


def exact_version(text: str) -> str:
    """The kernel's version in what /proc/version says, "" where there is none."""
    # The compiler of Debian comes before the "#" and the number of the build.
    found = re.search(r"#\d.*\bDebian (\d+(?:\.\d+)+)", text) or re.match(r"Linux version (\S+)", text)
    return found[1] if found else ""


def table_of_steps(cluster: Cluster, director: str) -> tuple[Service, ...]:
    """The table that the how-to's steps on ``director`` make."""
    typed = [
        spelled_out(step.command)
        for step in cluster.steps
        if step.node == director
        # What must fail here makes nothing.
        and not (step.known_failure and step.expects_failure(cluster.versions))
    ]
    return parse_rules("\n".join(typed))
