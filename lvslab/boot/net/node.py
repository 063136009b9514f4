"""A Mininet host of a running lab."""

from __future__ import annotations

import socket
from pathlib import Path

from lvslab.boot.net import packets
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.net.taps import ip_batch
from lvslab.boot.node import NAMESPACES, Node, Observed
from lvslab.boot.plan import Card, Host
from lvslab.boot.states import BOOTING, UP, Condition
from lvslab.errors import StateError
from lvslab.run import STDOUT, run, spawn

# The SSH server for one connection, under the host's name.
_SHELL_SERVER = (
    'hostname "$1"; export HOME=/root; cd /root; exec dropbear -i -s -j -k -r /run/lvslab/host_key'
)


class MininetHost(Node):
    """A host in namespaces, which are ``place`` once the network has been built."""

    kind = "host"
    far = False
    features = frozenset({NAMESPACES})

    def __init__(self, host: Host, evidence: Path) -> None:
        super().__init__(host.name, host.cards)
        self._messages = evidence / f"ssh-{host.name}.log"
        self.place: Namespaces | None = None

    @property
    def condition(self) -> Condition:
        return BOOTING if self.place is None else UP

    def namespaces(self) -> Namespaces:
        """Return the host's namespaces. Raises StateError before they are made."""
        if self.place is None:
            raise StateError(f"{self.name} is just coming up", "wait for lab.up to end")
        return self.place

    def connect(self) -> socket.socket:
        """Start an SSH server for one connection, inside of the host's namespaces."""
        entered = [*self.namespaces().entrance, "unshare", "--uts", "--"]
        server = [*entered, "sh", "-c", _SHELL_SERVER, "sh", self.name]
        ours, theirs = socket.socketpair()
        with ours, self._messages.open("ab") as messages:
            end = ours.fileno()
            with spawn(server, stdin=end, stdout=end, stderr=messages, outlives=True):
                pass
        return theirs

    def observe(self, command: str, seconds: float | None) -> Observed:
        """Run a command in the host's namespaces, however long it takes."""
        done = run([*self.namespaces().entrance, "sh", "-c", command], stderr=STDOUT, check=False)
        return Observed(done.returncode, done.stdout.decode(errors="replace"))

    def stop(self) -> None:
        """Take all cards of the host down."""
        self.namespaces().call(ip_batch, [f"link set {card.name} down" for card in self.cards])

    def open_card(self, card: Card, program: packets.Program, room: int) -> socket.socket:
        return self.namespaces().call(packets.open_at, card.name, program, room)
