"""The UDP server, which names itself in its answers."""

from __future__ import annotations

from lvslab.boot.services.script.server import ScriptServer, access_log
from lvslab.lab.model import UdpService


class UdpServer(ScriptServer):
    """A server that answers datagrams from the address that they were sent to."""

    service = UdpService
    what = "the UDP server"
    log = access_log(UdpService.kind)


SERVER = UdpServer
