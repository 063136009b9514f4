"""Examination of a cluster that does not answer: its real servers, and what lies around the service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lvslab.check.diagnosis import around
from lvslab.check.diagnosis.cards import parse_links, refused_addresses
from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.ipvs.director import Reading, read_director, table_of_steps
from lvslab.check.ipvs.table import Service, address_of, endpoint
from lvslab.check.probes import NodeView, addresses, neighbour_mac, route_to
from lvslab.errors import BootError

if TYPE_CHECKING:
    from lvslab.check.forwarding.method import Method
    from lvslab.cluster.running import RunningLab

_EXPIRE_NODEST = "/proc/sys/net/ipv4/vs/expire_nodest_conn"
_PROBES_AT_ONCE = 32


def facts_of(
    cluster: RunningLab,
    asked: Asked,
    director: str,
    kind: str,
    see: Callable[[str], NodeView],
    now: Reading,
) -> ClusterFacts:
    """Examine a cluster that has not answered a request, as its forwarding methods ask for.

    The servers are of that ``kind`` in ``lab.yaml``; ``see`` returns a node's own view of the network;
    ``now`` is a reading of the director.
    """
    service = asked.service
    family = ip_address(service.destinations[0].address).version if service.destinations else 4
    reachable = {
        str(own): card
        for card in cluster.lab.nodes[director].interfaces.values()
        for own in card.addresses
        if own.version == family
    }
    expected = table_of_steps(cluster, director)
    forwarding = {
        server.address: server.forwarding for found in (*expected, service) for server in found.destinations
    }
    # As the director has it, whose tunnels need not be those of the steps.
    present = next((found for found in now.rules if str(found) == str(service)), service)
    of_present = replace(asked, service=present)
    gateways, examinations = set[str](), list[Callable[[], ServerFacts]]()
    for name, node in cluster.lab.real_servers.items():
        address = examined_address(map(str, node.addresses), service)
        if address is None:
            continue  # of another service
        seen, method = see(name), method_for(forwarding[address])
        examinations += [
            partial(_examined, method, seen, name, address, served.port, of_present)
            for served in node.services
            if served.kind == kind
        ]
        for card in node.interfaces.values():
            gateways |= {here for here, theirs in reachable.items() if theirs.network == card.network}
    # Many at a time: where no server answers, each of them is waited for.
    with ThreadPoolExecutor(_PROBES_AT_ONCE) as workers:
        servers = tuple(workers.map(lambda examine: examine(), examinations))
    own_view = see(director)
    there = route_to(own_view, asked.target) if asked.target else None
    listing = own_view.output("ip -o addr show")
    surroundings = around.examine(cluster.lab, see, director, asked, present)
    return ClusterFacts(
        virtual_service=str(service),
        director_address=min(gateways, default=""),
        expected=expected,
        observed=now.rules,
        servers=servers,
        ip_forward=now.ip_forward if family == 4 else _ipv6_forwarding(own_view),
        target=asked.target,
        client=asked.client,
        director_addresses=frozenset(addresses(listing)),
        has_virtual=there.kind == "local" if there else None,
        has_duplicate=asked.target in refused_addresses(listing),
        diverted=diverted(cluster, asked, see),
        around=surroundings.findings,
        nodes=surroundings.nodes,
    )


def _examined(
    method: Method, seen: NodeView, name: str, address: str, port: int, asked: Asked
) -> ServerFacts:
    """Examine a real server by ``method``; a virtual machine may be dead, or hang."""
    try:
        return method.examine(seen, name, address, port, asked)
    except BootError as error:
        return ServerFacts(name, address, port, method.name, unexamined=error.message)


def examined_address(own: Iterable[str], service: Service) -> str | None:
    """Return the address of a real server's ``own`` that ``service`` sends to, or None."""
    servers = {server.address for server in service.destinations}
    return next((address for address in own if address in servers), None)


def void_entry(cluster: RunningLab, director: str, own: str) -> Finding | None:
    """Find the director's entry for the client's end ``own`` whose real server was removed.

    None where there is no such entry, or its server is in the table.
    """
    now = read_director(cluster, director, ("rules", "entries"))
    known = next((entry for entry in now.tracked if entry.client == own), None)
    if known is None or any(
        known.server in (str(server), endpoint(server.address, 0))
        or (server.port == 0 and server.address == address_of(known.server))
        for service in now.rules
        if service.protocol in (known.protocol, "fwmark")
        for server in service.destinations
    ):
        return None
    value = cluster.observe(director, f"cat {_EXPIRE_NODEST} 2> /dev/null; :").strip() or "not known"
    drops = f", so it drops the packets until the entry expires in {known.expires} s" if value == "0" else ""
    return Finding(
        f"the director's entry for {own} still points to {known.server}, a real server that was removed; "
        f"net.ipv4.vs.expire_nodest_conn is {value}{drops}",
        "set it to 1, and the director forgets such an entry when a packet comes for it; a new connection, "
        "or a datagram from another port, is scheduled at once",
    )


def _ipv6_forwarding(seen: NodeView) -> int | None:
    value = seen.read("/proc/sys/net/ipv6/conf/all/forwarding").strip()
    return int(value) if value.isdecimal() else None


def diverted(cluster: RunningLab, asked: Asked, see: Callable[[str], NodeView]) -> dict[str, str]:
    """Return the nodes that use a real server's hardware address for the virtual address.

    Each is mapped to the real server's name. Of nodes, the clients and routers are looked at, as far as they
    are Mininet hosts.
    """
    lab = cluster.lab
    if not asked.target or not any(
        method_for(server.forwarding).vip_on_real_servers for server in asked.service.destinations
    ):
        return {}
    owners = dict[str, str]()
    for name in lab.real_servers:
        with suppress(BootError):  # a virtual machine that does not answer tells no addresses
            owners |= dict.fromkeys(macs(see(name).output("ip -o link show")), name)
    found = dict[str, str]()
    for name, node in lab.nodes.items():
        if node.role not in ("client", "router") or not cluster.is_enterable(name):
            continue
        mac = neighbour_mac(see(name).output(f"ip neigh show {asked.target}"))
        if mac in owners:
            found[name] = owners[mac]
    return found


def macs(listing: str) -> list[str]:
    """Return the hardware addresses of Ethernet cards in a listing of ``ip -o link show``."""
    return [card.mac for card in parse_links(listing) if card.mac]
