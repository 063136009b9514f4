"""The plan of a lab to boot, for its supervisor: names, numbers and command lines, without effects."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab.boot.impairments import NONE, Impairment
from lvslab.lab.directors import USUAL, DirectorSpec

if TYPE_CHECKING:
    from lvslab.lab.directors import DirectorKind
    from lvslab.lab.model import Lab, Node, Service
    from lvslab.lab.rules import Address, InterfaceAddress


USUAL_MTU = 1500
"""The MTU of interfaces in bytes where ``lab.yaml`` does not say another (ETH_DATA_LEN of Linux)."""


@dataclass(frozen=True)
class Route:
    """A route through a card: ``to`` is a subnet, or "default"."""

    to: str
    via: Address


@dataclass(frozen=True)
class Card:
    """A network card of a node.

    ``port`` is the bridge port that it is plugged into; its name begins with the network's, as Mininet asks.
    ``mtu`` is None for the usual 1500 bytes.
    """

    name: str
    network: str
    port: str
    mac: str
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[Route, ...] = ()
    mtu: int | None = None
    impairment: Impairment = NONE

    @property
    def is_ipv6(self) -> bool:
        """True if one of the addresses is an IPv6 address."""
        return any(address.version == 6 for address in self.addresses)


@dataclass(frozen=True)
class Host:
    """A node that is a Mininet host. It ``forwards`` packets if it is a router."""

    name: str
    cards: tuple[Card, ...]
    services: tuple[Service, ...]
    forwards: bool = False


@dataclass(frozen=True)
class Management:
    """A guest's management link: a tap outside of the lab's networks, with an address at each end."""

    tap: str
    mac: str
    here: InterfaceAddress
    there: InterfaceAddress

    @property
    def mac_here(self) -> str:
        """The MAC of the tap, the same in every lab: a copied guest remembers its neighbour."""
        return self.mac.replace("02:4c:56:ff:", "02:4c:56:fe:")

    @property
    def server(self) -> tuple[str, int]:
        """Address and port of the guest's SSH server."""
        return str(self.there.ip), 22


@dataclass(frozen=True)
class Boot:
    """The kernel and the guest image that a virtual machine boots.

    ``kernel`` and ``initrd`` are files; ``identity`` changes with the content of either. ``image_kind`` is
    the form of the image ("initramfs" or "ext2"), ``nic`` QEMU's name of the network cards' model, and
    ``memory`` the usual memory of kernel and image in MiB.
    """

    kernel: Path
    release: str
    initrd: Path
    identity: str
    image_kind: str = "initramfs"
    nic: str = "virtio-net-pci"
    memory: int = 192


@dataclass(frozen=True)
class Guest:
    """A node that is a virtual machine with ``memory`` in MiB. It ``forwards`` packets if it is a router."""

    name: str
    cards: tuple[Card, ...]
    boot: Boot
    memory: int
    management: Management
    services: tuple[Service, ...] = ()
    forwards: bool = False


@dataclass(frozen=True)
class Plan:
    """One lab to boot under ``name``, with its evidence in ``evidence``; ``nodes`` as from ``nodes_of``.

    ``servers`` are archives of the programs that the hosts' services need, by kind; ``resolvers`` are the
    addresses of name servers that all hosts ask. If ``copyable``, its guests can be copied while they run.
    ``copies`` are descriptors of the memory and the state from which its guests (by name) are to begin, in
    place of their set-up. ``versions`` are of the directors' programs and kernel, ``spec`` is what they were
    asked to be, ``record`` is for commands that attach to the lab (see ``lvslab.cluster.record``).
    """

    name: str
    lab: str
    folder: Path
    networks: tuple[str, ...]
    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...]
    servers: Mapping[str, Path]
    host_key: bytes
    client_key: str
    evidence: Path
    cold: bool
    nodes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    resolvers: tuple[str, ...] = ()
    copyable: bool = False
    copies: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    spec: DirectorSpec = USUAL
    record: bytes = b""

    @property
    def messages(self) -> Path:
        """The file that the supervisor prints to, for when something fails."""
        return self.evidence / "supervisor.log"


def nodes_of(lab: Lab) -> dict[str, dict[str, Any]]:
    """Return role and addresses of each node, in the order of lab.yaml, for ``lab.status``.

    ``addresses`` has the first address of each card, ``all_addresses`` a list of all.
    """
    return {
        name: {
            "role": node.role,
            "addresses": {card: str(interface.address) for card, interface in node.interfaces.items()},
            "all_addresses": {
                card: [str(address) for address in interface.addresses]
                for card, interface in node.interfaces.items()
            },
        }
        for name, node in lab.nodes.items()
    }


def virtual_machines(lab: Lab, directors: DirectorKind = "qemu") -> tuple[str, ...]:
    """Return the names of nodes with own kernels, except directors that are Mininet hosts."""
    return tuple(
        name for name, node in lab.virtual_machines.items() if node.role != "director" or directors == "qemu"
    )


def hosts_of(lab: Lab, directors: DirectorKind = "qemu") -> tuple[Host, ...]:
    """Return the Mininet hosts of ``lab``: every node that is not a virtual machine."""
    virtual = virtual_machines(lab, directors)
    return tuple(
        Host(name, _cards(lab, name, node), node.services, node.role == "router")
        for name, node in lab.nodes.items()
        if name not in virtual
    )


def guests_of(lab: Lab, boots: Mapping[str, Boot]) -> tuple[Guest, ...]:
    """Return the virtual machines of ``lab``, which are those in ``boots``."""
    named = [(name, node, boots[name]) for name, node in lab.nodes.items() if name in boots]
    return tuple(
        Guest(
            name,
            _cards(lab, name, node),
            boot,
            node.memory or boot.memory,
            _management(number),
            node.services,
            node.role == "router",
        )
        for number, (name, node, boot) in enumerate(named)
    )


def resolvers_of(lab: Lab) -> tuple[str, ...]:
    """Return addresses for /etc/resolv.conf: servers on port 53, at most 3 (MAXNS in glibc's resolv.h)."""
    services = ((node, service) for node in lab.nodes.values() for service in node.services)
    asked = [node for node, service in services if service.kind == "dns" and service.port == 53]
    return tuple(str(address) for node in asked for address in node.addresses)[:3]


def network_mtus(plan: Plan) -> dict[str, int]:
    """Return the MTU of each network's bridge ports: the largest of its cards, 1500 at least."""
    found = dict.fromkeys(plan.networks, USUAL_MTU)
    cards = [card for host in plan.hosts for card in host.cards]
    for card in (*cards, *(card for guest in plan.guests for card in guest.cards)):
        found[card.network] = max(found[card.network], card.mtu or USUAL_MTU)
    return found


def guest_setup(guest: Guest, *, seconds: int, seed: str) -> str:
    """Return the shell command that sets a booted or resumed guest up as its node.

    It sets the clock (``seconds`` since 1970), random numbers (``seed``, 64 hexadecimal digits), the name,
    and the network cards with MACs and addresses. The guest's kernel has numbered the cards from eth0 in the
    order of QEMU's command line; the last one is for management.
    """
    # An emulated guest needs some 8 ms to start busybox, which is one static file, and 30 to 100 ms for
    # iproute2's ip with its nine libraries; the shell's own commands cost next to nothing.
    commands = [
        guest_renewal(seconds=seconds, seed=seed),
        f"echo {guest.name} > /etc/hostname",
        f"echo {guest.name} > /proc/sys/kernel/hostname",
        # A lab's own file may not end with a newline.
        f"printf '\\n127.0.1.1 %s\\n' {guest.name} >> /etc/hosts",
        f"manage eth{len(guest.cards)} {guest.management.there} {guest.management.mac}",
    ]
    renamed = [(f"eth{n}", card.name) for n, card in enumerate(guest.cards) if card.name != f"eth{n}"]
    # In two rounds: one card's new name may be another's old one.
    for old, _ in renamed:
        commands += [f"link_down {old}", f"busybox ip link set {old} name new-{old}"]
    commands += [f"busybox ip link set new-{old} name {new}" for old, new in renamed]
    for card in guest.cards:
        mtu = "" if card.mtu is None else f" mtu {card.mtu}"
        commands.append(f"busybox ip link set {card.name} address {card.mac}{mtu}")
        if card.is_ipv6:
            # As for hosts (`ip_lines`), but busybox lacks "nodad".
            commands.append(_if_able(6, f"echo 0 > /proc/sys/net/ipv6/conf/{card.name}/accept_dad"))
        commands += [
            _if_able(address.version, f"busybox ip address add {address} dev {card.name}")
            for address in card.addresses
        ]
        commands.append(f"link_up {card.name}")
    commands += [
        _if_able(route.via.version, f"busybox ip route add {route.to} via {route.via} dev {card.name}")
        for card in guest.cards
        for route in card.routes
    ]
    if guest.forwards:
        commands += ["echo 1 > /proc/sys/net/ipv4/ip_forward"]
        commands += [_if_able(6, "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")]
    return " && ".join(commands)


def guest_impairments(guest: Guest) -> str:
    """Return the shell command that impairs what a guest sends, "" for none."""
    if not (lines := tc_lines(guest.cards)):
        return ""
    return f"printf '%s\\n' {' '.join(map(shlex.quote, lines))} | tc -batch -"


def _if_able(version: int, command: str) -> str:
    """Return ``command``, skipped for the IP ``version`` 6 in a guest without IPv6."""
    return f"{{ [ ! -e /proc/net/if_inet6 ] || {command}; }}" if version == 6 else command


def guest_renewal(*, seconds: int, seed: str) -> str:
    """Return the set-up that each guest of one snapshot needs: clock and random numbers."""
    # Status 22, EINVAL: a kernel before 4.17 lacks this request, and does not need it.
    reseed = f"{{ /etc/lvslab/reseed {seed} > /dev/urandom || [ $? = 22 ]; }}"
    # Linux 2.4 has no clock_settime(2), which date uses, and busybox's date ends with 0 all the same.
    clock = "/etc/lvslab/clock"
    return f"if [ -x {clock} ]; then {clock} {seconds}; else date -u -s @{seconds}; fi && {reseed}"


def ip_lines(cards: tuple[Card, ...]) -> list[str]:
    """Return the lines for ``ip -batch`` that bring cards up with addresses and routes."""
    lines = list[str]()
    for card in cards:
        for address in card.addresses:
            # An IPv6 address is usable at once only without duplicate address detection.
            nodad = " nodad" if address.version == 6 else ""
            lines.append(f"address add {address} dev {card.name}{nodad}")
        lines.append(f"link set {card.name} up")
    return lines + [
        f"route add {route.to} via {route.via} dev {card.name}" for card in cards for route in card.routes
    ]


def cards_of(lab: Lab, name: str) -> tuple[Card, ...]:
    """Return the network cards of the node ``name``."""
    return _cards(lab, name, lab.nodes[name])


def tc_lines(cards: tuple[Card, ...]) -> list[str]:
    """Return the lines for ``tc -batch`` that impair cards."""
    return [line for card in cards for line in card.impairment.lines(card.name, card.mtu or USUAL_MTU)]


def _cards(lab: Lab, name: str, node: Node) -> tuple[Card, ...]:
    number, static = list(lab.nodes).index(name), _static_routes(lab, node)
    return tuple(
        Card(
            name=own_name,
            network=interface.network,
            port=f"{interface.network}-{number}.{index}",
            # Locally administered; the middle octets are "LVS" as far as they fit.
            mac=f"02:4c:56:{number >> 8:02x}:{number & 255:02x}:{index:02x}",
            addresses=lab.interface_addresses(interface),
            routes=tuple(Route("default", gateway) for gateway in interface.gateways) + static[own_name],
            mtu=interface.mtu,
            impairment=Impairment(interface.loss, interface.delay, interface.rate),
        )
        for index, (own_name, interface) in enumerate(node.interfaces.items())
    )


def _static_routes(lab: Lab, node: Node) -> dict[str, tuple[Route, ...]]:
    """Return a node's static routes by interface: the first one with an address in the router's subnet."""
    found: dict[str, tuple[Route, ...]] = dict.fromkeys(node.interfaces, ())
    for route in node.routes:
        card = next(
            name
            for name, interface in node.interfaces.items()
            if any(route.via in address.network for address in lab.interface_addresses(interface))
        )
        found[card] += (Route(str(route.to), route.via),)
    return found


def _management(number: int) -> Management:
    # A block of four link-local addresses (RFC 3927) for each guest.
    block = ipaddress.ip_network((int(ipaddress.IPv4Address("169.254.100.0")) + 4 * number, 30))
    here, there = (ipaddress.ip_interface((address, 30)) for address in block.hosts())
    return Management(f"mgmt_{number}", f"02:4c:56:ff:{number >> 8:02x}:{number & 255:02x}", here, there)
