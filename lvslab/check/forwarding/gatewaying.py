"""Gatewaying (direct routing): the director sends requests on as they are, to the real server's MAC.

A request keeps its addresses and its port, so the real server must have the virtual address, and take no
part in ARP for it. It answers the client directly (``ip_vs_dr_xmit`` of net/netfilter/ipvs/ip_vs_xmit.c,
6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvslab.check.forwarding.method import sent_on
from lvslab.check.forwarding.way_back import DirectReplies

if TYPE_CHECKING:
    from lvslab.check.forwarding.flow import Flow
    from lvslab.check.forwarding.packet import Packet


class Gatewaying(DirectReplies):
    """The model of gatewaying."""

    def forwarded(self, request: Packet, flow: Flow) -> Packet:
        """Give the request the MAC of the next hop to the real server."""
        return sent_on(request, flow)


METHOD = Gatewaying("gatewaying")
