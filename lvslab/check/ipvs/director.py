"""Readings of a director: its table, connections and counters."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from lvslab.check.ipvs import calls, packed
from lvslab.check.ipvs import listing as listings
from lvslab.check.ipvs import stats as ipvs_stats
from lvslab.check.ipvs.calls import Call
from lvslab.check.ipvs.listing import Connection, Counters, ListedService, Rates
from lvslab.check.ipvs.rules import UnknownName, parse_rules
from lvslab.check.ipvs.table import Service
from lvslab.errors import CheckFailed
from lvslab.guest import calls as log

ESTIMATION_PERIOD = 2.5
"""Seconds of the director's clock within which its kernel adds up all counters.

That is every 2 s (``IPVS_EST_TICK`` times 50 in include/net/ip_vs.h since Linux 6.2), and some time for
threads that come late.
"""

ENTRIES = (
    "if known=$(ipvsadm -Lnc); then"
    ' if [ ${#known} -lt 3000 ]; then echo "$known";'
    ' elif [ "$(command -v gzip)" -a "$(command -v base64)" ];'
    f' then echo {packed.MARK}; {{ echo "$known"; ipvsadm -Lnc; }} | gzip -c | base64;'
    ' else echo "$known"; ipvsadm -Lnc; fi;'
    " else false; fi"
)
"""Shell command that lists a director's connections; twice, where they are more than a page.

The kernel hands them out by the page, and counts from the first one for each (``ip_vs_conn_array``, from 2.4
to today): where one expires meanwhile, another one is left out. Two lists are packed, if there are the
programs: an emulated serial port takes up to half a minute for a few thousand connections.
"""

_COMMANDS = {
    "rules": "ipvsadm -Sn",
    "thresholds": "ipvsadm -Ln --thresholds",
    "listing": "ipvsadm -Ln",
    "counters": "ipvsadm -Ln --stats --exact",
    "entries": ENTRIES,
    "ip_forward": "cat /proc/sys/net/ipv4/ip_forward",
    "quiescent": "{ cat /proc/sys/net/ipv4/vs/expire_quiescent_template 2> /dev/null || echo 0; }",
    "order": "cat /proc/net/ip_vs",
    "uptime": "cat /proc/uptime",
    "rates": "ipvsadm -Ln --rate --exact",
    "stats": f"cat {ipvs_stats.STATS}",
}
EVERYTHING = ("rules", "thresholds", "listing", "counters", "entries", "ip_forward")
"""The parts of a reading that checks need: the table, connections and counters."""
MONITORED = ("listing", "uptime", "counters", "rates", "stats")
"""The parts of a reading for monitoring. ipvsadm comes first: it loads IPVS."""
_REMEMBERED = 120
"""Seconds until a finished connection expires (FIN_WAIT and TIME_WAIT, ip_vs_proto_tcp.c)."""
_GLANCES = 0.05
"""Seconds between two looks at the kernel's sums; each starts a few processes on the director."""


class Observer(Protocol):
    """An object that runs lvslab's own commands on nodes: a `Cluster`, or its supervisor."""

    def observe(self, node: str, command: str) -> str:
        """Run ``command`` on ``node`` and return its output: see `control.Control.observe`."""


@dataclass(frozen=True)
class Reading:
    """The state of a director at one moment.

    ``rules`` is its table, with thresholds only where these were read too; ``connections`` are the rows of
    ``ipvsadm -Ln``. ``entries`` maps the client's end of each connection to the real server's, both as
    ``address:port``; ``templates`` does so for the clients (port 0) of persistent services, by service and
    client. The counters (``totals`` by service, ``by_server`` by service and server, ``stats``) lag behind
    since Linux 2.6.39: see `read_settled`; connections and entries do not. ``ip_forward`` is the sysctl.
    ``uptime`` is the director's clock, in seconds; ``rates`` are the kernel's (`parse_rates`). ``tracked``
    are all connections, templates included; ``order`` are the servers of each service in the kernel's order;
    ``expire_quiescent_template`` is the sysctl; ``at`` is the time of this reading by the monotonic clock.
    """

    rules: tuple[Service, ...]
    connections: tuple[ListedService, ...]
    totals: dict[str, Counters]
    by_server: dict[tuple[str, str], Counters]
    entries: dict[str, str]
    ip_forward: int
    listing: str
    uptime: float = 0.0
    rates: Mapping[tuple[str, str], Rates] = field(default_factory=dict)
    stats: ipvs_stats.Stats | None = None
    templates: Mapping[tuple[str, str], str] = field(default_factory=dict)
    tracked: tuple[Connection, ...] = ()
    order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expire_quiescent_template: bool = False
    at: float = field(default=0.0, compare=False)

    def connections_of(self, service: Service) -> ListedService | None:
        """Return the row of ``service``, or None where the director does not have it."""
        return next((row for row in self.connections if str(row) == str(service)), None)


def read_director(cluster: Observer, director: str, what: Sequence[str] = EVERYTHING) -> Reading:
    """Read ``what`` (of EVERYTHING and MONITORED) of the director named ``director``, in one command.

    The rest of the reading is empty. Raises CheckFailed where the output is not complete.
    """
    mark = f"-- {secrets.token_hex(8)}"
    said = cluster.observe(director, f" && echo '{mark}' && ".join(_COMMANDS[part] for part in what))
    parts = said.split(f"{mark}\n")
    if len(parts) != len(what):
        raise CheckFailed(f"the output of ipvsadm on {director} is not complete", "is its table very long?")
    found = dict.fromkeys(_COMMANDS, "") | dict(zip(what, parts, strict=True))
    counters = listings.parse_counters(found["counters"])
    entries = listings.parse_connection_entries(found["entries"])
    return Reading(
        rules=_with_thresholds(parse_rules(found["rules"]), listings.parse_thresholds(found["thresholds"])),
        connections=listings.parse_listing(found["listing"]),
        totals={service: gained for (service, server), gained in counters.items() if not server},
        by_server={place: gained for place, gained in counters.items() if place[1]},
        ip_forward=int(found["ip_forward"] or 0),
        entries={entry.client: entry.server for entry in entries},
        templates={
            (entry.virtual, entry.client): entry.server for entry in entries if entry.client.endswith(":0")
        },
        tracked=entries,
        order=listings.parse_kernel_order(found["order"]),
        expire_quiescent_template=found["quiescent"].strip() not in ("", "0"),
        at=time.monotonic(),
        listing=found["listing"].rstrip(),
        uptime=float((found["uptime"] or "0").split()[0]),
        rates=listings.parse_rates(found["rates"]),
        stats=ipvs_stats.parse_stats(found["stats"]) if found["stats"] else None,
    )


def _with_thresholds(
    rules: tuple[Service, ...], thresholds: Mapping[tuple[str, str], tuple[int, int]]
) -> tuple[Service, ...]:
    """Return ``rules`` with the thresholds of their servers, which ``ipvsadm -S`` does not print."""
    found = []
    for service in rules:
        servers = []
        for server in service.destinations:
            upper, lower = thresholds.get((str(service), str(server)), (0, 0))
            servers.append(replace(server, upper_threshold=upper, lower_threshold=lower))
        found.append(replace(service, destinations=tuple(servers)))
    return tuple(found)


def read_settled(
    cluster: Observer, director: str, seconds: float = 20.0, what: Sequence[str] = EVERYTHING
) -> Reading:
    """Read the director once its counters have caught up, within ``seconds``.

    Kernels since 2.6.39 count on each processor, and add that up every 2 s into the sums that ipvsadm shows
    (net/netfilter/ipvs/ip_vs_est.c). ``ip_vs_stats_percpu``, which came with it, has both for all services
    together. Up to 6.1 one timer adds up everything, so equal totals mean that each server's counters are up
    to date. Since 6.2 threads do, server by server; there, and where the totals were zeroed, after which
    the two differ for good, the counters must not change for a period of the director's clock.

    Raises CheckFailed where they go on changing: there is other traffic then.
    """
    deadline = time.monotonic() + seconds
    before = None
    while time.monotonic() < deadline:
        now = _added_up(cluster, director)
        if now is None or (now.at_once and now.processors.up_to_date):
            return read_director(cluster, director, what)
        if before is None or now.processors.counted != before.processors.counted:
            before = now
        elif now.uptime - before.uptime > ESTIMATION_PERIOD:
            return read_director(cluster, director, what)
    raise CheckFailed(
        f"the counters of {director} go on changing", "are there other clients of the service?"
    )


def read_fresh(
    cluster: Observer,
    director: str,
    what: Sequence[str] = MONITORED,
    *,
    early: float = 0.0,
    pause: Callable[[float], object] = time.sleep,
) -> Reading:
    """Read ``what`` of the director just after its kernel has added up its counters.

    That may be 2 s from now (`read_settled` says why); where no counter lags behind, or none changes, the
    director is read after ``early`` seconds. So there are whole periods between two such readings, with any
    traffic. ``uptime`` is the time of the adding up, as near as it was seen. ``pause`` waits for a number of
    seconds.
    """
    first = last = None
    while True:
        now = _added_up(cluster, director)
        if now is None or now.processors.up_to_date:
            if first is None:
                pause(early)
            return read_director(cluster, director, what)
        if last is not None and now.processors.shown != last.processors.shown:
            return replace(read_director(cluster, director, what), uptime=(last.uptime + now.uptime) / 2)
        if first is not None and now.uptime - first.uptime > ESTIMATION_PERIOD:
            return read_director(cluster, director, what)
        first, last = first or now, now
        pause(_GLANCES)


def await_no_expiry(
    cluster: Observer, director: str, seconds: float, pause: Callable[[float], object] = time.sleep
) -> None:
    """Wait (at most 120 s) until no tracked connection will expire within the next ``seconds``."""
    remembered = listings.parse_connection_entries(cluster.observe(director, ENTRIES))
    pause(delay_until_gap(expiries(remembered), seconds))


def expiries(connections: Iterable[Connection]) -> list[int]:
    """Return when finished ones among ``connections`` expire, in seconds from now.

    Those of UDP are always finished.
    """
    return [
        entry.expires for entry in connections if entry.expires <= _REMEMBERED or entry.protocol == "udp"
    ]


def table_in_order(now: Reading) -> tuple[Service, ...]:
    """Return the director's own table, its servers in the order in which they were added.

    ``now`` has "rules", "thresholds" and "order".
    """
    found = []
    for service in now.rules:
        # The kernel has the last one that was added first (`table.scan_order`).
        listed = now.order.get(str(replace(service, ipv6=False)), ())
        order = {server: -place for place, server in enumerate(listed)}
        servers = sorted(service.destinations, key=lambda server: order.get(str(server), 1))
        found.append(replace(service, destinations=tuple(servers)))
    return tuple(found)


def delay_until_gap(expiries: Iterable[float], seconds: float) -> float:
    """Return the delay, in seconds, until the first gap of ``seconds`` between ``expiries``.

    ``expiries`` are whole seconds from now, rounded down.
    """
    begins = 0.0
    for expires in sorted(expiries):
        if expires >= begins + seconds:
            break
        begins = expires + 1.0
    return begins


@dataclass(frozen=True)
class _AddedUp:
    """The per-processor counters of a director, and their sum as it was last added up.

    ``at_once`` is true where one timer adds up the counters of all services and servers together.
    """

    uptime: float
    at_once: bool
    processors: ipvs_stats.PerProcessor


def _added_up(cluster: Observer, director: str) -> _AddedUp | None:
    """Read these counters, None where the kernel counts in one place, and nothing lags behind."""
    files = f"/proc/sys/net/ipv4/vs/est_nice {ipvs_stats.PERCPU}"
    uptime, _, rest = cluster.observe(
        director,
        f"cat /proc/uptime; for name in {files}; do [ ! -e $name ] || {{ echo $name; cat $name; }}; done",
    ).partition("\n")
    threads, found, table = rest.partition(f"{ipvs_stats.PERCPU}\n")
    if not found:
        return None
    return _AddedUp(float(uptime.split()[0]), not threads, ipvs_stats.parse_percpu(table))


def kernel(cluster: Observer, director: str) -> str:
    """Return the version of the director's kernel, as exactly as the kernel has it.

    Debian's releases (``uname -r``) have it in their name only since 6.6: 6.1.0-50-cloud-amd64 is an update
    of 6.1, and /proc/version says which ("Debian 6.1.176-1").
    """
    return exact_version(cluster.observe(director, "cat /proc/version"))


def exact_version(text: str) -> str:
    """Return the kernel's version from the text of /proc/version, or ""."""
    # The compiler of Debian comes before the "#" and the number of the build.
    found = re.search(r"#\d.*\bDebian (\d+(?:\.\d+)+)", text) or re.match(r"Linux version (\S+)", text)
    return found[1] if found else ""


def calls_of(cluster: Observer, director: str) -> tuple[Call, ...]:
    """Return the logged calls of ipvsadm on ``director``, in the order of their ends."""
    said = cluster.observe(director, log.READ_SHORT)
    # An emulated serial port takes seconds for the log of a thousand calls. Carriage returns get lost on the
    # way, so a file that was cut off may be shorter here.
    if max(map(len, said.split(log.MARK + ":"))) > log.SHORT // 3:
        short = cluster.observe(director, log.READ_PACKED)
        said = packed.unpack(short) or cluster.observe(director, log.READ)
    return calls.parse_calls(said)


def table_of_steps(cluster: Observer, director: str) -> tuple[Service, ...]:
    """Return the table that the steps' successful calls of ipvsadm on ``director`` make.

    All calls until the steps have ended are the steps'; later ones were made by hand, or by a check.
    """
    return _table_of(cluster, director, [call for call in calls_of(cluster, director) if not call.by_hand])


def table_of_calls(cluster: Observer, director: str) -> tuple[Service, ...]:
    """Return the table that all successful calls on ``director`` make, those by hand too."""
    return _table_of(cluster, director, calls_of(cluster, director))


def _table_of(cluster: Observer, director: str, found: Sequence[Call]) -> tuple[Service, ...]:
    try:
        return calls.table_of_calls(found)
    except UnknownName:
        return calls.table_of_calls(found, calls.parse_names(cluster.observe(director, calls.NAMES)))
