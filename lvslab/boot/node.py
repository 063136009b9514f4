"""A node of a running lab, in its supervisor: a virtual machine (``vm``) or a Mininet host (``net``)."""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lvslab.boot.states import Condition
from lvslab.boot.status import NodeStatus
from lvslab.errors import BootError, UsageError

if TYPE_CHECKING:
    from lvslab.boot.net.namespaces import Namespaces
    from lvslab.boot.net.packets import Program
    from lvslab.boot.plan import Card
    from lvslab.boot.services.servers import NodeServers

CONSOLE, COPY, NAMESPACES, SERVICE = "serial console", "memory to copy", "namespaces", "service"
"""Features that some nodes have."""


@dataclass(frozen=True)
class Observed:
    """Exit status and output (stdout and stderr) of a command that looks at a node."""

    status: int
    output: str


class Node(ABC):
    """One node. Its methods raise StateError until it is up, and BootError where it fails."""

    kind: ClassVar[str]
    """The kind of node in the document of ``lab.status``."""
    far: ClassVar[bool]
    """True if packets are captured at the other end of a card's cable."""
    features: frozenset[str] = frozenset()
    """Those of CONSOLE, COPY and NAMESPACES that it has; methods for others are not called."""

    def __init__(self, name: str, cards: tuple[Card, ...]) -> None:
        self.name = name
        self.cards = cards
        self.servers: NodeServers | None = None
        self.history: dict[str, Any] = {}  # the fields of a NodeStatus about how the node came up

    def has(self, feature: str) -> bool:
        """True if the node has one of CONSOLE, COPY, NAMESPACES and SERVICE."""
        return self.servers is not None if feature == SERVICE else feature in self.features

    @property
    @abstractmethod
    def condition(self) -> Condition:
        """The node's state now."""

    @abstractmethod
    def connect(self) -> socket.socket:
        """Open a stream on which the node's SSH server speaks. It uses none of the lab's networks."""

    @abstractmethod
    def observe(self, command: str, seconds: float | None) -> Observed:
        """Run a command on the node without a login; ``seconds`` as in ``Control.observe``."""

    @abstractmethod
    def stop(self) -> None:
        """Make the node fail for good."""

    @abstractmethod
    def open_card(self, card: Card, program: Program, room: int) -> socket.socket:
        """Open a socket with the packets of a card from now on (see ``packets.open_at``). Raises OSError."""

    def console(self) -> socket.socket:
        """Open a stream that is connected with the serial console."""
        raise NotImplementedError

    def copy(self) -> tuple[int, int]:
        """Copy the node. Returns descriptors of its memory and of its devices' state."""
        raise NotImplementedError

    def namespaces(self) -> Namespaces:
        """Return the node's network and mount namespaces."""
        raise NotImplementedError

    def capture(self, interface: str, program: Program, room: int) -> tuple[list[dict[str, Any]], list[int]]:
        """Open sockets with the packets of all cards, or of the one called ``interface``.

        Returns what ``packets.listen`` has to know of each, and their descriptors. Raises UsageError where
        the node has no such card, BootError where one cannot be captured at.
        """
        chosen = [card for card in self.cards if interface in ("", card.name)]
        if not chosen:
            known = ", ".join(card.name for card in self.cards)
            raise UsageError(f"{self.name} has no interface '{interface}'", f"it has {known}")
        descriptors = list[int]()
        try:
            for card in chosen:
                descriptors.append(self.open_card(card, program, room).detach())
        except BaseException as failed:
            for descriptor in descriptors:
                os.close(descriptor)
            if not isinstance(failed, OSError):
                raise
            # While the lab comes up its taps may not be there yet.
            what = f"cannot capture at {card.name} of {self.name}: {failed.strerror}"
            raise BootError(what, "wait for lab.up to end, if it has not") from None
        about = [
            (card.name, f"{', '.join(map(str, card.addresses))} in the network {card.network}")
            for card in chosen
        ]
        return [{"name": name, "description": text, "far": self.far} for name, text in about], descriptors

    def status(self, about: Mapping[str, Any]) -> NodeStatus:
        """Return the node's status; ``about`` has its role and addresses, as in a plan."""
        condition = self.condition
        service = self._service()
        return NodeStatus(
            self.kind, condition.state, condition.text, **self.history, service=service, **about
        )

    def _service(self) -> str | None:
        if self.servers is None:
            return None
        try:
            return "up" if self.servers.running else "stopped"
        except BootError:
            return "unknown"  # of a guest that does not answer
