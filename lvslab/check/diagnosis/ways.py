"""Ways of requests and replies through a lab: routes from node to node, and routers that do not forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from lvslab.check.forwarding.facts import Finding
from lvslab.check.probes import NodeView, Route, is_silent, route_to
from lvslab.lab.model import Lab

_MOST_HOPS = 8


@dataclass(frozen=True)
class Way:
    """A way that was followed from ``start``: its first ``route``, None when unknown, and ``routers``.

    ``findings`` are where it ends early, with the node at which it does.
    """

    start: str
    route: Route | None
    routers: tuple[str, ...] = ()
    findings: tuple[tuple[str, Finding], ...] = ()

    @property
    def after_start(self) -> list[Finding]:
        """The findings at routers."""
        return [finding for node, finding in self.findings if node != self.start]


def follow(
    lab: Lab, see: Callable[[str], NodeView], start: str, target: str, source: str = "", *, name: str = ""
) -> Way:
    """Follow the routes from node ``start`` to the address ``target``, for packets from ``source``.

    Only routers of the lab are passed. Messages call the target ``name``.
    """
    first, node, routers = route_to(see(start), target, source), start, list[str]()
    route, found = first, list[tuple[str, Finding]]()
    while route is not None and len(routers) < _MOST_HOPS:
        found += [(node, finding) for finding in _at(lab, see(node), node, route, target, name or target)]
        owner = lab.names.get(str(ip_address(route.via))) if route.via else None
        if found or owner is None or owner not in lab.routers or owner in routers:
            break
        node = owner
        routers.append(node)
        if closed := _not_forwarding(see(node), node, ":" in target):
            found.append((node, closed))
            break
        route = route_to(see(node), target)
    return Way(start, first, tuple(routers), tuple(found))


def _at(lab: Lab, seen: NodeView, node: str, route: Route, target: str, name: str) -> Iterator[Finding]:
    """Find why packets end at ``node``, by its ``route``."""
    who, its = ("the director", "the director's") if node in lab.directors else (node, f"{node}'s")
    if route.kind == "none":
        yield Finding(f"{who} has no route to {name}", f"look at `ip route` on {node}")
    elif route.via:
        owner = lab.names.get(str(ip_address(route.via)))
        if owner in lab.real_servers and lab.names.get(target) != owner:
            yield Finding(
                f"{its} route to {name} goes to {route.via}, which is {owner}, a real server",
                f"look at `ip route get {target}` on {node}, and delete the route that is too much",
            )
        elif is_silent(seen, route.via):
            yield Finding(
                f"{its} route to {name} goes to {route.via}, and no machine answers for that address",
                f"look at `ip route get {target}` on {node}: is it the right router, and is that up?",
            )


def _not_forwarding(seen: NodeView, node: str, ipv6: bool) -> Finding | None:
    """Return the finding that a router does not forward, None where it does."""
    setting = "net.ipv6.conf.all.forwarding" if ipv6 else "net.ipv4.ip_forward"
    try:
        value = seen.read(f"/proc/sys/{setting.replace('.', '/')}").strip()
    except OSError:
        return None
    if value != "0":
        return None
    what = "IPv6 forwarding" if ipv6 else "ip_forward"
    return Finding(
        f"{what} is 0 on {node}, a router on the way: it drops packets for other machines",
        f"run `sysctl -w {setting}=1` on {node}",
    )
