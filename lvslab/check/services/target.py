"""Targets of requests to virtual services: the kind of server, an address and a port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING

from lvslab.check.ipvs.table import FORWARDING, Destination, Service, endpoint, listed
from lvslab.check.services import guest_client, marks
from lvslab.errors import CheckFailed
from lvslab.lab.model import SERVICES

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

KINDS: Mapping[str, str] = {
    kind: protocol
    for protocol in ("tcp", "udp", "sctp")
    for kind, service in SERVICES.items()
    if service.protocols[0] == protocol
}
"""The protocol of each kind of ``lab.yaml``; where servers have several kinds, the first one is asked."""


_MOST = 4
"""Maximum number of addresses and ports that a message names."""


class NotAsked(CheckFailed):
    """A virtual service that clients of lvslab cannot ask."""


@dataclass(frozen=True)
class Target:
    """A kind of server, and the ``address`` and ``port`` that bring clients to it."""

    kind: str
    address: str
    port: int

    @property
    def protocol(self) -> str:
        """The protocol of the requests."""
        return KINDS[self.kind]

    @property
    def url(self) -> str:
        """The target as a URL."""
        return f"{self.kind}://{endpoint(self.address, self.port)}/"


def target_of(cluster: RunningLab, service: Service, director: str, client: str, port: int = 0) -> Target:
    """Return what ``client`` asks for to reach ``service`` of ``director``.

    The servers' kinds are those of ``lab.yaml``. Of several ports, ``port`` is asked (0 for any). Raises
    NotAsked, with the reason, where there is nothing to ask for.
    """
    if not service.destinations:
        raise NotAsked(f"{service} has no servers", "`ipvsadm -a` adds one")
    if service.protocol == "fwmark":
        return _marked(cluster, service, director, client, port)
    ports = (
        [service.port]
        if service.port
        else sorted({port for server in service.destinations for _, port in _listening(cluster, server)})
    )
    wanted = [(service.protocol, service.address, each) for each in ports if port in (0, each)]
    if not wanted:
        raise NotAsked(f"{service} has no port {port}", f"it has {listed([*map(str, ports)])}")
    return _common(cluster, service, client, wanted)


def _marked(cluster: RunningLab, service: Service, director: str, client: str, port: int) -> Target:
    """Return the target of a service for packets with a mark, by the director's rules."""
    version = 6 if service.ipv6 else 4
    own = [str(found) for found in cluster.lab.nodes[client].addresses if found.version == version]
    if not own:
        raise NotAsked(f"{client} has no IPv{version} address, and {service} is for those")
    rules = cluster.observe(director, marks.command(version))
    ports: dict[str, list[int]] = {}
    for server in service.destinations:
        for kind, listening in _listening(cluster, server):
            ports.setdefault(KINDS[kind], []).append(listening)
    addresses = [*_near_first(cluster, director, client, version)]
    source = str(cluster.lab.source_address(client, ip_address(addresses[0]))) if addresses else own[0]
    way_back = dict(pairwise(cluster.observe(director, f"ip route get {source} 2>&1; :").split()))
    try:
        found = marks.asked_for(
            service.mark,
            rules,
            client=source,
            addresses=addresses,
            ports=ports,
            interface=way_back.get("dev", ""),
            port=port,
        )
    except marks.MarkUnknown as unknown:
        raise NotAsked(unknown.message, unknown.hint) from None
    wanted = [(packet.protocol, packet.address, packet.port) for packet in found]
    return _common(cluster, service, client, wanted)


def _near_first(cluster: RunningLab, director: str, client: str, version: int) -> Iterator[str]:
    """Yield the director's addresses, those on a network of the client's first."""
    lab = cluster.lab
    cards = lab.nodes[client].interfaces.values()
    near = [subnet for card in cards for subnet in lab.networks[card.network].subnets]
    own = [address for address in lab.nodes[director].addresses if address.version == version]
    yield from map(str, sorted(own, key=lambda address: not any(address in network for network in near)))


def _common(
    cluster: RunningLab, service: Service, client: str, wanted: Sequence[tuple[str, str, int]]
) -> Target:
    """Return the first of ``wanted`` (protocol, address, port) that all servers of ``service`` answer.

    Kinds come in the order of KINDS.
    """
    for kind, protocol in KINDS.items():
        for by, address, port in wanted:
            if by == protocol and all(
                (kind, _reached(service, server, port)) in _listening(cluster, server)
                for server in service.destinations
            ):
                _check_machine(cluster, kind, service, client)
                return Target(kind, address, port)
    unknown = [server.address for server in service.destinations if not _listening(cluster, server)]
    if unknown:
        raise NotAsked(
            f"lab.yaml has no server with the address {listed(unknown)}, a destination of {service}"
        )
    asked = dict.fromkeys(f"{endpoint(address, port)} ({by})" for by, address, port in wanted)
    reaches = f"; requests that reach {service}: {listed([*asked][:_MOST])}" if wanted else ""
    raise NotAsked(
        f"the servers of {service} have no service in lab.yaml in common that it reaches",
        f"kinds that lvslab asks for: {', '.join(KINDS)}{reaches}",
    )


def _check_machine(cluster: RunningLab, kind: str, service: Service, client: str) -> None:
    """Raise NotAsked where the kernel or the programs of ``client`` cannot ask for ``kind``."""
    if not cluster.is_enterable(client):
        if kind not in guest_client.KINDS:
            raise NotAsked(
                f"{client} is a virtual machine, and requests of kind {kind} are made on Mininet hosts",
                f"kinds that virtual machines ask for: {', '.join(guest_client.KINDS)}",
            )
        if not guest_client.can_ask(cluster, client):
            raise NotAsked(f"{client} has no socat to ask {service} with", "give it a current kernel")
        return
    if kind != "sctp":
        return
    from lvslab.check.traffic import greeting  # only where it is asked: it imports smtplib

    if not greeting.sctp_here():
        raise NotAsked(
            f"{client} cannot ask {service}: this machine's kernel does not have SCTP",
            "load the module sctp, use a machine that has it, or give a client a kernel of its own",
        )


def _reached(service: Service, server: Destination, port: int) -> int:
    """Return the server's port that a request for ``port`` comes to."""
    if service.persistent is not None and not service.port:
        # Then only a service's own port is mapped: ip_vs_sched_persist (ip_vs_core.c, 2.4.37.11 to 6.1).
        return port
    return server.port if server.port and FORWARDING[server.forwarding].maps_ports else port


def _listening(cluster: RunningLab, server: Destination) -> list[tuple[str, int]]:
    """Return kind and port of the services in lab.yaml at the server's address."""
    address = ip_address(server.address)
    return [
        (service.kind, service.port)
        for node in cluster.lab.nodes.values()
        if address in node.addresses
        for service in node.services
        if service.kind in KINDS
    ]
