"""Facts about a cluster that does not answer, and causes found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lvslab.check.ipvs.listing import Counters
from lvslab.check.ipvs.table import Forwarding, Service, endpoint
from lvslab.check.probes import Probe, Route


@dataclass(frozen=True)
class Asked:
    """A request that was not answered: ``client`` asked ``target``, an address of ``service``.

    Both are "" if unknown. ``protocol`` is that of the request; a service for a mark has none of its own.
    """

    service: Service
    target: str = ""
    client: str = ""
    protocol: str = "tcp"


@dataclass(frozen=True)
class ServerFacts:
    """Facts about a real server, which is reached by ``forwarding``.

    ``probe`` is its response to a request for ``address`` and ``port`` made on the server itself, None where
    none was made. ``gateway`` is its default gateway, "" where it has none, None when unknown. ``lacking``
    are the things without which it cannot unpack the packets of a tunnel, as findings.
    ``unexamined`` says why nothing is known, "" where the server was examined.
    """

    name: str
    address: str
    port: int
    forwarding: Forwarding
    probe: Probe | None = None
    gateway: str | None = None
    has_virtual: bool | None = None
    way_back: Route | None = None
    silent_hop: bool = False
    lacking: tuple[Finding, ...] = ()
    unexamined: str = ""

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


@dataclass(frozen=True)
class ClusterFacts:
    """Facts about a cluster whose ``virtual_service`` does not answer.

    ``ip_forward`` is /proc/sys/net/ipv4/ip_forward on the director, None when unknown; ``director_address``
    its address on the real servers' network. ``expected`` is the table that the steps make, ``observed`` the
    kernel's. ``counters`` are what the virtual service's counters gained during the requests, None when
    unknown. ``target`` is the address that the ``client`` asks, and ``director_addresses`` are all that the
    director has; with ``has_virtual``, it takes packets to ``target`` as its own (None when unknown).
    With ``has_duplicate``, its duplicate address detection has found another machine with the ``target``.
    ``diverted`` maps nodes to the real server whose hardware address they use for ``target``. ``around`` are
    causes on the way there and back, and ``nodes`` those that packets pass besides the director. ``losses``
    are packets dropped by filters, as findings: further requests were made to see them.
    """

    virtual_service: str
    director_address: str
    expected: tuple[Service, ...]
    observed: tuple[Service, ...]
    servers: tuple[ServerFacts, ...]
    ip_forward: int | None = None
    counters: Counters | None = None
    target: str = ""
    client: str = ""
    director_addresses: frozenset[str] = frozenset()
    has_virtual: bool | None = None
    has_duplicate: bool = False
    diverted: Mapping[str, str] = field(default_factory=dict)
    around: tuple[Finding, ...] = ()
    nodes: tuple[str, ...] = ()
    losses: tuple[Finding, ...] = ()

    @property
    def service(self) -> Service | None:
        """The failing service as the steps make it, None where they do not."""
        return next((service for service in self.expected if str(service) == self.virtual_service), None)


@dataclass(frozen=True)
class Finding:
    """One cause, in a sentence, and its remedy."""

    cause: str
    remedy: str
