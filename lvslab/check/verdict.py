"""Checks as plain functions over data, and the diagnosis of a cluster that does not answer.

A check that fails raises CheckFailed: its message shows what was expected and what was seen, its hint names
likely causes. Nothing here talks to a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import ClusterFacts, Finding, ServerFacts
from lvslab.check.ipvs.table import Forwarding, Service, compare, listed
from lvslab.errors import CheckFailed

# --- checks ------------------------------------------------------------------------------------------------


def sequence_matches(expected: Sequence[str], observed: Sequence[str]) -> None:
    """Check that the servers answered in exactly this order. Raises CheckFailed."""
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
    # Of a long round, only the lines around the difference.
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
            f"{listed(strange)} should not have answered: is it another server's page, or an extra server?"
        )
    if silent and observed:
        return (
            f"{listed(silent)} never answered: is it missing from the director's table (was its "
            "`ipvsadm -a` run?), is its weight 0, or does every connection stay with one server "
            "(persistence, -p)?"
        )
    if Counter(expected) == Counter(observed):
        return (
            "every server answered as often as it should, only in another order: were the servers added in "
            "another order, or were there other connections at the same time?"
        )
    return (
        "check the weights (-w) and the scheduler (-s) in `ipvsadm -Ln`; connections of other clients, or "
        "old ones that expire during the round, change the order too"
    )


def counts_agree(
    client_counts: Mapping[str, int],
    access_log_counts: Mapping[str, int],
    director_counts: Mapping[str, int],
) -> None:
    """Check that client, real servers and director counted the same requests for each server.

    The counts are by the server's name; the director's are the connections added during the round. Raises
    CheckFailed with every server on which they differ.
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
        hints.append("a server had requests whose answers never arrived, or that another client sent")
    if any(log < client for _, client, log, _ in wrong):
        hints.append("answers came that the server did not log: does another server have its name?")
    if any(director > max(client, log) for _, client, log, director in wrong):
        hints.append(
            "the director scheduled connections that ended without a request: was one refused or lost?"
        )
    if any(director < max(client, log) for _, client, log, director in wrong):
        hints.append(
            "requests reached a server without the director, or its counters were zeroed (ipvsadm -Z)"
        )
    raise CheckFailed("\n".join(lines), "; ".join(hints) or None)


def table_matches(expected: Sequence[Service], observed: Sequence[Service]) -> None:
    """Check that the director has the table of the steps. Raises CheckFailed with every difference."""
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
    """Check that the real servers saw requests from the clients' own addresses.

    No forwarding method of IPVS changes a request's source; if it changed, a rule of iptables did it.
    ``director_addresses`` are the director's own. Raises CheckFailed.
    """
    foreign = sorted(set(logged_addresses) - set(client_addresses))
    if not logged_addresses:
        raise CheckFailed("the real servers logged no request at all", "did the requests reach them?")
    if not foreign:
        return
    if set(foreign) & set(director_addresses):
        hint = (
            f"{listed(sorted(set(foreign) & set(director_addresses)))} is the director itself: one of its "
            "POSTROUTING rules masquerades the clients' requests; limit it to what leaves on the outer "
            "interface (-o eth0)"
        )
    else:
        hint = "are there other clients, or does a router before the director translate addresses?"
    raise CheckFailed(
        f"the real servers saw requests from {listed(foreign)}, "
        f"but the clients are {listed(sorted(client_addresses))}",
        hint,
    )


# --- when no answer comes ----------------------------------------------------------------------------------

_MOST_CAUSES = 8


def diagnose(facts: ClusterFacts) -> tuple[Finding, ...]:
    """Find likely causes why the cluster does not always answer, the likeliest first.

    Causes come from the table, and from the models of the forwarding methods that the steps use; the
    weaker signs (counters) are told only where there is no cause.
    """
    by_method: dict[Forwarding, list[ServerFacts]] = {
        server.forwarding: [] for server in (facts.service.destinations if facts.service else ())
    }
    for server in facts.servers:
        by_method.setdefault(server.forwarding, []).append(server)
    table = _table(facts)
    others = [
        cause for name, servers in by_method.items() for cause in method_for(name).causes(facts, servers)
    ]
    likely = others + table if _has_service(facts) else table + others
    if likely:
        return tuple(likely)
    weak = [sign for name in by_method for sign in method_for(name).suspicions(facts)]
    return (*weak, *_not_reached(facts))


def no_answer(facts: ClusterFacts, failure: CheckFailed) -> CheckFailed:
    """Return ``failure`` with the causes that `diagnose` finds as its hint."""
    findings = diagnose(facts)
    if not findings:
        return failure
    lines = [f"{finding.cause}; {finding.remedy}" for finding in findings[:_MOST_CAUSES]]
    if (more := len(findings) - _MOST_CAUSES) > 0:
        lines.append(f"and {more} more of the same kinds")
    return CheckFailed(failure.message, "\n  ".join(lines))


def _has_service(facts: ClusterFacts) -> bool:
    """Return whether the director has each service of the steps, with a server of a weight above 0."""
    alive = {
        str(service) for service in facts.observed if any(server.weight for server in service.destinations)
    }
    return {str(service) for service in facts.expected} <= alive


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


def _not_reached(facts: ClusterFacts) -> list[Finding]:
    if facts.counters is None or facts.counters.connections:
        return []
    return [
        Finding(
            f"no connection reached the virtual service {facts.virtual_service}",
            "is its address on the director's interface, does the client have a route to it, and does "
            "the director's INPUT chain let it in?",
        )
    ]
