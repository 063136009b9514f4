"""The checks as plain functions over data, and the search for a cause when no answer comes at all.

A check that fails raises CheckFailed: its message shows what was expected and what was seen, its hint names
likely causes. Nothing here talks to a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lvslab.check.ipvs.listing import Counters
from lvslab.check.ipvs.table import Service, compare
from lvslab.errors import CheckFailed

# --- checks ------------------------------------------------------------------------------------------------


def sequence_matches(expected: Sequence[str], observed: Sequence[str]) -> None:
    """The servers answered in exactly this order. Raises CheckFailed with the first difference marked."""
    if list(expected) == list(observed):
        return
    first = next(
        (index for index, pair in enumerate(zip(expected, observed, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(observed)),
    )
    lines = [
        f"the servers did not answer in the order that the scheduler gives; request {first + 1} is the first"
    ]
    lines += _side_by_side(expected, observed, first)
    raise CheckFailed("\n".join(lines), _sequence_hint(expected, observed))


def _side_by_side(expected: Sequence[str], observed: Sequence[str], first: int) -> list[str]:
    rows = max(len(expected), len(observed))
    # Long rounds: what leads up to the difference, and a little of what follows.
    start, end = (0, rows) if rows <= 24 else (max(0, first - 6), min(rows, first + 12))
    width = max(len("expected"), *(len(name) for name in expected), 1)
    lines = [f"  {'request':>7}  {'expected':<{width}}  observed"]
    if start:
        lines.append(f"  {'...':>7}")
    for index in range(start, end):
        want = expected[index] if index < len(expected) else "(none)"
        seen = observed[index] if index < len(observed) else "(none)"
        mark = "  <-- first difference" if index == first else ""
        lines.append(f"  {index + 1:>7}  {want:<{width}}  {seen}{mark}")
    if end < rows:
        lines.append(f"  {'...':>7}")
    return lines


def _sequence_hint(expected: Sequence[str], observed: Sequence[str]) -> str:
    silent = [name for name in dict.fromkeys(expected) if name not in observed]
    strange = [
        name or "(a reply without a name)" for name in dict.fromkeys(observed) if name not in expected
    ]
    if strange:
        return (
            f"{_and(strange)} should not have answered: is it another server's page, or a server too many?"
        )
    if silent and observed:
        return (
            f"{_and(silent)} never answered: is it missing from the director's table (was its `ipvsadm -a` "
            "run?), is its weight 0, or does every connection stay with one server (persistence, -p)?"
        )
    if Counter(expected) == Counter(observed):
        return (
            "every server answered as often as it should, only in another order: were the servers added in "
            "another order, or were there other connections at the same time?"
        )
    return (
        "check the weights (-w) and the scheduler (-s) in `ipvsadm -Ln`; connections of somebody else, or "
        "old ones that are forgotten during the round, change the order too"
    )


def counts_agree(
    client_counts: Mapping[str, int],
    access_log_counts: Mapping[str, int],
    director_counts: Mapping[str, int],
) -> None:
    """Client, real servers and director counted the same requests for each server (by its name).

    The director's are the connections that were added during the round. Raises CheckFailed with every
    server on which they differ.
    """
    names = sorted({*client_counts, *access_log_counts, *director_counts})
    rows = [
        (name, client_counts.get(name, 0), access_log_counts.get(name, 0), director_counts.get(name, 0))
        for name in names
    ]
    wrong = [row for row in rows if len(set(row[1:])) > 1]
    if not wrong:
        return
    lines = ["client, access logs and director do not agree on how many requests each server had"]
    for name, client, log, director in wrong:
        lines.append(
            f"  {name}: {client} answers at the client, {log} in its access log, {director} at the director"
        )
    hints = []
    if any(log > client for _, client, log, _ in wrong):
        hints.append("a server had requests whose answers never arrived, or that somebody else sent")
    if any(log < client for _, client, log, _ in wrong):
        hints.append("answers came that the server did not log: is it another server that bears its name?")
    if any(director > max(client, log) for _, client, log, director in wrong):
        hints.append(
            "the director gave out connections that ended without a request: was one refused or lost?"
        )
    if any(director < max(client, log) for _, client, log, director in wrong):
        hints.append(
            "requests reached a server without the director, or its counters were zeroed (ipvsadm -Z)"
        )
    raise CheckFailed("\n".join(lines), "; ".join(hints) or None)


def table_matches(expected: Sequence[Service], observed: Sequence[Service]) -> None:
    """The director's table is what the steps said. Raises CheckFailed with every difference."""
    if differences := compare(expected, observed):
        raise CheckFailed(
            "the director's table is not what the steps say\n  " + "\n  ".join(differences),
            "look at `ipvsadm -Ln` on the director",
        )


def sources_preserved(
    client_addresses: Collection[str],
    logged_addresses: Collection[str],
    director_addresses: Collection[str] = (),
) -> None:
    """The real servers saw their requests come from the clients' own addresses.

    IPVS rewrites the destination of a request, never its source; a source that changed was changed by a
    rule of iptables. ``director_addresses`` are known to be the director's. Raises CheckFailed.
    """
    foreign = sorted(set(logged_addresses) - set(client_addresses))
    if not logged_addresses:
        raise CheckFailed("the real servers logged no request at all", "did the requests reach them?")
    if not foreign:
        return
    if set(foreign) & set(director_addresses):
        hint = (
            f"{_and(sorted(set(foreign) & set(director_addresses)))} is the director itself: one of its "
            "POSTROUTING rules masquerades the clients' requests; limit it to what leaves on the outer "
            "interface (-o eth0)"
        )
    else:
        hint = (
            "does somebody else use the service, or does a router before the director translate addresses?"
        )
    raise CheckFailed(
        f"the real servers saw requests from {_and(foreign)}, "
        f"but the clients are {_and(sorted(client_addresses))}",
        hint,
    )


# --- when no answer comes ----------------------------------------------------------------------------------

Probe = Literal["answers", "refused", "no-answer"]

_MOST_CAUSES = 8


@dataclass(frozen=True)
class ServerFacts:
    """What is known of a real server. ``probe``: what it says to a direct request from its own network, None
    when nobody asked; ``gateway``: its default gateway, "" when it has none, None when unknown."""

    name: str
    address: str
    port: int
    probe: Probe | None = None
    gateway: str | None = None

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class ClusterFacts:
    """What was found out about a masquerading cluster that does not answer.

    ``ip_forward`` is /proc/sys/net/ipv4/ip_forward on the director, None when unknown; ``director_address``
    its address on the real servers' network; ``expected`` and ``observed`` the table that the steps make and
    the one that the kernel has; ``counters`` what was added to the virtual service's counters while the
    requests were made, None when unknown.
    """

    virtual_service: str
    director_address: str
    expected: tuple[Service, ...]
    observed: tuple[Service, ...]
    servers: tuple[ServerFacts, ...]
    ip_forward: int | None = None
    counters: Counters | None = None


@dataclass(frozen=True)
class Finding:
    """One cause, in a sentence, and what to do about it."""

    cause: str
    remedy: str


def diagnose(facts: ClusterFacts) -> tuple[Finding, ...]:
    """Likely causes why the cluster does not answer, or not always, the likeliest first; () for none."""
    table, others = _table(facts), [*_forwarding(facts), *_servers(facts)]
    likely = others + table if _has_service(facts) else table + others
    return tuple(likely or [*_without_masquerading(facts), *_counted(facts)])


def no_answer(facts: ClusterFacts, failure: CheckFailed) -> CheckFailed:
    """The failed request again, with the causes that `diagnose` finds in its hint."""
    findings = diagnose(facts)
    if not findings:
        return failure
    lines = [f"{finding.cause}; {finding.remedy}" for finding in findings[:_MOST_CAUSES]]
    if (more := len(findings) - _MOST_CAUSES) > 0:
        lines.append(f"and {more} more of the same kinds")
    return CheckFailed(failure.message, "\n  ".join(lines))


def _has_service(facts: ClusterFacts) -> bool:
    """Whether the director has each service of the steps, with a server that takes connections."""
    alive = {
        str(service) for service in facts.observed if any(server.weight for server in service.destinations)
    }
    return {str(service) for service in facts.expected} <= alive


def _forwarding(facts: ClusterFacts) -> list[Finding]:
    # A request is taken at LOCAL_IN (ip_vs_in) and sent on like a packet of the director's own, which needs
    # no forwarding (ip_vs_nat_xmit). The reply is addressed to the client: with ip_forward 0 it has no input
    # route (ip_route_input_slow, net/ipv4/route.c of 2.4.37.11, 2.6.39 and 6.1), is dropped without an ICMP
    # message, and never reaches FORWARD, where IPVS would rewrite it.
    if facts.ip_forward != 0:
        return []
    return [
        Finding(
            "ip_forward is 0 on the director: packets are not forwarded, so requests reach the "
            "real servers, but their replies are dropped on the way back",
            "set net.ipv4.ip_forward = 1 in /etc/sysctl.conf and run `sysctl -p` on the director",
        )
    ]


def _servers(facts: ClusterFacts) -> list[Finding]:
    found = []
    for server in facts.servers:
        if server.probe == "refused":
            found.append(
                Finding(
                    f"nothing listens on {server} (connection refused)",
                    f"start the server on {server.name}, or take it out with `ipvsadm -d`",
                )
            )
        elif server.probe == "no-answer":
            found.append(
                Finding(
                    f"{server.name} does not answer on {server}, not even from its own network",
                    "is it up, is its address right, and does it filter the port?",
                )
            )
        if server.gateway == "":
            found.append(
                Finding(
                    f"{server.name} has no default route, so its replies go nowhere",
                    f"run `ip route add default via {facts.director_address}` on {server.name}",
                )
            )
        elif server.gateway is not None and server.gateway != facts.director_address:
            found.append(
                Finding(
                    f"{server.name}'s default route goes to {server.gateway} and not to the director "
                    f"{facts.director_address}, so its replies bypass the director",
                    f"run `ip route replace default via {facts.director_address}` on {server.name}",
                )
            )
    return found


def _table(facts: ClusterFacts) -> list[Finding]:
    found = [
        Finding(difference, "compare `ipvsadm -Ln` with the steps")
        for difference in compare(facts.expected, facts.observed)
    ]
    found += [
        Finding(
            f"every real server of {service} has weight 0, so it takes no new connection",
            "give one a weight with `ipvsadm -e ... -w`",
        )
        for service in facts.observed
        if service.destinations and not any(destination.weight for destination in service.destinations)
    ]
    return found


def _without_masquerading(facts: ClusterFacts) -> list[Finding]:
    """Servers that get packets for an address that they may not have."""
    return [
        Finding(
            f"packets for {service} reach {server} as they are, by {server.forwarding}, so it must have the "
            "virtual address too",
            "should its `ipvsadm -a` say -m?",
        )
        for service in facts.observed
        if str(service) == facts.virtual_service
        for server in service.destinations
        if server.forwarding in ("gatewaying", "tunneling")
    ]


def _counted(facts: ClusterFacts) -> list[Finding]:
    """What the counters alone tell, when nothing else is wrong."""
    if facts.counters is None:
        return []
    if facts.counters.connections == 0:
        return [
            Finding(
                f"no connection reached the virtual service {facts.virtual_service}",
                "is its address on the director's interface, does the client have a route to it, and does "
                "the director's INPUT chain let it in?",
            )
        ]
    if facts.counters.packets_out == 0:
        return [
            Finding(
                f"{facts.counters.connections} connections came in at {facts.virtual_service} and no packet "
                "went out: the replies do not pass through the director",
                "does the director's FORWARD chain drop them, or its rp_filter, or does a real server that "
                "is on the client's own network answer it directly?",
            )
        ]
    return []


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
