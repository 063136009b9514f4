"""The interface of a forwarding method's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvslab.check.forwarding.facts import ClusterFacts, Finding, ServerFacts
from lvslab.check.ipvs.table import FORWARDING, Forwarding, Service
from lvslab.check.probes import NodeView


@dataclass(frozen=True)
class Method:
    """A forwarding method. This base class stands for one that has no model: it claims nothing."""

    name: Forwarding

    @property
    def unforeseen(self) -> str:
        """Why the consequences of this method cannot be foreseen, "" where they can."""
        return f"lvslab has no model of {self.name} yet"

    @property
    def option(self) -> str:
        """The option of ``ipvsadm -a`` for this method."""
        return FORWARDING[self.name].option

    def destination_port(self, virtual: int, listening: int) -> int:
        """Return the port of a destination behind port ``virtual`` whose server listens on ``listening``."""
        return listening if FORWARDING[self.name].maps_ports else virtual

    def examine(self, seen: NodeView, name: str, address: str, port: int, service: Service) -> ServerFacts:
        """Examine the real server ``name`` of ``service``, by its own view of the network (``seen``).

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
        return [
            Finding(
                f"{self.unforeseen}, so {', '.join(own)} and the way there and back were not examined",
                "should the `ipvsadm -a` say -m? Else look at addresses and routes of the real servers",
            )
        ]
