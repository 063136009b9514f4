"""The SCTP server, which names itself in its answers."""

from __future__ import annotations

import socket

from lvslab.boot.services.script.server import ScriptServer, access_log
from lvslab.errors import MachineError
from lvslab.lab.model import SctpService

IPPROTO_SCTP = 132


class SctpServer(ScriptServer):
    """A server that answers one line on each association."""

    service = SctpService
    what = "the SCTP server"
    log = access_log(SctpService.kind)

    @classmethod
    def check_machine(cls) -> None:
        """See HostServer. The kernel loads its module sctp, if it has that, for the first socket."""
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP).close()
        except OSError as error:
            raise MachineError(
                f"no Mininet host can serve sctp: this machine's kernel has no SCTP ({error.strerror})",
                "load its module sctp if it has one, or give the node a kernel of its own",
            ) from None


SERVER = SctpServer
