from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path

import pytest

from lvslab.boot import plan
from lvslab.boot.net import taps
from lvslab.boot.plan import Boot, Card, Guest
from lvslab.errors import CommandFailed

CARD = Card("eth0", "lan", "lan-0.0", "02:4c:56:00:00:00", (ip_interface("10.0.0.1/24"),))
BOOT = Boot(Path("k"), "6.1", Path("i"), "identity")


def guest(number: int, *cards: Card) -> Guest:
    return Guest(f"d{number}", cards, BOOT, 192, plan._management(number))


def test_one_call_makes_all_taps(program: Callable[[str, str], Path], tmp_path: Path) -> None:
    program("ip", f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncat >> {tmp_path}/lines\n')
    first, second = guest(0, CARD), guest(1)
    taps.make([first, second])
    assert (tmp_path / "calls").read_text() == "-batch -\n"
    here, there = first.management, second.management
    assert (tmp_path / "lines").read_text().splitlines() == [
        "link set lo up",
        "tuntap add dev lan-0.0 mode tap",
        f"tuntap add dev {here.tap} mode tap",
        f"address add {here.here} dev {here.tap}",
        f"link set {here.tap} address 02:4c:56:fe:00:00 up",
        f"tuntap add dev {there.tap} mode tap",
        f"address add {there.here} dev {there.tap}",
        f"link set {there.tap} address 02:4c:56:fe:00:01 up",
    ]


def test_what_ip_refuses_is_told(program: Callable[[str, str], Path]) -> None:
    program("ip", "#!/bin/sh\ncat >/dev/null\necho 'Cannot find device \"x\"' >&2\nexit 1\n")
    with pytest.raises(CommandFailed, match="ip ended with status 1") as caught:
        taps.ip_batch(["link set x up"])
    assert caught.value.hint == 'Cannot find device "x"'
