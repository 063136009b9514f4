"""Causes at real servers whose replies do not pass the director."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.probes import NodeView, is_silent, route_to


def examine(seen: NodeView, facts: ServerFacts, asked: Asked) -> ServerFacts:
    """Add whether a server has the virtual address, and its way back."""
    if not asked.target:
        return facts
    there = route_to(seen, asked.target)
    if there is None:
        return facts
    own = there.kind == "local"
    probe = seen.probe(asked.target, facts.port) if own else None
    found = replace(facts, has_virtual=own, probe=probe)
    if not asked.client or not own:
        return found
    back = route_to(seen, asked.client, asked.target)
    return replace(
        found,
        way_back=back,
        silent_hop=bool(back and back.via) and is_silent(seen, back.via if back else ""),
    )


def causes(facts: ClusterFacts, server: ServerFacts, *, interface: str = "lo") -> Iterator[Finding]:
    """Find a missing virtual address, a missing program on it, and lost replies."""
    target, name = facts.target, server.name
    whole = f"{target}/{128 if ':' in target else 32}"
    if server.has_virtual is False:
        yield Finding(
            f"{name} does not have the address {target}, so it does not take the requests that reach it",
            f"run `ip addr add {whole} dev {interface}` on {name}"
            + ("" if ":" in target else ", with arp_ignore=1 and arp_announce=2 set before")
            + ("" if server.forwarding == "tunneling" else "; or should the `ipvsadm -a` say -m?"),
        )
    if server.probe == "refused":
        yield Finding(
            f"nothing listens on {target}, port {server.port}, of {name} (connection refused)",
            f"start the server on {name}, on all of its addresses, or take it out with `ipvsadm -d`",
        )
    elif server.probe == "no-answer":
        yield Finding(
            f"{name} does not answer on {target}, not even to itself",
            "is its server stuck, or does it filter the port?",
        )
    back = server.way_back
    if back is None:
        return
    if back.kind == "none":
        yield Finding(
            f"{name} has no route to the client {facts.client}, so its replies go nowhere",
            f"run `ip route add default via ROUTER` on {name}, with the router to the clients",
        )
    elif back.via in facts.director_addresses and ":" not in target and facts.has_virtual:
        # fib_validate_source (net/ipv4/fib_frontend.c) refuses a source that is the machine's own.
        yield Finding(
            f"{name}'s replies go to the director {back.via}, which drops packets that come from its own "
            f"address {target}",
            f"let {name}'s route to the clients go by another router",
        )
    elif server.silent_hop:
        yield Finding(
            f"{name}'s {'default route' if back.via == server.gateway else 'route to the client'} goes to "
            f"{back.via}, and no machine answers for that address, so its replies go nowhere",
            f"run `ip route replace default via ROUTER` on {name}, with the router to the clients",
        )
