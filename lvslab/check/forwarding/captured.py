"""Captures at a running director's cards, to be compared by `exact`."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from lvslab.boot.net import packets, pcapng
from lvslab.boot.plan import cards_of
from lvslab.check.forwarding import exact
from lvslab.check.forwarding.decode import decode
from lvslab.check.forwarding.flow import Way
from lvslab.check.forwarding.fragments import Reassembly
from lvslab.check.forwarding.tunneling import Tunnel
from lvslab.check.ipvs.director import read_director
from lvslab.check.ipvs.table import Service
from lvslab.errors import CheckFailed
from lvslab.kernel.catalogue import numbers

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

ROOM = 32 << 20
"""Bytes of the kernel's queue for one card: some 40000 small packets."""
_PMTU_DISC = "if [ -e /proc/sys/net/ipv4/vs/pmtu_disc ]; then cat /proc/sys/net/ipv4/vs/pmtu_disc; fi"
PATIENCE = 1.0
"""Seconds without any packet for which a packet without a partner is waited for."""
_SIGNS_OF_LIFE = 3


class CapturedPackets:
    """Packets at a director's cards within a block.

    ``name`` is the director's, ``service`` one of its services, or "" for all. The block ends when each
    packet that arrived has left again, or did not do so in time. ``marked`` are the virtual addresses and
    ports of services that are firewall marks, by mark.
    """

    def __init__(
        self,
        cluster: RunningLab,
        name: str,
        service: str = "",
        marked: Mapping[int, Sequence[exact.End]] | None = None,
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._service = service
        self._marked = {mark: tuple(ends) for mark, ends in (marked or {}).items()}
        self._opened = ExitStack()
        self._seen: list[exact.Seen] = []
        self._fragments = Reassembly()
        self._dropped = 0

    def __enter__(self) -> Self:
        self._director = director_of(self._cluster, self._name, self._service, self._marked)
        self._gue_ports = frozenset(
            port for service in self._director.services for port in gue_ports(service)
        )
        self._interfaces = self._cluster.capture(self._name, room=ROOM)
        for each in self._interfaces:
            self._opened.enter_context(each)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._settle()
                self._dropped = sum(each.count().dropped for each in self._interfaces)
        finally:
            self._opened.close()

    @property
    def seen(self) -> tuple[exact.Seen, ...]:
        """The packets so far, decoded, in the order of time."""
        return tuple(self._seen)

    def match(self) -> exact.Compared:
        """Compare every packet of the services with what the forwarding method makes. Raises CheckFailed."""
        if self._dropped:
            raise CheckFailed(
                f"{self._dropped} packets at {self._name} were not captured for want of room",
                "compare fewer packets in one block",
            )
        return exact.packets_match(self._director, self._seen)

    def _settle(self) -> None:
        """Read packets until none is on its way any more."""
        waiting = select.poll()
        for each in self._interfaces:
            waiting.register(each, select.POLLIN)
        self._read()
        while exact.compare_all(self._director, self._seen).waiting:
            # A director that is short of processor time sends late. It has handled what came before when a
            # program of its own runs, since packets come first.
            deadline, quiet = time.monotonic() + PATIENCE, 0
            while not self._read():
                if (left := deadline - time.monotonic()) > 0:
                    waiting.poll(left * 1000)
                elif quiet == _SIGNS_OF_LIFE:
                    return
                else:
                    quiet += 1
                    self._cluster.observe(self._name, ":")

    def _read(self) -> bool:
        """Read what has come, and return whether that was anything."""
        came = False
        for packet in packets.read(self._interfaces):
            came = True
            place = packet.interface, packet.direction
            if (data := self._fragments.whole(place, packet.data)) is None:
                continue
            found = decode(data, unfinished=packet.unfinished, gue_ports=self._gue_ports)
            if found is not None:
                card, sent = self._interfaces[packet.interface].name, packet.direction == pcapng.OUTBOUND
                self._seen.append(exact.Seen(found, packet.moment, card, sent))
        return came


def director_of(
    cluster: RunningLab, name: str, service: str, marked: Mapping[int, tuple[exact.End, ...]]
) -> exact.Director:
    """Describe a running director, with its ``service``, or with all. Raises CheckFailed."""
    table = read_director(cluster, name, ("rules",)).rules
    services = tuple(each for each in table if service in ("", str(each)))
    if not services:
        there = ", ".join(map(str, table)) or "none"
        raise CheckFailed(f"{name} has no virtual service {service or 'at all'}", f"there is {there}")
    return exact.Director(
        cards={card.name: card.mac for card in cards_of(cluster.lab, name)},
        way_to=ways(cluster, name),
        kernel=numbers(cluster.versions.get("kernel", "")),
        services=services,
        marked=marked,
        copies_df=cluster.observe(name, _PMTU_DISC).strip() != "0",
    )


def gue_ports(service: Service) -> Iterable[int]:
    """Yield the UDP ports to which ``service`` sends packets in GUE."""
    for destination in service.destinations:
        if port := Tunnel.of(destination.tunnel).port:
            yield port


def ways(cluster: RunningLab, name: str) -> Callable[[str], Way]:
    """Return a function that asks the director ``name`` for its way to an address.

    The card and the next hop are those of the director's routes; MACs are those that the lab gave to cards,
    and not what the director believes, so that a packet for the wrong neighbour is noticed.
    """
    macs = {card.name: card.mac for card in cards_of(cluster.lab, name)}
    owners = {
        (interface.network, str(address)): card.mac
        for node_name, node in cluster.lab.nodes.items()
        for card, interface in zip(cards_of(cluster.lab, node_name), node.interfaces.values(), strict=True)
        for address in interface.addresses
    }
    networks = {card: interface.network for card, interface in cluster.lab.nodes[name].interfaces.items()}

    @cache
    def mtu_of(card: str) -> str:
        return dict(pairwise(cluster.observe(name, f"ip link show dev {card}").split())).get("mtu", "0")

    @cache
    def way_to(address: str) -> Way:
        words = cluster.observe(name, f"ip route get {address}").split()
        after = dict(pairwise(words))
        card, source = after.get("dev", ""), after.get("src", "")
        if card not in macs:
            return Way(card, "", "", source)
        mtu = after.get("mtu") or mtu_of(card)
        hop = after.get("via", address)
        mac = owners.get((networks[card], hop)) or _neighbour(cluster, name, hop, card)
        return Way(card, macs[card], mac, source, int(mtu))

    return way_to


def _neighbour(cluster: RunningLab, name: str, address: str, card: str) -> str:
    """Return the MAC that the director has for a neighbour, "" if none."""
    words = cluster.observe(name, f"ip neigh show {address} dev {card}").split()
    return dict(pairwise(words)).get("lladdr", "")
