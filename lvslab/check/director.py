"""What a director says of its virtual services, read in one go."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvslab.check.ipvs_listing import Counters, ServiceConnections, parse_connections, parse_counters
from lvslab.check.ipvs_rules import parse_rules
from lvslab.check.ipvs_table import Service
from lvslab.check.ipvs_typed import spelled_out
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.cluster import Cluster

ESTIMATION_PERIOD = 2.2
"""Seconds after which the kernel has added up its counters once more: every 2 s, and a little for the
timer."""

_COMMANDS = {
    "rules": "ipvsadm -Sn",
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
    ``address:port``. The counters (``totals``, ``by_server``) lag behind: the kernel adds them up every 2 s
    (``est_reload`` in net/netfilter/ipvs/ip_vs_est.c); connections and entries are of this moment.
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
    found = dict.fromkeys(EVERYTHING, "") | dict(zip(what, said.split(f"{mark}\n"), strict=True))
    counters = parse_counters(found["counters"])
    return Reading(
        rules=parse_rules(found["rules"]),
        connections=parse_connections(found["listing"]),
        totals={str(service): service.counters for service in counters},
        by_server={
            (str(service), str(server)): server.counters
            for service in counters
            for server in service.servers
        },
        ip_forward=int(found["ip_forward"] or 0),
        entries=dict(_entries(found["entries"])),
        listing=found["listing"].rstrip(),
    )


def settled(cluster: Cluster, director: str, seconds: float = 20.0) -> Reading:
    """Read the director when its counters have stood still for a whole period of the kernel's adding up.

    Raises CheckFailed where they go on moving: there is other traffic then.
    """
    deadline = time.monotonic() + seconds
    reading, since = read(cluster, director), time.monotonic()
    while time.monotonic() < deadline:
        again = read(cluster, director)
        if (again.totals, again.by_server) != (reading.totals, reading.by_server):
            reading, since = again, time.monotonic()
        elif time.monotonic() - since > ESTIMATION_PERIOD:
            return again
    raise CheckFailed(
        f"the counters of {director} do not stand still", "is somebody else using the service?"
    )


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """The lines of ``ipvsadm -Lnc``: protocol, expiry, state, source, virtual, destination."""
    for line in text.splitlines():
        columns = line.split()
        if len(columns) >= 6 and columns[0] in ("TCP", "UDP", "SCTP"):
            yield columns[3], columns[5]


def table_of_steps(cluster: Cluster, director: str) -> tuple[Service, ...]:
    """The table that the how-to's steps on ``director`` make."""
    typed = [spelled_out(step.command) for step in cluster.steps if step.node == director]
    return parse_rules("\n".join(typed))
