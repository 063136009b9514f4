"""Rounds of requests to a virtual service, with forecasts and all counts."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Generic, TypeVar

from lvslab.check import schedulers, verdict
from lvslab.check.diagnosis.losses import ask_briefly, losses_of
from lvslab.check.diagnosis.lost_icmp import LostMessages
from lvslab.check.diagnosis.ways import follow
from lvslab.check.examine import diverted, facts_of
from lvslab.check.forwarding.facts import Asked
from lvslab.check.ipvs.director import Reading, kernel, read_director, read_settled, table_of_steps
from lvslab.check.ipvs.listing import Counters
from lvslab.check.ipvs.table import Destination, Service, address_of, endpoint, listed, scan_order
from lvslab.check.probes import GuestView, HostView, NodeView
from lvslab.check.schedulers import NOBODY, Forecast
from lvslab.check.services import guest_client, persistence, start
from lvslab.check.services.target import NotAsked, Target, target_of
from lvslab.check.traffic import access_log
from lvslab.check.traffic.clients import LOGGED, ask_in_turn
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.check.traffic.request import Reply, RequestFailed, new_request_id
from lvslab.errors import CheckFailed, UsageError

if TYPE_CHECKING:
    from lvslab.check.schedulers import Model
    from lvslab.cluster.running import RunningLab

T = TypeVar("T")

_MOST_PADDING = 30_000
"""Bytes that fit into the head of a request: nginx and busybox httpd take 32 KiB."""
_ATTEMPTS = 4
_REQUEST_SECONDS = 0.03
"""The time that a request is taken to need, until the first attempt of a round has shown it."""
_REFUSALS = 3
"""Number of requests of a round of which all are to be refused."""
_LOG_SECONDS = 2.0
_NOTHING = Counters(0, 0, 0, 0, 0)
_OF_A_DISTRIBUTION = re.compile(r"\d+\.\d+\.0-")


@dataclass(frozen=True)
class Round:
    """One round of requests.

    ``forecast`` and ``observed`` are server names in the order of the requests; ``forecast`` is empty where
    the servers cannot be foreseen, and ``unforeseen`` says why. ``director`` and ``logged`` count the
    requests by server, in the director's connection table and in the access logs; ``sources`` are the client
    addresses in those logs; ``table`` is the output of ``ipvsadm -Ln`` after the round. ``url`` is what was
    asked for. ``causes`` say why requests were refused, where that was foreseen.
    """

    service: str
    url: str
    client: str
    forecast: tuple[str, ...]
    replies: tuple[Reply, ...]
    director: Mapping[str, int]
    logged: Mapping[str, int]
    sources: frozenset[str]
    table: str
    unforeseen: str = ""
    causes: str = ""

    @property
    def observed(self) -> tuple[str, ...]:
        """The servers that answered, in the order of the requests."""
        return tuple(reply.server for reply in self.replies)

    @property
    def expected_counts(self) -> dict[str, int]:
        """The number of requests that each server should have answered."""
        return dict(Counter(self.forecast))

    @property
    def observed_counts(self) -> dict[str, int]:
        """The number of requests that each server answered."""
        return dict(Counter(self.observed))


class Unanswered(CheckFailed):
    """A request of a round that was not answered, with its likely causes.

    ``forecast`` are the servers that should have answered all requests, ``observed`` those that answered the
    ones before it.
    """

    def __init__(self, failed: CheckFailed, forecast: tuple[str, ...], observed: tuple[str, ...]) -> None:
        super().__init__(failed.message, failed.hint)
        self.forecast = forecast
        self.observed = observed


def web_services(cluster: RunningLab, director: str) -> tuple[Service, ...]:
    """Return the steps' virtual services whose servers are all web servers of the lab."""
    return services_of(cluster, table_of_steps(cluster, director), "http")


def services_of(cluster: RunningLab, table: Sequence[Service], kind: str) -> tuple[Service, ...]:
    """Return the services of ``table`` whose servers are all of that ``kind`` in ``lab.yaml``."""
    served = {
        endpoint(str(address), service.port)
        for node in cluster.lab.real_servers.values()
        for address in node.addresses
        for service in node.services
        if service.kind == kind
    }
    return tuple(
        service
        for service in table
        if service.protocol == "tcp"
        and service.destinations
        and served.issuperset(map(str, service.destinations))
    )


def model_of(cluster: RunningLab, service: Service) -> Model:
    """Return the model of the scheduler of ``service`` in the director's kernel. Raises CheckFailed."""
    return schedulers.model_for(service.scheduler, _kernel(cluster), service.scheduler_flags)


@lru_cache(maxsize=8)
def _kernel(cluster: RunningLab) -> str:
    """Return the version of the directors' kernel: of 6.1.0-56-cloud-amd64 it is that of the update."""
    release = cluster.versions.get("kernel", "")
    if not _OF_A_DISTRIBUTION.match(release):
        return release
    return kernel(cluster, next(iter(cluster.lab.directors))) or release


def unforeseen(cluster: RunningLab, service: Service) -> str:
    """Return why the servers that answer at ``service`` cannot be foreseen, or "".

    Raises CheckFailed where its scheduler has no model.
    """
    return model_of(cluster, service).unforeseen


def refuse_unforeseen(cluster: RunningLab, service: Service) -> None:
    """Raise CheckFailed where the servers that answer at ``service`` cannot be foreseen."""
    if why := unforeseen(cluster, service):
        raise CheckFailed(
            f"the servers that answer at {service} cannot be foreseen: {why}",
            "where a scheduler draws, or looks at ports, a check with a LiveService can compare",
        )


def take(
    cluster: RunningLab,
    namespaces: Callable[[str], NamespaceThread],
    *,
    client: str,
    director: str,
    count: int,
    service: str = "",
    port: int = 0,
    level: bool = False,
    besides: Callable[[Mapping[str, int]], object] = lambda servers: None,
    padding: int = 0,
) -> Round:
    """Send ``count`` requests from ``client``, one after the other, to a service of ``director``.

    The service is the first one that clients can ask, or the one named ``service`` (``66.199.240.50:80``).
    Of a service with several ports, ``port`` is asked, for 0 the first one that is served.
    ``namespaces`` returns the thread in a Mininet host's network namespace.

    The forecast begins with the connections that are there. With ``level``, requests are made first until
    the next ones are shared as on an idle cluster; where that takes too many, connections are waited for to
    expire. A round during which one expired on the director is repeated, since no model can foresee its
    sequence. ``besides`` is called with the servers of requests that are not part of the result. ``padding``
    are bytes by which each request of http is longer than it need be, up to 30000. Raises CheckFailed, with
    the likely causes, where a request is not answered, and UsageError for another ``padding``.
    """
    if not 0 <= padding <= _MOST_PADDING:
        raise UsageError(f"padding is {padding}", f"it takes a whole number from 0 to {_MOST_PADDING}")
    wanted, target = _wanted(
        cluster, table_of_steps(cluster, director), service, director, client, port=port
    )
    refuse_unforeseen(cluster, wanted)
    way = Way(cluster, namespaces, wanted, target, client, director, padding=padding)
    return take_by(way, count, level=level, besides=besides)


@dataclass(frozen=True)
class Way:
    """The way of a round's requests: from ``client`` to ``target``, which is ``service`` of ``director``.

    With ``any_phase``, a scheduler with a memory may be in any phase of its turns, as after changes that
    nobody has counted. With ``refusals``, requests that are refused where the scheduler has no server for
    them are answers like others; without, they are failures. ``padding`` is as for `take`.
    """

    cluster: RunningLab
    namespaces: Callable[[str], NamespaceThread]
    service: Service
    target: Target
    client: str
    director: str
    any_phase: bool = False
    refusals: bool = False
    padding: int = 0


def take_by(
    way: Way,
    count: int,
    *,
    level: bool = False,
    besides: Callable[[Mapping[str, int]], object] = lambda servers: None,
) -> Round:
    """Send ``count`` requests on their ``way``; the other arguments are as for `take`.

    Where the servers cannot be foreseen, the result has no forecast. Raises Unanswered.
    """

    def attempt(seconds: float) -> Taken[Round]:
        return _take(way, count, level, seconds, besides)

    def discard(taken: Round) -> None:
        besides(taken.observed_counts)

    return without_expiry(attempt, count * _REQUEST_SECONDS, discard)


@dataclass(frozen=True)
class Taken(Generic[T]):
    """Result of traffic that took ``seconds``; ``expired`` if the director forgot a connection meanwhile."""

    result: T
    expired: bool
    seconds: float


def without_expiry(
    take: Callable[[float], Taken[T]], seconds: float, discard: Callable[[T], object] = lambda result: None
) -> T:
    """Call ``take`` until no connection expired on the director during the call; return its result.

    ``take`` waits until none will expire within the seconds that it is given: first ``seconds`` and one
    more, then twice what the traffic of the call before took. It is called up to four times; ``discard`` is
    called with results that do not count.
    """
    for _ in range(_ATTEMPTS - 1):
        taken = take(seconds + 1)
        if not taken.expired:
            return taken.result
        discard(taken.result)
        seconds = 2 * taken.seconds
    return take(seconds + 1).result


def _wanted(
    cluster: RunningLab, there: Sequence[Service], name: str, director: str, client: str, *, port: int = 0
) -> tuple[Service, Target]:
    """Return the service of ``there`` called ``name``, or the first that can be asked."""
    if not there:
        raise CheckFailed(
            f"the steps make no virtual service on {director}", "is there an `ipvsadm -A` with servers?"
        )
    if name:
        found = next((service for service in there if name == str(service)), None)
        if found is None:
            raise CheckFailed(
                f"the steps make no service {name} on {director}",
                f"there is {' and '.join(map(str, there))}",
            )
        return found, target_of(cluster, found, director, client, port)
    refused: NotAsked | None = None
    for service in there:
        try:
            return service, target_of(cluster, service, director, client, port)
        except NotAsked as why:
            refused = refused or why
    assert refused is not None, "there is a service"
    raise refused


def _take(
    way: Way, count: int, level: bool, seconds: float, besides: Callable[[Mapping[str, int]], object]
) -> Taken[Round]:
    cluster, service, target = way.cluster, way.service, way.target
    why_not = unforeseen(cluster, service)
    before, expected, ahead = _begin(way, count, level and not why_not, seconds, foreseen=not why_not)
    begun = time.monotonic()
    if way.refusals and set(expected.names) == {NOBODY}:
        # A director refuses a client about once a second (icmp_ratelimit), and some show it.
        count = min(count, _REFUSALS)
        expected = replace(expected, names=expected.names[:count])
    try:
        first = _asked(way, ahead, expected.names[:ahead])
        replies = _asked(way, count, expected.names[ahead:])
    except RequestFailed as failure:
        raise _explained(way, before, expected.names[ahead:], failure) from failure
    _refuse_errors(first + replies)
    refused = any(reply.server == NOBODY for reply in first + replies)
    foreseen = expected.names[ahead:]
    if tuple(reply.server for reply in first) == expected.names[:ahead]:
        besides(Counter(reply.server for reply in first))
    else:  # then the difference is to be seen
        replies, foreseen = first + replies, expected.names
    observed = tuple(reply.server for reply in replies)
    if foreseen != observed and not why_not and not first:
        foreseen = in_another_phase(way, before, observed) or foreseen
    after = read_director(cluster, way.director, ("listing", "entries"))
    answered = [reply for reply in replies if reply.server != NOBODY]
    passed = _at_the_director(way, answered, before, after)
    if sum(passed.values()) < len(answered):
        _refuse_diverted(way, len(answered) - sum(passed.values()))
    entries = _logged(cluster, target.kind, [reply.request_id for reply in answered])
    taken = Round(
        service=str(service),
        url=target.url,
        client=way.client,
        forecast=foreseen,
        replies=replies,
        director=passed,
        logged=access_log.requests_by_server(entries),
        sources=access_log.client_addresses(entries),
        table=after.listing,
        unforeseen=why_not,
        causes=_no_server(way, before) if refused else "",
    )
    expired = not why_not and tracked_connections(
        current_servers(cluster, service, after)
    ) < tracked_connections(expected.servers)
    return Taken(taken, expired, after.at - begun)


def _refuse_errors(replies: Sequence[Reply]) -> None:
    """Raise CheckFailed where a web server answered with an error, or with a redirection."""
    for number, reply in enumerate(replies, 1):
        if reply.status >= 300:
            raise CheckFailed(
                f"{reply.server or 'a server'} answered request {number} of {len(replies)} with status "
                f"{reply.status}, and not with its page",
                "is the page there, and can the web server read it?",
            )


def _no_server(way: Way, now: Reading) -> str:
    """Return why the scheduler has no server for some requests."""
    reasons = [
        f"{server.name} has weight 0" if server.weight == 0 else f"{server.name} is at its threshold"
        for server in current_servers(way.cluster, way.service, now)
        if not server.available
    ]
    return f"{way.service.scheduler} has no server for them: {listed(reasons)}"


def _asked(way: Way, count: int, foreseen: Sequence[str]) -> tuple[Reply, ...]:
    """Make ``count`` requests; return the replies. Raises RequestFailed.

    A refusal that is ``foreseen`` is a reply of NOBODY.
    """
    replies = list[Reply]()
    while len(replies) < count:
        left = count - len(replies)
        try:
            replies += _ask(way, left)
        except RequestFailed as failure:
            replies += failure.before
            at = len(replies)
            if failure.kind != "refused" or not way.refusals or [*foreseen[at : at + 1]] != [NOBODY]:
                said = failure.message.partition(": ")[2]
                message = f"request {at + 1} of {count}: {said}"
                raise RequestFailed(
                    failure.kind, failure.request_id, message, failure.hint, tuple(replies)
                ) from failure.__cause__
            replies.append(Reply(NOBODY, 0, "", failure.request_id, 0.0, "", 0))
    return tuple(replies)


def _ask(way: Way, count: int) -> tuple[Reply, ...]:
    """Make ``count`` requests where the client is. Raises RequestFailed."""
    target, client = way.target, way.client
    if way.cluster.is_enterable(client):
        place = way.namespaces(client)
        return ask_in_turn(target.kind, place, target.address, target.port, count, padding=way.padding)
    if way.padding:
        raise UsageError(
            f"requests of {client}, a virtual machine, have no padding",
            "name a client that is a Mininet host",
        )
    return guest_client.ask_in_turn(way.cluster, client, target.kind, target.address, target.port, count)


def _again(way: Way) -> bool:
    """Make one more request; return whether an answer comes within 1 s."""
    target, client = way.target, way.client
    if way.cluster.is_enterable(client):
        place = way.namespaces(client)
        return ask_briefly(place, target.address, target.port, target.protocol, way.padding)
    with suppress(RequestFailed):
        guest_client.ask(
            way.cluster, client, target.kind, target.address, target.port, new_request_id(), seconds=1
        )
        return True
    return False


def _refuse_diverted(way: Way, missing: int) -> None:
    """Raise CheckFailed where requests went to a real server and not to the director."""
    asked = Asked(way.service, way.target.address, _source(way), way.target.protocol)
    see = partial(_seen, way)
    found = diverted(way.cluster, asked, see)
    told = [verdict.arp_problem(node, server, asked.target) for node, server in found.items()]
    there = follow(way.cluster.lab, see, way.client, asked.target)
    if not (told := told + [finding for _, finding in there.findings]):
        return
    raise CheckFailed(
        f"{missing} answers came from servers that the director did not choose",
        "\n  ".join(f"{finding.cause}; {finding.remedy}" for finding in told),
    )


def _seen(way: Way, node: str) -> NodeView:
    """Return the network as a node sees it."""
    if way.cluster.is_enterable(node):
        return HostView(way.namespaces(node), way.target.kind)
    return GuestView(way.cluster, node, way.target.kind)


def _explained(way: Way, before: Reading, foreseen: tuple[str, ...], failure: RequestFailed) -> Unanswered:
    """Return ``failure`` with its likely causes."""
    cluster, service = way.cluster, way.service
    observed = tuple(reply.server for reply in failure.before)
    now = read_director(cluster, way.director)

    see = partial(_seen, way)
    asked = Asked(service, way.target.address, _source(way), way.target.protocol)
    facts = facts_of(cluster, asked, way.director, way.target.kind, see, now)
    again = partial(_again, way)
    with LostMessages(cluster, (way.director, *facts.nodes)) as messages:
        losses = losses_of(see, way.director, asked, again, facts.nodes)
    facts = replace(facts, losses=losses + messages.findings())
    if way.any_phase:  # the reader has made this table, so what differs from the steps is not a fault
        facts = replace(facts, expected=facts.observed)
    totals = now.totals.get(str(service), _NOTHING).since(before.totals.get(str(service), _NOTHING))
    told = verdict.no_answer(replace(facts, counters=totals), failure)
    return Unanswered(told, foreseen, observed)


def _at_the_director(way: Way, replies: Sequence[Reply], before: Reading, after: Reading) -> dict[str, int]:
    """Count the connections of ``replies`` that the director has, by server.

    One-packet scheduling keeps none, so its connections are those that the counters gained.
    """
    if way.service.one_packet and way.target.protocol == "udp":
        now = read_settled(way.cluster, way.director, what=("counters",))
        gained = _gained(before, now, way.service)
    else:
        sources = [endpoint(reply.source_address, reply.source_port) for reply in replies]
        gained = Counter(after.entries[source] for source in sources if source in after.entries)
    names, found = way.cluster.lab.names, Counter[str]()
    for server, number in gained.items():
        found[names.get(address_of(server), server)] += number
    return dict(found)


def _gained(before: Reading, now: Reading, service: Service) -> Counter[str]:
    """Count the connections that the counters of ``service`` gained, by server."""
    ends = ((str(service), str(server)) for server in service.destinations)
    added = {
        end[1]: now.by_server[end].since(before.by_server.get(end, _NOTHING)).connections
        for end in ends
        if end in now.by_server
    }
    return Counter({server: number for server, number in added.items() if number})


def in_another_phase(way: Way, before: Reading, observed: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``observed`` where the scheduler gives it in another phase of its turns, else ().

    Only where the phase is not known: with ``any_phase``, and at persistent services, whose counters do not
    tell how often the scheduler was asked.
    """
    model = model_of(way.cluster, way.service)
    if not model.remembers or not (way.any_phase or way.service.persistent is not None):
        return ()
    servers, own = current_servers(way.cluster, way.service, before), _source(way)
    for memory in schedulers.memories(model, servers, client=own, destination=way.target.address):
        found = _forecast(way, model, before, servers, len(observed), memory)
        if found.names == observed:
            return observed
    return ()


def _begin(
    way: Way, count: int, level: bool, seconds: float, *, foreseen: bool
) -> tuple[Reading, Forecast, int]:
    """Wait for a time of ``seconds`` without an expiry, and read the director.

    Returns the reading, the forecast from there on, and how many of its requests come before the round.
    """
    cluster, service = way.cluster, way.service
    if not foreseen:
        return read_director(cluster, way.director, ("listing", "counters")), Forecast((), ()), 0
    model, needed, all_gone = model_of(cluster, service), seconds, False
    for _ in range(_ATTEMPTS):
        before = reading_at_rest(cluster, way.director, service, needed, all_gone=all_gone)
        memory = _memory(way, model, before)

        def foresee(
            servers: Sequence[schedulers.Server], number: int, now: Reading = before, memory: object = memory
        ) -> Forecast:
            return _forecast(way, model, now, servers, number, memory)

        servers = current_servers(cluster, service, before)
        # With a memory, or persistence, connections do not decide, or not for long.
        even = level and not model.remembers and service.persistent is None
        ahead = start.leading(servers, count, foresee) if even else 0
        if ahead is None and not all_gone:
            all_gone = True
        elif seconds * ((ahead or 0) + count) > needed * count:
            needed = seconds * ((ahead or 0) + count) / count
        else:
            break
    return before, foresee(servers, (ahead or 0) + count), ahead or 0


def reading_at_rest(
    cluster: RunningLab, director: str, service: Service, seconds: float, *, all_gone: bool = False
) -> Reading:
    """Read what forecasts need when no connection of ``service`` will expire within ``seconds``.

    With ``all_gone``, when all of its finished connections have expired.
    """
    counted = model_of(cluster, service).remembers and service.persistent is None
    look = read_settled if counted else read_director
    what = start.WITH_TEMPLATES if service.persistent is not None else start.WITHOUT_TEMPLATES
    now = look(cluster, director, what=what)
    for _ in range(_ATTEMPTS):
        if not tracked_connections(current_servers(cluster, service, now)):
            break  # as on most labs that are new
        known = start.of_service(read_director(cluster, director, ("entries",)).tracked, service)
        pause = start.delay(known, seconds, all_gone=all_gone)
        time.sleep(pause)
        now = look(cluster, director, what=what)
        if not pause:
            break
    return now


def forecast(
    cluster: RunningLab,
    service: Service,
    model: Model,
    now: Reading,
    client: str,
    count: int,
    *,
    past: int | None = None,
    held: bool = False,
) -> Forecast:
    """Forecast ``count`` requests to ``service``, as the steps make it, with its present connections.

    A scheduler's memory is taken to be that after ``past`` requests in turn, as many as the counters have by
    default. A persistent service asks the scheduler once for each client, or network of clients, and keeps
    the server. ``held`` is as in `schedulers.forecast`.
    """
    servers, own = current_servers(cluster, service, now), source_address(cluster, client, service.address)
    stays, memory = template_server(cluster, service, now, own), None
    if model.remembers and not stays:
        past = _past(service, now) if past is None else past
        memory = schedulers.remembered(model, servers, past, destination=service.address)
    return _foreseen(service, model, servers, count, own, service.address, memory, stays, held=held)


def _past(service: Service, now: Reading) -> int:
    """Return how many connections ``service`` has had."""
    counted = (now.by_server.get((str(service), str(server))) for server in service.destinations)
    return sum(counters.connections for counters in counted if counters)


def _memory(way: Way, model: Model, now: Reading) -> object:
    """Return the scheduler's memory, as the counters have it.

    Of a persistent service it is not known, and that of a new one is taken.
    """
    if not model.remembers:
        return None
    servers = current_servers(way.cluster, way.service, now)
    past = 0 if way.service.persistent is not None else _past(way.service, now)
    return schedulers.remembered(model, servers, past, destination=way.target.address)


def _forecast(
    way: Way,
    model: Model,
    now: Reading,
    servers: Sequence[schedulers.Server],
    count: int,
    memory: object,
) -> Forecast:
    """Forecast ``count`` requests on their ``way`` with a scheduler's ``memory``."""
    own, address = _source(way), way.target.address
    stays = template_server(way.cluster, way.service, now, own, address)
    forgotten = way.service.one_packet and way.target.protocol == "udp"
    return _foreseen(way.service, model, servers, count, own, address, memory, stays, forgotten=forgotten)


def _foreseen(
    service: Service,
    model: Model,
    servers: Sequence[schedulers.Server],
    count: int,
    client: str,
    destination: str,
    memory: object,
    stays: str,
    *,
    held: bool = False,
    forgotten: bool = False,
) -> Forecast:
    found = schedulers.forecast(
        model.choose,
        servers,
        count,
        client=client,
        destination=destination,
        memory=memory,
        held=held,
        forgotten=forgotten,
    )
    if service.persistent is None or not count:
        return found
    return replace(found, names=(stays or found.names[0],) * count)


def _source(way: Way) -> str:
    return source_address(way.cluster, way.client, way.target.address)


def template_server(
    cluster: RunningLab, service: Service, now: Reading, client: str, address: str = ""
) -> str:
    """Return the server that the address ``client`` stays with at a persistent ``service``, or "".

    ``address`` is the one that it asks, by default that of the service.
    """
    found = persistence.stays_with(service, now, client, address or service.address)
    return cluster.lab.names.get(found.address, found.address) if found else ""


def source_address(cluster: RunningLab, client: str, target: str) -> str:
    """Return the address that ``client`` uses towards ``target``, as its addresses and routes have it."""
    return str(cluster.lab.source_address(client, ip_address(target)))


def current_servers(cluster: RunningLab, service: Service, now: Reading) -> tuple[schedulers.Server, ...]:
    """Return the servers of the steps in the kernel's order, with their present connections."""
    row, names = now.connections_of(service), cluster.lab.names
    counts = {str(server): (server.active, server.inactive) for server in row.servers} if row else {}

    def current(server: Destination) -> schedulers.Server:
        active, inactive = counts.get(str(server), (0, 0))
        return schedulers.Server(
            names.get(server.address, server.address),
            server.weight,
            active,
            inactive,
            overloaded=0 < server.upper_threshold <= active + inactive,
            address=server.address,
            port=server.port,
            threshold=server.upper_threshold,
        )

    return tuple(map(current, scan_order(service)))


def tracked_connections(servers: tuple[schedulers.Server, ...]) -> int:
    """Return the number of connections of all ``servers`` in the director's table."""
    return sum(server.active + server.inactive for server in servers)


def connections_since(before: Reading, after: Reading, cluster: RunningLab) -> dict[str, int]:
    """Return the connections that the director's counters gained between two readings, by server name."""
    names, gained = cluster.lab.names, Counter[str]()
    for (service, server), counters in after.by_server.items():
        more = counters.since(before.by_server.get((service, server), _NOTHING)).connections
        gained[names.get(address_of(server), address_of(server))] += more
    return {name: number for name, number in gained.items() if number}


def _logged(cluster: RunningLab, kind: str, request_ids: list[str]) -> tuple[access_log.LogEntry, ...]:
    """Return the log entries of these requests, after at most 2 s: lines may come late."""
    if kind not in LOGGED:
        return ()
    deadline = time.monotonic() + _LOG_SECONDS
    servers = [
        name
        for name, node in cluster.lab.nodes.items()
        if any(service.kind == kind for service in node.services)
    ]
    while True:
        entries = tuple(
            entry
            for name in servers
            for entry in access_log.parse_access_log(cluster.access_log(name, kind))
        )
        if not access_log.missing_ids(entries, request_ids) or time.monotonic() > deadline:
            return access_log.with_ids(entries, request_ids)
        time.sleep(0.01)
