"""The interface of a forwarding method's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvslab.check.forwarding.facts import Asked, ClusterFacts, Finding, ServerFacts
from lvslab.check.forwarding.icmp import Refusal
from lvslab.check.forwarding.packet import HOP_LIMIT
from lvslab.check.ipvs.table import FORWARDING, Forwarding
from lvslab.check.probes import NodeView

if TYPE_CHECKING:
    from lvslab.check.forwarding.flow import Flow
    from lvslab.check.forwarding.packet import Packet

DECREMENTS_SINCE = (4, 10)
"""Kernels that decrement the TTL or hop limit of requests (``decrement_ttl``, ip_vs_xmit.c, 8d8e20e2d7bb).

Older ones send requests on with the TTL that they had: they forward in LOCAL_IN, behind the routing that
would decrement it.
"""


@dataclass(frozen=True)
class Method:
    """A forwarding method. This base class stands for one that has no model: it claims nothing."""

    name: Forwarding

    @property
    def unforeseen(self) -> str:
        """Why the consequences of this method cannot be foreseen, "" where they can."""
        return f"lvslab has no model of {self.name} yet"

    @property
    def replies_pass_director(self) -> bool:
        """True if replies of real servers must come back through the director."""
        return False

    @property
    def vip_on_real_servers(self) -> bool:
        """True if real servers must have the virtual address, and get requests on it.

        The director must have it, or take its packets in, for any method: IPVS works on packets that are on
        their way to the director's own programs (LOCAL_IN).
        """
        return False

    @property
    def option(self) -> str:
        """The option of ``ipvsadm -a`` for this method."""
        return FORWARDING[self.name].option

    def destination_port(self, virtual: int, listening: int) -> int:
        """Return the port of a destination behind port ``virtual`` whose server listens on ``listening``."""
        return listening if FORWARDING[self.name].maps_ports else virtual

    def forwarded(self, request: Packet, flow: Flow) -> Packet | None:
        """Return the packet that leaves for a ``request``, None where none does."""
        raise NotImplementedError(self.unforeseen)

    def returned(self, reply: Packet, flow: Flow) -> Packet:
        """Return the packet that leaves for a server's ``reply``.

        Where replies need not pass the director, one that does is forwarded as by any router.
        """
        return reply.with_ethernet(src=flow.back.mac, dst=flow.back.next_mac).one_hop_on()

    def overhead(self, request: Packet, flow: Flow) -> int:
        """Return by how many bytes the packet that leaves for a ``request`` is longer."""
        return 0

    def refused(self, request: Packet, flow: Flow) -> Refusal | None:
        """Return why a ``request`` is answered by ICMP instead of being sent on.

        A packet that is longer than its own network's MTU is cut later on (GSO). The kernel compares the
        size that its pieces will have, which is taken to be that MTU: smaller pieces may pass
        (``decrement_ttl`` and ``ensure_mtu_is_adequate``, ip_vs_xmit.c, 6.1).
        """
        network = request.network
        hops = network[HOP_LIMIT[network.protocol]]
        assert isinstance(hops, int)
        if flow.kernel >= DECREMENTS_SINCE and hops <= 1:
            return Refusal("time exceeded")
        room = flow.there.mtu - self.overhead(request, flow)
        stays_whole = network.protocol == "ipv6" or network["flags.df"] == 1
        size = min(request.length, flow.back.mtu or request.length)
        return Refusal("too big", room) if flow.there.mtu and stays_whole and size > room else None

    def answered(self, reply: Packet, flow: Flow) -> Packet | None:
        """Return a ``reply`` of the director itself as it should be.

        None where the director makes none.
        """
        return None

    def examine(self, seen: NodeView, name: str, address: str, port: int, asked: Asked) -> ServerFacts:
        """Examine the real server ``name`` by its own view of the network (``seen``).

        Its server program listens on ``port``; ``address`` is its own.
        """
        return ServerFacts(name, address, port, self.name)

    def causes(self, facts: ClusterFacts, servers: Sequence[ServerFacts]) -> list[Finding]:
        """Find causes why services do not answer; ``servers`` are reached by this method."""
        return []

    def suspicions(self, facts: ClusterFacts) -> list[Finding]:
        """Find weaker signs, to be told where no cause is found."""
        destinations = facts.service.destinations if facts.service else ()
        own = [str(server) for server in destinations if server.forwarding == self.name]
        asked = "should the `ipvsadm -a` say -m?"
        if self.vip_on_real_servers:
            asked = f"is the virtual address on each real server, or {asked}"
        return [
            Finding(
                f"lvslab does not examine real servers by {self.name} yet, so {', '.join(own)} and the way "
                "there and back were not examined",
                f"{asked} Else look at addresses and routes of the real servers",
            )
        ]


def sent_on(request: Packet, flow: Flow) -> Packet:
    """Return ``request`` as any method sends it on its way to the real server: only its hop is another."""
    there = request.with_ethernet(src=flow.there.mac, dst=flow.there.next_mac)
    return there.one_hop_on() if flow.kernel >= DECREMENTS_SINCE else there
