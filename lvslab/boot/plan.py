"""The plan of a lab to boot, for its supervisor: names, numbers and command lines, without effects."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvslab.lab.directors import USUAL, DirectorSpec

if TYPE_CHECKING:
    from lvslab.lab.directors import DirectorKind
    from lvslab.lab.model import InterfaceAddress, Lab, Node, Service
    from lvslab.lab.rules import Address


@dataclass(frozen=True)
class Card:
    """A network card: its name in the node, its network, its MAC, and its address with prefix length.

    ``port`` is what it is plugged into: a bridge port that holds the network's name, as Mininet asks for.
    """

    name: str
    network: str
    port: str
    mac: str
    address: InterfaceAddress
    gateway: Address | None


@dataclass(frozen=True)
class Host:
    """A node that is a Mininet host."""

    name: str
    cards: tuple[Card, ...]
    services: tuple[Service, ...]


@dataclass(frozen=True)
class Management:
    """A guest's way in: a tap that is in none of the lab's networks, with an address at each end."""

    tap: str
    mac: str
    here: InterfaceAddress
    there: InterfaceAddress

    @property
    def mac_here(self) -> str:
        """The MAC of the tap. The same in every lab: a copied guest remembers whom it has talked to."""
        return self.mac.replace("02:4c:56:ff:", "02:4c:56:fe:")

    @property
    def server(self) -> tuple[str, int]:
        """Address and port of the guest's SSH server."""
        return str(self.there.ip), 22


@dataclass(frozen=True)
class Boot:
    """A kernel and the guest image that goes with it: what a virtual machine boots.

    ``kernel`` and ``initrd`` are files, and ``identity`` changes whenever the content of one of them does.
    ``image_kind`` is the form of the image ("initramfs" or "ext2"), ``nic`` the model of the network cards
    as QEMU calls it, and ``memory`` what kernel and image usually get, in MiB.
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
    """A node that is a virtual machine with ``memory`` in MiB."""

    name: str
    cards: tuple[Card, ...]
    boot: Boot
    memory: int
    management: Management
    services: tuple[Service, ...] = ()


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
    """Role and addresses of each node in the order of lab.yaml, as ``lab.status`` shows them."""
    return {
        name: {
            "role": node.role,
            "addresses": {card: str(interface.address) for card, interface in node.interfaces.items()},
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
        Host(name, _cards(lab, name, node), node.services)
        for name, node in lab.nodes.items()
        if name not in virtual
    )


def guests_of(lab: Lab, boots: Mapping[str, Boot]) -> tuple[Guest, ...]:
    """Return the virtual machines of ``lab``; ``boots`` has what each of them boots, by name."""
    named = [(name, node) for name, node in lab.nodes.items() if name in boots]
    return tuple(
        Guest(
            name=name,
            cards=_cards(lab, name, node),
            boot=boots[name],
            memory=node.memory or boots[name].memory,
            management=_management(number),
            services=node.services,
        )
        for number, (name, node) in enumerate(named)
    )


def resolvers_of(lab: Lab) -> tuple[str, ...]:
    """Return addresses of name servers on port 53, at most three (MAXNS in glibc's resolv.h)."""
    found = [
        str(address)
        for node in lab.nodes.values()
        if any(service.kind == "dns" and service.port == 53 for service in node.services)
        for address in node.addresses
    ]
    return tuple(found[:3])


def guest_setup(guest: Guest, *, seconds: int, seed: str) -> str:
    """Return the shell command that sets a booted or resumed guest up as its node.

    That is its clock (``seconds`` since 1970), random numbers of its own (``seed``, 64 hexadecimal digits),
    its name, its network cards with their MACs and addresses, and the way in. The guest's kernel has
    numbered its cards in the order of QEMU's command line, eth0 and up; the last one is for management.
    """
    # An emulated guest needs some 8 ms to start busybox, which is one static file, and 30 to 100 ms for
    # iproute2's ip with its nine libraries; what the shell does by itself costs next to nothing.
    way_in = guest.management
    commands = [
        guest_renewal(seconds=seconds, seed=seed),
        f"echo {guest.name} > /etc/hostname",
        f"echo {guest.name} > /proc/sys/kernel/hostname",
        f"echo 127.0.1.1 {guest.name} >> /etc/hosts",
        f"manage eth{len(guest.cards)} {way_in.there} {way_in.mac}",
    ]
    renamed = [(f"eth{n}", card.name) for n, card in enumerate(guest.cards) if card.name != f"eth{n}"]
    # In two rounds, since one card's new name may be another's old one.
    for old, _ in renamed:
        commands += [f"link_down {old}", f"busybox ip link set {old} name new-{old}"]
    commands += [f"busybox ip link set new-{old} name {new}" for old, new in renamed]
    for card in guest.cards:
        commands.append(f"busybox ip link set {card.name} address {card.mac}")
        address = f"busybox ip address add {card.address} dev {card.name}"
        if card.address.version == 6:
            # For IPv6 as for hosts (`ip_lines`), but busybox knows no "nodad".
            address = f"echo 0 > /proc/sys/net/ipv6/conf/{card.name}/accept_dad && {address}"
        commands.append(_if_able(card.address, address))
        commands.append(f"link_up {card.name}")
    for card in guest.cards:
        if card.gateway is not None:
            route = f"busybox ip route add default via {card.gateway} dev {card.name}"
            commands.append(_if_able(card.gateway, route))
    return " && ".join(commands)


def _if_able(address: Address | InterfaceAddress, command: str) -> str:
    """Return ``command``, skipped for an IPv6 address in a guest without IPv6."""
    return f"{{ [ ! -e /proc/net/if_inet6 ] || {{ {command}; }}; }}" if address.version == 6 else command


def guest_renewal(*, seconds: int, seed: str) -> str:
    """Return the part of the set-up that two guests of one snapshot need: clock and random numbers."""
    # Status 22, EINVAL: a kernel before 4.17 has no such request, and needs none.
    reseed = f"{{ /etc/lvslab/reseed {seed} > /dev/urandom || [ $? = 22 ]; }}"
    # Linux 2.4 has no clock_settime(2), which date uses, and busybox's date ends with 0 all the same.
    clock = "/etc/lvslab/clock"
    return f"if [ -x {clock} ]; then {clock} {seconds}; else date -u -s @{seconds}; fi && {reseed}"


def ip_lines(cards: tuple[Card, ...]) -> list[str]:
    """Return the lines for ``ip -batch`` that bring cards up with addresses and default routes."""
    lines = []
    for card in cards:
        # IPv6 addresses are usable at once only without duplicate address detection, and a lab has no
        # duplicates.
        nodad = " nodad" if card.address.version == 6 else ""
        lines.append(f"address add {card.address} dev {card.name}{nodad}")
        lines.append(f"link set {card.name} up")
    for card in cards:
        if card.gateway is not None:
            lines.append(f"route add default via {card.gateway} dev {card.name}")
    return lines


def _cards(lab: Lab, name: str, node: Node) -> tuple[Card, ...]:
    number = list(lab.nodes).index(name)
    return tuple(
        Card(
            name=own_name,
            network=interface.network,
            port=f"{interface.network}-{number}.{index}",
            # Locally administered; the middle octets are "LVS" as far as they fit.
            mac=f"02:4c:56:{number >> 8:02x}:{number & 255:02x}:{index:02x}",
            address=lab.interface_address(interface),
            gateway=interface.gateway,
        )
        for index, (own_name, interface) in enumerate(node.interfaces.items())
    )


def _management(number: int) -> Management:
    # Link-local (RFC 3927), which no lab's network is: a block of four addresses for each guest.
    block = ipaddress.ip_network((int(ipaddress.IPv4Address("169.254.100.0")) + 4 * number, 30))
    here, there = (ipaddress.ip_interface((address, 30)) for address in block.hosts())
    return Management(f"mgmt_{number}", f"02:4c:56:ff:{number >> 8:02x}:{number & 255:02x}", here, there)
