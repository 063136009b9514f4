"""A connection that a director forwards, and the ways of its packets."""

from __future__ import annotations

from dataclasses import dataclass

from lvslab.check.ipvs.table import Destination, endpoint


@dataclass(frozen=True)
class Way:
    """The way of packets out of the director to one address.

    ``card`` is the director's interface with its MAC ``mac``, ``next_mac`` that of the next hop, ``source``
    the director's own address on this way, and ``mtu`` the way's in bytes, 0 when unknown.
    """

    card: str
    mac: str
    next_mac: str
    source: str = ""
    mtu: int = 0

    @property
    def is_local(self) -> bool:
        """True if the address is the director's own."""
        return self.card == "lo"


@dataclass(frozen=True)
class Flow:
    """A client's connection to a virtual service, and the real server that has it.

    ``protocol`` is tcp, udp or sctp; ``client`` and ``virtual`` are addresses with ports, as the client's
    packets have them. ``there`` is the way to the real server and ``back`` that to the client. ``kernel``
    is the version of the director's. ``copies_df`` is its sysctl pmtu_disc, which is on by default.
    """

    protocol: str
    client: tuple[str, int]
    virtual: tuple[str, int]
    destination: Destination
    there: Way
    back: Way
    kernel: tuple[int, ...]
    copies_df: bool = True

    @property
    def server(self) -> tuple[str, int]:
        """Address and port of the destination.

        Without a port of its own, it has the service's (``ip_vs_schedule``, ip_vs_core.c, 6.1).
        """
        return self.destination.address, self.destination.port or self.virtual[1]

    def __str__(self) -> str:
        return f"{endpoint(*self.client)} to {endpoint(*self.virtual)} ({self.protocol})"
