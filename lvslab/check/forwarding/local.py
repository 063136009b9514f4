"""Local (LocalNode): the real server is the director itself, and no packet is sent on.

IPVS hands the request to the director's own programs (``ip_vs_null_xmit``, or a transmitter whose route is
local, of net/netfilter/ipvs/ip_vs_xmit.c, 6.1). Since 2.6.37 ipvsadm lists such a server by the method that
was typed: the models of all methods are therefore for other machines, and this one for the director's own
addresses. Only masquerading may change the port.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvslab.check.forwarding.method import Method

if TYPE_CHECKING:
    from lvslab.check.forwarding.flow import Flow
    from lvslab.check.forwarding.packet import Packet


class Local(Method):
    """The model of a destination on the director."""

    @property
    def unforeseen(self) -> str:
        return ""

    def forwarded(self, request: Packet, flow: Flow) -> None:
        """Send nothing on."""

    def answered(self, reply: Packet, flow: Flow) -> Packet:
        """Return the reply as one of the virtual service to the client."""
        address, port = flow.virtual
        sent = reply.with_ethernet(src=flow.back.mac, dst=flow.back.next_mac)
        return sent.with_network(src=address).with_transport(srcport=port).with_right_checksums()


METHOD = Local("local")
