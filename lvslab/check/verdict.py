"""Checks as functions over data, and the diagnosis of a cluster that does not answer.

A check that fails raises CheckFailed: its message shows what was expected and what was seen, its hint names
likely causes. Nothing here talks to a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_interface
from itertools import zip_longest

from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import ClusterFacts, Finding, ServerFacts
from lvslab.check.ipvs.table import Forwarding, Service, compare, listed
from lvslab.errors import CheckFailed

# --- checks ------------------------------------------------------------------------------------------------


def sequence_matches(expected: Sequence[str], observed: Sequence[str]) -> None:
    """Check that the servers answered in exactly this order. Raises CheckFailed."""
    if list(expected) == list(observed):
        return
    pairs = [*zip_longest(expected, observed, fillvalue="(none)")]
    first = next(number for number, (want, seen) in enumerate(pairs, 1) if want != seen)
    # Of a long round, only the lines around the difference.
    start, end = (0, len(pairs)) if len(pairs) <= 24 else (max(0, first - 7), first + 11)
    width = max(map(len, ("expected", *expected)))
    left_out = f"  {'...':>7}"
    lines = [
        f"the servers did not answer in the order that the scheduler gives; request {first} is the first",
        f"  {'request':>7}  {'expected':<{width}}  observed",
        *([left_out] if start else []),
    ]
    for number, (want, seen) in enumerate(pairs[start:end], start + 1):
        mark = "  <-- first difference" if number == first else ""
        lines.append(f"  {number:>7}  {want:<{width}}  {seen}{mark}")
    lines += [left_out] if end < len(pairs) else []
    raise CheckFailed("\n".join(lines), _sequence_hint(expected, observed))


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


_MISCOUNTS = (
    "a server had requests whose answers never arrived, or that another client sent",
    "answers came that the server did not log: does another server have its name?",
    "the director scheduled connections that ended without a request: was one refused or lost?",
    "requests reached a server without the director, or its counters were zeroed (ipvsadm -Z)",
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
    all_counts = (client_counts, access_log_counts, director_counts)
    lines = ["client, access logs and director do not agree on how many requests each server had"]
    hints = set[int]()
    for name in sorted({*client_counts, *access_log_counts, *director_counts}):
        client, log, director = (counts.get(name, 0) for counts in all_counts)
        if client == log == director:
            continue
        lines.append(
            f"  {name}: {client} answers at the client, {log} in its access log, {director} at the director"
        )
        most = max(client, log)
        apply = (log > client, log < client, director > most, director < most)
        hints |= {index for index, applies in enumerate(apply) if applies}
    if hints:
        raise CheckFailed("\n".join(lines), "; ".join(_MISCOUNTS[index] for index in sorted(hints)))


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
    if own := sorted(set(foreign) & set(director_addresses)):
        hint = (
            f"{listed(own)} is the director itself: one of its POSTROUTING rules masquerades the clients' "
            "requests; limit it to what leaves on the outer interface (-o eth0)"
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
    weaker signs (counters) are told only where no cause is found.
    """
    used = dict.fromkeys(
        server.forwarding for server in (facts.service.destinations if facts.service else ())
    )
    by_method: dict[Forwarding, list[ServerFacts]] = {name: [] for name in used}
    for server in facts.servers:
        by_method.setdefault(server.forwarding, []).append(server)
    table = _table(facts)
    others = [arp_problem(node, server, facts.target) for node, server in facts.diverted.items()]
    others += facts.losses
    others += facts.around
    if facts.has_virtual is False and not (facts.counters and facts.counters.connections):
        others.append(_not_the_directors(facts))
    others += [
        cause for name, servers in by_method.items() for cause in method_for(name).causes(facts, servers)
    ]
    unexamined = {server.name: server.unexamined for server in facts.servers if server.unexamined}
    others += [
        Finding(
            f"{name} cannot be examined: {why}", "`./run lab.status` shows the nodes of a lab that is up"
        )
        for name, why in unexamined.items()
    ]
    # The table is the likeliest cause where a service of the steps has no server of a weight above 0.
    alive = {
        str(service) for service in facts.observed if any(server.weight for server in service.destinations)
    }
    if likely := others + table if alive.issuperset(map(str, facts.expected)) else table + others:
        return tuple(likely)
    found = [sign for name in used for sign in method_for(name).suspicions(facts)]
    if facts.counters is not None and not facts.counters.connections:
        own = "" if facts.has_virtual else "is its address on the director's interface, "
        found.append(
            Finding(
                f"no connection reached the virtual service {facts.virtual_service}",
                f"{own}does the client have a route to it, and does the director's INPUT chain let it in?",
            )
        )
    return tuple(found)


def no_answer(facts: ClusterFacts, failure: CheckFailed) -> CheckFailed:
    """Return ``failure`` with the causes that `diagnose` finds as its hint."""
    findings = diagnose(facts)
    if not findings:
        return failure
    lines = [f"{finding.cause}; {finding.remedy}" for finding in findings[:_MOST_CAUSES]]
    if (more := len(findings) - _MOST_CAUSES) > 0:
        lines.append(f"and {more} more of the same kinds")
    return CheckFailed(failure.message, "\n  ".join(lines))


def arp_problem(node: str, server: str, target: str) -> Finding:
    """Return the finding that ``node`` sends packets for ``target`` to a real server."""
    if ":" in target:
        # Linux answers a neighbour solicitation only for an address of the interface at which it arrives
        # (ndisc_recv_ns, net/ipv6/ndisc.c of 6.1), so an address on lo is not announced.
        return Finding(
            f"{node} sends packets for {target} to the hardware address of {server}, and not to the "
            f"director: {server} answers neighbour solicitations for that address",
            f"keep the address on lo of {server}, and run `ip -6 neigh flush all` on {node}",
        )
    return Finding(
        f"{node} sends packets for {target} to the hardware address of {server}, and not to the director: "
        f"{server} answers ARP requests for that address (the ARP problem)",
        f"set net.ipv4.conf.all.arp_ignore=1 and net.ipv4.conf.all.arp_announce=2 on {server}, keep the "
        f"address on lo there, and run `ip neigh flush all` on {node}",
    )


def _not_the_directors(facts: ClusterFacts) -> Finding:
    if facts.has_duplicate:
        return Finding(
            f"another machine on its network has the address {facts.target} too, so the director does not "
            "use it (dadfailed: duplicate address detection)",
            "take the address from the other machine's card, and add it to the director's again",
        )
    return Finding(
        f"the director does not have the address {facts.target}, so it does not take the requests to it",
        f"run `ip addr add {ip_interface(facts.target)} dev INTERFACE` on the director, with the interface "
        "on the clients' side",
    )


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
