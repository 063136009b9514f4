"""Load on a virtual service from the lab's clients for a limited time (`lab.load`).

wrk makes it for web servers, and `lvslab.check.services.generator` for all others.

The generators are children of this process in the clients' network namespaces. The kernel ends them with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lvslab import requirements
from lvslab.check.ipvs import director as directors
from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.table import Service
from lvslab.check.services import chosen, generator
from lvslab.check.services.target import NotAsked, Target, target_of
from lvslab.check.testbed import without_host
from lvslab.check.traffic import wrk
from lvslab.check.traffic.request import new_request_id
from lvslab.check.traffic.wrk import WrkResult
from lvslab.errors import CheckFailed, MachineError, StateError, UsageError
from lvslab.lab.files import suggest
from lvslab.run import PIPE, STDOUT, Process, TimeoutExpired, spawn

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

SECONDS = 5
MOST_SECONDS = 60
"""A director keeps each finished connection for two minutes, and its memory is small."""
CONNECTIONS = 8
MOST_CONNECTIONS = 1000

# Without the connections one by one: there are thousands.
_READ = ("rules", "counters")
_THREADS = 2
# Seconds that wrk may take to start and to sum up, beside its run.
_GRACE = 10.0


@dataclass(frozen=True)
class Share:
    """A real server's share of the connections.

    ``share`` is its part of all connections, ``by_weight`` of all weights; both are from 0 to 1, and 0 where
    the sum is 0. ``answered`` is the number of requests in its log, None where it logs none of them.
    """

    server: str
    address: str
    weight: int
    connections: int
    share: float
    by_weight: float
    answered: int | None = None


@dataclass(frozen=True)
class Load:
    """Results of a load, as ``lab.load --json`` prints them.

    ``connections`` were open at a time from each of ``clients``; ``errors`` are counted by kind
    (`wrk.ERRORS`); ``median`` and ``slowest`` are latencies in seconds. ``given`` is the number of
    connections that servers were given, and ``unanswered`` of those that brought no answer: their requests
    were under way at the end, never answered, or errors. ``asked`` is a URL.
    """

    name: str
    director: str
    service: str
    scheduler: str
    clients: list[str]
    connections: int
    seconds: float
    requests: int
    requests_per_second: float
    bytes_per_second: float
    median: float
    slowest: float
    errors: dict[str, int]
    servers: list[Share]
    given: int = 0
    unanswered: int = 0
    asked: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the document of ``--json``."""
        return asdict(self)


def check_bounds(seconds: int, connections: int) -> None:
    """Raise UsageError where ``seconds`` or ``connections`` is out of bounds."""
    limits = ("--seconds", seconds, MOST_SECONDS), ("--connections", connections, MOST_CONNECTIONS)
    for what, given, most in limits:
        if not 1 <= given <= most:
            raise UsageError(f"{what} is {given}", f"it takes a whole number from 1 to {most}")


def load(
    name: str,
    *,
    director: str = "",
    client: str = "",
    service: str = "",
    seconds: int = SECONDS,
    connections: int = CONNECTIONS,
) -> Load:
    """Load a service of a director in the lab ``name``, and count each server's connections.

    The defaults are the first director, the first of its services that can be loaded, and all clients that
    are Mininet hosts. ``connections`` are those of each client. Raises UsageError, StateError, MachineError,
    and CheckFailed where a generator fails.
    """
    from lvslab.cluster.cluster import attach

    check_bounds(seconds, connections)
    with attach(name) as running:
        director = chosen.director_of(running, director)
        clients = _clients(running, client)
        wanted, target, clients = _wanted(running, director, clients, service)
        clients = of_family(running, clients, target.address)
        request_id = f"load-{new_request_id()}"
        before = directors.read_settled(running, director, what=_READ)
        if target.kind == "http":
            if shutil.which(wrk.PROGRAM) is None:
                raise MachineError("this machine has no wrk", requirements.install("wrk"))
            made = generators(running, clients, target.url, seconds, connections, request_id)
        else:
            command = generator.command(target.kind, target.address, target.port, seconds, connections)
            made = started_by(running, clients, command)
        with made as started:
            sent = wrk.merge(await_result(process, seconds) for process in started)
        after = directors.read_settled(running, director, what=_READ)
        names = running.lab.names
        given = connections_of(wanted, before, after)
        answered = _answered(running, wanted, names, request_id) if target.kind == "http" else {}
    return Load(
        name=name,
        director=director,
        service=str(wanted),
        scheduler=wanted.scheduler,
        clients=clients,
        connections=connections,
        seconds=round(sent.seconds, 3),
        requests=sent.requests,
        requests_per_second=round(sent.requests / sent.seconds, 1),
        bytes_per_second=round(sent.bytes / sent.seconds, 1),
        median=sent.median,
        slowest=sent.slowest,
        errors=sent.errors,
        servers=list(shares(wanted, given, names, answered)),
        given=sum(given.values()),
        unanswered=max(0, sum(given.values()) - sent.requests),
        asked=target.url,
    )


def _wanted(
    running: RunningLab, director: str, clients: Sequence[str], name: str
) -> tuple[Service, Target, list[str]]:
    """Return the service of ``director`` called ``name``, or the first that can be loaded.

    With it, what is asked for, and those of ``clients`` that reach the service by that. Raises StateError.
    """
    table = directors.read_director(running, director, ("rules",)).rules
    refused = list[str]()
    for service in chosen.services_of(table, name, director):
        reached = dict[str, Target]()
        for client in clients:
            try:
                reached[client] = target_of(running, service, director, client)
            except NotAsked as why:
                refused.append(f"{service}: {why}")
        if reached:
            target = next(iter(reached.values()))
            return service, target, [client for client, found in reached.items() if found == target]
    raise StateError(f"no virtual service of {director} can be loaded", "\n  ".join(dict.fromkeys(refused)))


def _answered(
    running: RunningLab, service: Service, names: Mapping[str, str], request_id: str
) -> dict[str, int]:
    """Count the requests with ``request_id`` in the log of each server of ``service``."""
    return {
        str(server): running.access_log(names[server.address]).count(request_id)
        for server in service.destinations
        if server.address in names
    }


def _clients(running: RunningLab, client: str) -> list[str]:
    """Return the clients that make the load, which are Mininet hosts. Raises UsageError for none."""
    hosts = [*filter(running.is_enterable, running.lab.clients)]
    if not client:
        if hosts:
            return hosts
        raise UsageError(*without_host(running.lab.clients))
    if client not in running.lab.clients:
        raise UsageError(
            f"the lab '{running.name}' has no client '{client}'", suggest(client, running.lab.clients)
        )
    if client not in hosts:
        raise UsageError(
            f"{client} is a virtual machine, and load is made on Mininet hosts", suggest("", hosts)
        )
    return [client]


def of_family(running: RunningLab, clients: Sequence[str], address: str) -> list[str]:
    """Return the ``clients`` with an address of the family of ``address``, or all of them."""
    version, nodes = ip_address(address).version, running.lab.nodes
    able = [name for name in clients if any(own.version == version for own in nodes[name].addresses)]
    return able or [*clients]


@contextmanager
def started_by(
    running: RunningLab, clients: Sequence[str], command: Sequence[str]
) -> Iterator[list[Process]]:
    """Run ``command`` in the network of each of ``clients`` during the block."""
    started = list[Process]()
    with ExitStack() as opened:
        for client in clients:
            network = opened.enter_context(running.namespaces(client)).network
            enter = ["nsenter", f"--net=/proc/self/fd/{network}", "--"]
            words = ["setpriv", "--pdeathsig", "KILL", "--", *enter, *command]  # ends with this process
            process = spawn(words, stdout=PIPE, stderr=STDOUT, pass_fds=(network,))
            started.append(opened.enter_context(process))
        yield started


def generators(
    running: RunningLab,
    clients: Sequence[str],
    url: str,
    seconds: int,
    connections: int,
    request_id: str = "",
) -> AbstractContextManager[list[Process]]:
    """Run wrk on each of ``clients``, at most until the end of the block."""
    return started_by(running, clients, wrk.command(url, seconds, connections, _THREADS, request_id))


def await_result(process: Process, seconds: float) -> WrkResult:
    """Wait until a generator has ended and return its result. Raises CheckFailed where it has failed."""
    try:
        output, _ = process.communicate(timeout=seconds + _GRACE)
    except TimeoutExpired:
        raise CheckFailed(f"a load generator was to run for {seconds} s, and does not end") from None
    return wrk.parse(output.decode())


ended = await_result  # former name, for a release


def connections_of(service: Service, before: Reading, after: Reading) -> dict[str, int]:
    """Count the connections between two readings of each server of ``service``, by ``address:port``."""

    def count(reading: Reading, server: str) -> int:
        found = reading.by_server.get((str(service), server))
        return found.connections if found else 0

    return {
        server: count(after, server) - count(before, server) for server in map(str, service.destinations)
    }


def shares(
    service: Service,
    connections: Mapping[str, int],
    names: Mapping[str, str],
    answered: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[Share]:
    """Yield the servers' shares in the table's order; ``names`` are the nodes' by address."""
    total = sum(connections.values())
    weights = sum(server.weight for server in service.destinations)
    for server in service.destinations:
        own = connections[str(server)]
        yield Share(
            server=names.get(server.address, server.address),
            address=str(server),
            weight=server.weight,
            connections=own,
            share=round(own / total, 4) if total else 0.0,
            by_weight=round(server.weight / weights, 4) if weights else 0.0,
            answered=answered.get(str(server)),
        )
