"""The taps of guests' network cards. They are apart from the network, because guests start first."""

from __future__ import annotations

from collections.abc import Iterable

from lvslab.boot.plan import Guest
from lvslab.run import run


def make(guests: Iterable[Guest]) -> None:
    """Make the taps of ``guests``, and configure the management ends in the lab's own namespace."""
    lines = []
    for guest in guests:
        lines += [f"tuntap add dev {card.port} mode tap" for card in guest.cards]
        way_in = guest.management
        lines.append(f"tuntap add dev {way_in.tap} mode tap")
        lines.append(f"address add {way_in.here} dev {way_in.tap}")
        lines.append(f"link set {way_in.tap} address {way_in.mac_here} up")
    ip_batch(["link set lo up", *lines])


def ip_batch(lines: list[str]) -> None:
    """Run ``ip`` once for many lines of arguments."""
    run(["ip", "-batch", "-"], input="\n".join(lines).encode() + b"\n")
