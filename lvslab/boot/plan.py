"""What the supervisor is to boot, worked out beforehand: names, numbers, command lines. No effects here.

A plan is made from a lab's specification outside and handed to the supervisor, which needs to know
nothing of YAML, of packages or of the cache.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lvslab.spec import Interface, Lab, Node

DirectorKind = Literal["qemu", "mininet"]
"""What the directors are: virtual machines with kernels of their own, or Mininet hosts on this machine's."""


@dataclass(frozen=True)
class Card:
    """A network card: its name in the node, its network, MAC and address with prefix length.

    ``port`` is what it is plugged into: a bridge port that holds the network's name, as Mininet asks for.
    """

    name: str
    network: str
    port: str
    mac: str
    address: str
    gateway: str | None


@dataclass(frozen=True)
class Web:
    """A web server on a node."""

    port: int


@dataclass(frozen=True)
class Host:
    """A node that is a Mininet host."""

    name: str
    cards: tuple[Card, ...]
    services: tuple[Web, ...]


@dataclass(frozen=True)
class Management:
    """A guest's way in: a tap that is in none of the lab's networks, with an address at each end."""

    tap: str
    mac: str
    here: str
    there: str

    @property
    def server(self) -> tuple[str, int]:
        """Where the guest's SSH server listens."""
        return self.there.split("/")[0], 22


@dataclass(frozen=True)
class Guest:
    """A node that is a virtual machine. ``memory`` is in MiB; ``kernel`` and ``initrd`` are files.

    ``identity`` changes whenever the content of one of the two does.
    """

    name: str
    cards: tuple[Card, ...]
    kernel: Path
    release: str
    initrd: Path
    identity: str
    memory: int
    management: Management


@dataclass(frozen=True)
class Plan:
    """One lab to boot under ``name``, with its evidence in ``evidence``."""

    name: str
    lab: str
    folder: Path
    networks: tuple[str, ...]
    hosts: tuple[Host, ...]
    guests: tuple[Guest, ...]
    servers: Path | None
    host_key: bytes
    client_key: str
    evidence: Path
    cold: bool


@dataclass(frozen=True)
class Bootable:
    """A kernel and the image that goes with it."""

    kernel: Path
    release: str
    initrd: Path
    identity: str


def hosts_of(lab: Lab, directors: DirectorKind = "qemu") -> tuple[Host, ...]:
    """The Mininet hosts of ``lab``: every node but the directors, and these too where that is their kind."""
    return tuple(
        Host(name, _cards(lab, name, node), tuple(Web(service.port) for service in node.services))
        for name, node in lab.nodes.items()
        if directors == "mininet" or node.role != "director"
    )


def guests_of(lab: Lab, bootables: Mapping[str, Bootable]) -> tuple[Guest, ...]:
    """The virtual machines of ``lab``; ``bootables`` has a kernel for each director by name."""
    return tuple(
        Guest(
            name=name,
            cards=_cards(lab, name, node),
            kernel=bootables[name].kernel,
            release=bootables[name].release,
            initrd=bootables[name].initrd,
            identity=bootables[name].identity,
            memory=node.memory,
            management=_management(number),
        )
        for number, (name, node) in enumerate(lab.directors.items())
    )


def guest_setup(guest: Guest, *, seconds: int, seed: str) -> str:
    """The shell command that makes a booted guest the node it is meant to be, whatever it was resumed from.

    That is its clock (``seconds`` since 1970), random numbers of its own (``seed``, 64 hexadecimal digits),
    its name, its network cards with their MACs and addresses, and the way in. The guest's kernel has
    numbered its cards in the order of QEMU's command line, eth0 and up; the last one is for management.
    """
    numbered = [(f"eth{number}", card) for number, card in enumerate(guest.cards)]
    commands = [
        f"date -u -s @{seconds}",
        # Status 22, EINVAL: a kernel before 4.17 has no such request, and needs none.
        f"{{ /etc/lvslab/reseed {seed} > /dev/urandom || [ $? = 22 ]; }}",
        f"hostname {guest.name}",
        f"echo 127.0.1.1 {guest.name} >> /etc/hosts",
    ]
    manage = f"eth{len(guest.cards)}"
    commands.append(f"/etc/lvslab/manage {manage} {guest.management.there} {guest.management.mac}")
    renamed = [(old, card.name) for old, card in numbered if old != card.name]
    # In two rounds, since one card's new name may be another's old one.
    lines = [f"link set {old} name new-{old}" for old, _ in renamed]
    lines += [f"link set new-{old} name {new}" for old, new in renamed]
    lines += [f"link set {card.name} address {card.mac}" for card in guest.cards]
    batch = shlex.join([*lines, *ip_lines(guest.cards)])
    # One ip for all lines: starting a program is what costs most in an emulated guest.
    return " && ".join([*commands, f"printf '%s\\n' {batch} | ip -batch -"])


def host_setup(host: Host) -> str:
    """The shell script that gives a Mininet host its addresses, and a file system of its own to write to.

    The host's processes see the machine's files; what they change goes to a layer in memory, one for
    each host, and never to the machine; what no layer covers, such as other disks, is read-only. So are
    the kernel's settings, but for those of the network, which are the namespace's own; and ``sysctl -p``
    finds none of the machine's. Forwarding is off: a namespace inherits it from the machine, where it may
    be on.
    """
    layers = "/run/lvslab/nodes/" + host.name
    batch = "\n".join(["link set lo up", *ip_lines(host.cards)])
    return f"""
mountpoint -q / || mount --bind / /
while read -r _ _ _ _ place options _; do
    case $place,$options, in
    /proc*,* | /sys*,* | /run*,* | /dev/pts*,* | *,ro,*) ;;
    *) mount -o remount,bind,ro "$(printf '%b' "$place")" 2>/dev/null || true ;;
    esac
done < /proc/self/mountinfo
for folder in etc root home var srv opt; do
    [ -d /$folder ] || continue
    mkdir -p {layers}/$folder/upper {layers}/$folder/work
    mount -t overlay -o lowerdir=/$folder,upperdir={layers}/$folder/upper,workdir={layers}/$folder/work \\
        {shlex.quote(host.name)} /$folder
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p ~root/.ssh
install -m 600 /run/lvslab/authorized_keys ~root/.ssh/authorized_keys
chmod 700 ~root/.ssh
echo '# sysctl -p reads the settings in this file.' > /etc/sysctl.conf
mount --bind /proc/sys/net /proc/sys/net
mount -o rbind,ro /proc/sys /proc/sys
echo 0 > /proc/sys/net/ipv4/ip_forward
ip -batch - <<'END'
{batch}
END
"""


def ip_lines(cards: tuple[Card, ...]) -> list[str]:
    """The arguments of ``ip`` that bring cards up with their addresses and default routes, a line each."""
    lines = []
    for card in cards:
        # IPv6 addresses are usable at once only without duplicate address detection, and a lab has no
        # duplicates.
        nodad = " nodad" if ":" in card.address else ""
        lines.append(f"address add {card.address} dev {card.name}{nodad}")
        lines.append(f"link set {card.name} up")
    for card in cards:
        if card.gateway is not None:
            lines.append(f"route add default via {card.gateway} dev {card.name}")
    return lines


def _cards(lab: Lab, name: str, node: Node) -> tuple[Card, ...]:
    number = list(lab.nodes).index(name)
    return tuple(
        _card(lab, interface, own_name, number, index)
        for index, (own_name, interface) in enumerate(node.interfaces.items())
    )


def _card(lab: Lab, interface: Interface, own_name: str, number: int, index: int) -> Card:
    return Card(
        name=own_name,
        network=interface.network,
        port=f"{interface.network}-{number}.{index}",
        # Locally administered; the middle octets are "LVS" as far as they fit.
        mac=f"02:4c:56:{number >> 8:02x}:{number & 255:02x}:{index:02x}",
        address=lab.with_prefix(interface),
        gateway=str(interface.gateway) if interface.gateway else None,
    )


def _management(number: int) -> Management:
    block = number * 4
    subnet = f"169.254.{100 + (block >> 8)}.{block & 255}".rsplit(".", 1)[0]
    here, there = (f"{subnet}.{(block & 255) + offset}/30" for offset in (1, 2))
    return Management(f"mgmt_{number}", f"02:4c:56:ff:{number >> 8:02x}:{number & 255:02x}", here, there)
