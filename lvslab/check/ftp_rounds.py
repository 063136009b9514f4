"""FTP sessions through a director, and the director's view of their connections."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from lvslab.check import rounds
from lvslab.check.examine import facts_of
from lvslab.check.forwarding.facts import Asked
from lvslab.check.ftp_verdict import FtpFacts, Visit, explained
from lvslab.check.ipvs import director
from lvslab.check.ipvs.listing import parse_connection_entries
from lvslab.check.ipvs.table import Service
from lvslab.check.probes import GuestView, HostView, NodeView, Probe
from lvslab.check.traffic import ftp
from lvslab.check.traffic.ftp import FtpFailed, Method, Session
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue

if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed

_APPS = "/proc/net/ip_vs_app"
_MARK = "-- helpers"
_SESSION_SECONDS = 0.1
"""The time that a session is taken to need, until the first attempt has shown it."""


@dataclass(frozen=True)
class FtpRound:
    """Complete sessions, and the director's state after them."""

    visits: tuple[Visit, ...]
    facts: FtpFacts


@dataclass(frozen=True)
class Turns:
    """The servers of consecutive control connections: by the scheduler's model, and observed.

    ``active`` are the active connections that the director has gained by the end, by server; ``table`` is
    the output of ``ipvsadm -Ln`` then.
    """

    forecast: tuple[str, ...]
    observed: tuple[str, ...]
    active: dict[str, int]
    table: str

    @property
    def expected_counts(self) -> dict[str, int]:
        """Count the forecast connections of each server."""
        return dict(Counter(self.forecast))

    @property
    def observed_counts(self) -> dict[str, int]:
        """Count the observed connections of each server."""
        return dict(Counter(self.observed))


def ftp_service(lab: Testbed) -> Service:
    """Return the steps' first virtual service whose servers are all FTP servers of the lab.

    Raises CheckFailed where there is none.
    """
    for service in rounds.services_of(lab.cluster, lab.table_of_steps(), "ftp"):
        return service
    raise CheckFailed("the steps make no FTP service", "is there an `ipvsadm -A` with servers?")


def take(
    lab: Testbed,
    *,
    method: Method = "PASV",
    files: Sequence[str] = ("server.txt",),
    visits: int = 1,
    client: str = "",
    trusting: bool = True,
    address: str = "",
) -> FtpRound:
    """Make ``visits`` sessions one after the other, and retrieve all ``files`` by ``method`` in each.

    The defaults are the first client and the address of the lab's FTP service; ``trusting`` is as in
    `ftp.Session`. Raises CheckFailed, with likely causes, where a session fails.
    """
    service = ftp_service(lab)
    place = lab.enter(client) if client else lab.clients[0].namespace
    target, made = address or service.address, list[Visit]()
    try:
        for _ in range(visits):
            with Session(place, target, service.port, trusting=trusting) as session:
                transfers = tuple(session.retrieve(name, method) for name in files)
                session.quit()
            made.append(Visit(session.server, session.control, transfers))
    except FtpFailed as failure:
        raise _explained(lab, failure, target) from failure
    return FtpRound(tuple(made), facts(lab, target))


def turns(
    lab: Testbed,
    count: int,
    *,
    held: bool = False,
    client: str = "",
) -> Turns:
    """Make ``count`` control connections and forecast their servers by the scheduler's model.

    Each is finished before the next begins, or ``held`` until all are made. No file is requested, so each is
    one connection to the scheduler. The forecast assumes that a scheduler which remembers its last choice
    has made none before. The service is the lab's first FTP service. Repeated where an old connection
    expired on the director meanwhile (`rounds.without_expiry`). Raises CheckFailed.
    """
    wanted = ftp_service(lab)
    rounds.refuse_unforeseen(lab.cluster, wanted)

    def attempt(seconds: float) -> rounds.Taken[Turns]:
        return _turns(lab, wanted, count, held, client, seconds)

    return rounds.without_expiry(attempt, count * _SESSION_SECONDS)


def _turns(
    lab: Testbed, service: Service, count: int, held: bool, client: str, seconds: float
) -> rounds.Taken[Turns]:
    name, client = lab.directors[0].name, client or lab.first_client()
    place = lab.enter(client)
    before = rounds.reading_at_rest(lab.cluster, name, service, seconds)
    model = rounds.model_of(lab.cluster, service)
    expected = rounds.forecast(lab.cluster, service, model, before, client, count, past=0, held=held)
    there, begun = rounds.current_servers(lab.cluster, service, before), time.monotonic()
    sessions: list[Session] = []
    try:
        for _ in range(count):
            sessions.append(Session(place, service.address, service.port))
            if not held:
                sessions[-1].quit()
        now = director.read_director(lab.cluster, name, ("listing",))
        after = rounds.current_servers(lab.cluster, service, now)
        for session in sessions if held else ():
            session.quit()
    except FtpFailed as failure:
        raise _explained(lab, failure, service.address) from failure
    finally:
        for session in sessions:
            session.close()
    open_before = {server.name: server.active for server in there}
    opened = {server.name: server.active - open_before[server.name] for server in after}
    observed = tuple(session.server for session in sessions)
    gained = {name: number for name, number in opened.items() if number}
    taken = Turns(expected.names, observed, gained, now.listing)
    expired = rounds.tracked_connections(after) < rounds.tracked_connections(expected.servers)
    return rounds.Taken(taken, expired, now.at - begun)


def facts(lab: Testbed, address: str = "") -> FtpFacts:
    """Read the first director's FTP helper and connections, for the lab's service or ``address``."""
    service = ftp_service(lab)
    said = lab.cluster.observe(
        lab.directors[0].name, f"{director.ENTRIES}; echo '{_MARK}'; [ ! -e {_APPS} ] || cat {_APPS}"
    )
    entries, _, apps = said.partition(f"{_MARK}\n")
    target = address or service.address
    return FtpFacts(
        address=target,
        port=service.port,
        forwarding=service.destinations[0].forwarding,
        helper_ports=_helper_ports(apps),
        entries=parse_connection_entries(entries),
        names=_names(lab),
        kernel=lab.cluster.versions.get("kernel", ""),
        lacking=catalogue.first_lacking(
            lab.cluster.versions, ["ftp_ipv6" if ":" in target else "ftp_extended"]
        ),
    )


def _explained(lab: Testbed, failure: FtpFailed, address: str) -> CheckFailed:
    name, service = lab.directors[0].name, ftp_service(lab)

    def see(node: str) -> NodeView:
        enterable = lab.cluster.is_enterable(node)
        return _FtpHostView(lab.enter(node)) if enterable else GuestView(lab.cluster, node)

    cluster = facts_of(lab.cluster, Asked(service, address), name, "ftp", see, lab.reading())
    return explained(failure, facts(lab, address), cluster)


def _helper_ports(text: str) -> tuple[int, ...]:
    """Parse the FTP helper's ports in /proc/net/ip_vs_app: protocol, port, connections and name."""
    rows = (line.split() for line in text.splitlines())
    return tuple(int(row[1]) for row in rows if len(row) == 4 and row[3] == "ftp")


def _names(lab: Testbed) -> dict[str, str]:
    """Return the real servers by address, including IPv6 addresses that Mininet hosts got since boot."""
    names = dict[str, str]()
    for name, node in lab.cluster.lab.real_servers.items():
        names |= {str(address): name for address in node.addresses}
        if not lab.cluster.is_enterable(name):
            continue
        listed = lab.enter(name).call(Path("/proc/thread-self/net/if_inet6").read_text)
        names |= {str(IPv6Address(bytes.fromhex(line.split()[0]))): name for line in listed.splitlines()}
    return names


class _FtpHostView(HostView):
    """The view of a Mininet host with an FTP server."""

    def probe(self, address: str, port: int) -> Probe:
        """Connect to the FTP server from its own host and tell what comes back."""
        try:
            with ftp.Session(self.namespace, address, port, timeout=2.0):
                return "answers"
        except FtpFailed as failure:
            return "refused" if failure.kind == "refused" else "no-answer"
