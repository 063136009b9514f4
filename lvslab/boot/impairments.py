"""Queueing disciplines by which a router drops, delays and limits what it sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

KINDS: Mapping[str, tuple[str, ...]] = {"netem": ("loss", "delay"), "tbf": ("rate",)}
"""Queueing disciplines of Linux, with the keys of ``lab.yaml`` that need them."""

_UNITS = {"kbit": 10**3, "mbit": 10**6, "gbit": 10**9}  # tc(8): decimal, in bits per second
# Packets in netem's queue; its default of 1000 would drop some of a fast connection's.
_DELAYED = 10000


@dataclass(frozen=True)
class Impairment:
    """Loss in percent, delay (``20ms``) and rate (``10mbit``) of what a card sends."""

    loss: float | None = None
    delay: str | None = None
    rate: str | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The queueing disciplines of KINDS that it needs."""
        return tuple(
            kind for kind, keys in KINDS.items() if any(getattr(self, key) is not None for key in keys)
        )

    def lines(self, card: str, mtu: int) -> list[str]:
        """Return the lines for ``tc -batch`` that impair a card with this ``mtu``."""
        found, place = list[str](), "root handle 1:"
        if "netem" in self.kinds:
            delay = "" if self.delay is None else f" delay {self.delay}"
            loss = "" if self.loss is None else f" loss {self.loss:g}%"
            found.append(f"qdisc add dev {card} {place} netem limit {_DELAYED}{delay}{loss}")
            place = "parent 1:1 handle 10:"
        if self.rate is not None:
            # A packet must fit into the bucket, which holds 10 ms; 100 ms may wait for it.
            each_second = _bits(self.rate) // 8
            burst = max(each_second // 100, 2 * mtu)
            limit = burst + max(each_second // 10, 10 * mtu)
            found.append(f"qdisc add dev {card} {place} tbf rate {self.rate} burst {burst} limit {limit}")
        return found


NONE = Impairment()


def _bits(rate: str) -> int:
    """Return a rate in bits per second."""
    found = re.fullmatch(r"([0-9.]+)([a-z]+)", rate)
    assert found is not None, rate  # the loader has checked it
    return round(float(found[1]) * _UNITS[found[2]])
