"""Cables in a network namespace, and packets to send over them."""

from __future__ import annotations

import socket
import time

from lvslab.run import run

HEADER = b"\xff" * 6 + bytes.fromhex("024c56000009")
IPV4, ARP = b"\x08\x00", b"\x08\x06"


def cable(*names: str) -> None:
    """Make a silent cable, in this thread's namespace, whose two ends are called ``names``."""
    one, two = names
    run(["ip", "link", "add", one, "type", "veth", "peer", "name", two])
    for name in names:
        run(["ip", "link", "set", name, "addrgenmode", "none", "up"])
    await_carrier(*names)


def await_carrier(*names: str) -> None:
    """Wait until the interfaces ``names`` have a carrier: the kernel silently drops what is sent before."""
    deadline = time.monotonic() + 10
    while any(b"state UP" not in run(["ip", "-o", "link", "show", name]).stdout for name in names):
        assert time.monotonic() < deadline, "the cable has no carrier"


def sender(name: str) -> socket.socket:
    """Open a packet socket that sends at the interface ``name``; the caller closes it."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind((name, 0))
    return opened
