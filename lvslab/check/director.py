"""What a director says of its virtual services, read in one go over SSH."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvslab.check.ipvs_table import (
    Counters,
    Service,
    ServiceConnections,
    parse_connections,
    parse_counters,
    parse_rules,
)
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.cluster import Cluster

_COMMANDS = ("ipvsadm -Sn", "ipvsadm -Ln", "ipvsadm -Ln --stats --exact", "cat /proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True)
class Reading:
    """A director at one moment: its table, its connections and counters, and whether it forwards."""

    rules: tuple[Service, ...]
    connections: tuple[ServiceConnections, ...]
    totals: dict[str, Counters]
    by_server: dict[tuple[str, str], Counters]
    ip_forward: int
    listing: str

    def connections_of(self, service: Service) -> ServiceConnections | None:
        """The row of ``service``, None where the director does not have it."""
        return next((row for row in self.connections if str(row) == str(service)), None)


def read(cluster: Cluster, director: str) -> Reading:
    """Read the director named ``director``. Raises CheckFailed where its ipvsadm does not answer."""
    mark = f"-- {secrets.token_hex(8)}"
    done = cluster.execute(director, f" && echo '{mark}' && ".join(_COMMANDS))
    parts = done.stdout.decode(errors="replace").split(f"{mark}\n")
    if done.status != 0 or len(parts) != len(_COMMANDS):
        said = done.stderr.decode(errors="replace").strip()
        raise CheckFailed(f"ipvsadm on {director} ended with status {done.status}", said or None)
    rules, listing, stats, ip_forward = parts
    counters = parse_counters(stats)
    return Reading(
        rules=parse_rules(rules),
        connections=parse_connections(listing),
        totals={str(service): service.counters for service in counters},
        by_server={
            (str(service), str(server)): server.counters for service in counters for server in service.servers
        },
        ip_forward=int(ip_forward),
        listing=listing.rstrip(),
    )


def table_of_steps(cluster: Cluster, director: str) -> tuple[Service, ...]:
    """The table that the how-to's steps on ``director`` make."""
    typed = [step.command for step in cluster.steps if step.node == director]
    return parse_rules("\n".join(typed))
