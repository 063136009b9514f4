"""A round of requests to each virtual service of a director, for commands on labs."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from lvslab.check import rounds, verdict
from lvslab.check.ipvs import director as directors
from lvslab.check.ipvs.table import Service
from lvslab.check.rounds import Unanswered, Way
from lvslab.check.services import chosen, guest_client
from lvslab.check.services.target import NotAsked, Target, target_of
from lvslab.check.testbed import Testbed, without_host
from lvslab.errors import CheckFailed, StateError, UsageError
from lvslab.lab.files import suggest

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

LEAST = 12
"""Minimum number of requests of a round: a multiple of the sum of small weights."""
MOST = 1000


@dataclass(frozen=True)
class Made:
    """A round that was made, as ``--json`` prints it.

    ``asked`` is a URL. ``expected`` and ``observed`` are the servers of the requests in their order;
    ``distribution`` counts them by server. ``expected`` is empty where the servers cannot be foreseen, which
    ``unforeseen`` explains. ``failure`` and ``causes`` are of a request that was not answered, "" for none;
    it ends the round. Where the scheduler has no server for a request, and the director refuses it, that is
    an answer; ``causes`` say why. ``table`` is ``ipvsadm -Ln`` after the round.
    """

    service: str
    scheduler: str
    director: str
    client: str
    asked: str
    requests: int
    expected: list[str]
    observed: list[str]
    distribution: dict[str, dict[str, int]]
    unforeseen: str = ""
    failure: str = ""
    causes: str = ""
    table: str = ""

    @property
    def wrong(self) -> CheckFailed | None:
        """The fault of the round: no answer, or another sequence than the scheduler's."""
        if self.failure:
            return CheckFailed(f"{self.service}: {self.failure}", self.causes or None)
        if self.unforeseen:
            return None
        try:
            verdict.sequence_matches(self.expected, self.observed)
        except CheckFailed as differs:
            return CheckFailed(f"{self.service}: {differs.message}", differs.hint)
        return None


@dataclass(frozen=True)
class LeftOut:
    """A virtual service to which no round was made, "" for all, and why."""

    service: str
    why: str


@dataclass(frozen=True)
class Rounds:
    """Result of ``lab.round``, and the part of that of ``lab.up`` about rounds."""

    name: str
    director: str
    client: str
    rounds: list[Made] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the document of ``--json``."""
        return asdict(self)

    @property
    def wrong(self) -> CheckFailed | None:
        """All faults of the rounds in one error, None for none."""
        found = [wrong for made in self.rounds if (wrong := made.wrong) is not None]
        if len(found) < 2:
            return found[0] if found else None
        return CheckFailed("\n".join(map(str, found)))


def counted(expected: Sequence[str], observed: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the requests of each server, ``expected`` and ``observed``."""
    wanted, seen = Counter(expected), Counter(observed)
    return {
        server: {"expected": wanted[server], "observed": seen[server]} for server in sorted({*wanted, *seen})
    }


def of_steps(testbed: Testbed, table: Sequence[Service]) -> Rounds:
    """Make a round to each service of the first director, whose steps make ``table``.

    Services whose servers cannot be foreseen are left out. Raises CheckFailed where a request is not
    answered.
    """
    cluster, director = testbed.cluster, testbed.directors[0].name
    if not table:
        return Rounds(cluster.name, director, "", [], [LeftOut("", f"the steps make none on {director}")])
    if nobody := without_client(cluster):
        return nobody
    clients, made, left_out = askers(cluster), list[Made](), list[LeftOut]()
    for service in table:
        try:
            if why := rounds.unforeseen(cluster, service):
                raise NotAsked(f"the servers that answer cannot be foreseen: {why}")
            way = _way(testbed, service, director, clients)
        except CheckFailed as refused:
            left_out.append(LeftOut(str(service), _said(refused)))
            continue
        made.append(_made(testbed, way, max(LEAST, len(service.destinations))))
    return Rounds(cluster.name, director, clients[0], made, left_out)


def without_client(cluster: RunningLab) -> Rounds | None:
    """Return the result where no client can ask anything, None where one can."""
    if askers(cluster):
        return None
    why, _ = without_host(cluster.lab.clients)
    return Rounds(cluster.name, next(iter(cluster.lab.directors)), "", [], [LeftOut("", why)])


def askers(cluster: RunningLab) -> list[str]:
    """Return the clients that can make requests: Mininet hosts, and in labs with SCTP all others."""
    clients = cluster.lab.clients
    hosts = [*filter(cluster.is_enterable, clients)]
    kinds = {service.kind for node in cluster.lab.nodes.values() for service in node.services}
    if kinds.isdisjoint(guest_client.KINDS):
        return hosts
    return [*hosts, *(client for client in clients if client not in hosts)]


def _way(
    testbed: Testbed, service: Service, director: str, clients: Sequence[str], *, any_phase: bool = False
) -> Way:
    """Return the way of a round to ``service``. Raises NotAsked where no client can ask."""
    client, target = _asking(testbed, service, director, clients)
    return Way(
        testbed.cluster, testbed.enter, service, target, client, director, any_phase=any_phase, refusals=True
    )


def _asking(testbed: Testbed, service: Service, director: str, clients: Sequence[str]) -> tuple[str, Target]:
    """Return the first of ``clients`` with a route to ``service``, and what it asks for. Raises NotAsked.

    Where none has a route, the first with an address of the family.
    """
    found, refused = list[tuple[str, Target]](), list[NotAsked]()
    for client in clients:
        try:
            target = target_of(testbed.cluster, service, director, client)
        except NotAsked as why:
            refused.append(why)
            continue
        if _routed(testbed, client, target.address):
            return client, target
        found.append((client, target))
    if not found:
        raise refused[0]
    version = ip_address(found[0][1].address).version
    for client, target in found:
        if any(own.version == version for own in testbed.cluster.lab.nodes[client].addresses):
            return client, target
    raise NotAsked(f"no client has an IPv{version} address")


def _routed(testbed: Testbed, client: str, address: str) -> bool:
    if testbed.cluster.is_enterable(client):
        return testbed.enter(client).call(_has_route, address)
    return guest_client.has_route(testbed.cluster, client, address)


def _has_route(address: str) -> bool:
    """Return whether the calling thread's network has a route to ``address``. No packet is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
    return True


def now(
    testbed: Testbed, *, count: int = 0, client: str = "", service: str = "", director: str = ""
) -> Rounds:
    """Make rounds to the services that a director has now, or to ``service`` alone.

    ``service`` is its name or its address. A round has ``count`` requests, by default at least 12 and one
    for each server. A request that is not answered ends its round, and is part of the result. Raises
    UsageError, StateError.
    """
    cluster = testbed.cluster
    if count and not 1 <= count <= MOST:
        raise UsageError(f"--count is {count}", f"it takes a whole number from 1 to {MOST}")
    director, clients = chosen.director_of(cluster, director), _clients(testbed, client)
    table = directors.table_in_order(
        directors.read_director(cluster, director, ("rules", "thresholds", "order"))
    )
    made, left_out = list[Made](), list[LeftOut]()
    for each in chosen.services_of(table, service, director):
        try:
            way = _way(testbed, each, director, clients, any_phase=True)
            rounds.model_of(cluster, each)
        except CheckFailed as refused:
            left_out.append(LeftOut(str(each), _said(refused)))
            continue
        number = count or max(LEAST, len(each.destinations))
        try:
            made.append(_made(testbed, way, number))
        except Unanswered as failed:
            made.append(_unanswered(way, number, failed))
        except CheckFailed as failed:
            made.append(_unanswered(way, number, Unanswered(failed, (), ())))
    if service and not made:
        raise StateError(
            f"'{service}' of {director} cannot be asked",
            "\n  ".join(f"{each.service}: {each.why}" for each in left_out),
        )
    return Rounds(cluster.name, director, clients[0], made, left_out)


def _made(testbed: Testbed, way: Way, count: int) -> Made:
    taken = rounds.take_by(way, count)
    return _result(
        way,
        len(taken.replies),
        taken.forecast,
        taken.observed,
        unforeseen=taken.unforeseen,
        causes=taken.causes,
        table=taken.table,
    )


def _unanswered(way: Way, count: int, failed: Unanswered) -> Made:
    table = directors.read_director(way.cluster, way.director, ("listing",)).listing
    causes = failed.hint or ""
    return _result(
        way, count, failed.forecast, failed.observed, failure=failed.message, causes=causes, table=table
    )


def _result(way: Way, count: int, expected: Sequence[str], observed: Sequence[str], **more: str) -> Made:
    return Made(
        service=str(way.service),
        scheduler=way.service.scheduler,
        director=way.director,
        client=way.client,
        asked=way.target.url,
        requests=count,
        expected=list(expected),
        observed=list(observed),
        distribution=counted(expected, observed),
        **more,
    )


def _said(refused: CheckFailed) -> str:
    return f"{refused.message}; {refused.hint}" if refused.hint else refused.message


def _clients(testbed: Testbed, client: str) -> list[str]:
    """Return those that may ask: ``client``, or all clients that can. Raises UsageError."""
    cluster = testbed.cluster
    there = askers(cluster)
    if not client:
        if there:
            return there
        raise UsageError(*without_host(cluster.lab.clients))
    if client not in cluster.lab.clients:
        raise UsageError(
            f"the lab '{cluster.name}' has no client '{client}'", suggest(client, cluster.lab.clients)
        )
    if client not in there:
        raise UsageError(f"{client} is a virtual machine, and requests are made on Mininet hosts")
    return [client]
