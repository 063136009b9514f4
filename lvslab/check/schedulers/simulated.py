"""Simulation of a virtual service by its scheduler's model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from lvslab.check.schedulers.model import Change, Model, Moment, Server, index_of
from lvslab.errors import LvsLabError

NOBODY = "(no destination available)"
"""Name of the server, in a sequence, of a connection that the scheduler gives to no server."""


@dataclass(frozen=True)
class SimulatedService:
    """The state of a virtual service. Each method returns the next state.

    ``servers`` are in the kernel's order; ``removed`` are former ones, with the connections that they still
    had: the kernel keeps them too (``dest_trash`` in ip_vs_ctl.c, 2.4.37.11 to 6.12), and they have these
    connections again when they are added again.
    """

    model: Model
    servers: tuple[Server, ...] = ()
    memory: object = None
    removed: tuple[Server, ...] = ()

    def add(self, server: Server) -> SimulatedService:
        """Add ``server`` at the head of the list (see `table.scan_order`).

        Raises LvsLabError where there is one of that name.
        """
        if index_of(self.servers, server.name) != -1:
            raise LvsLabError(f"{server.name} is among the servers already")
        for old in self.removed:
            if old.name == server.name:
                server = replace(server, active=old.active, inactive=old.inactive)
        removed = tuple(old for old in self.removed if old.name != server.name)
        new = replace(server, last_weight=server.weight)
        return replace(self, removed=removed)._changed("add", server.name, (new, *self.servers))

    def edit(self, name: str, weight: int) -> SimulatedService:
        """Give the server ``name`` another weight, and no threshold, at its place in the list."""
        old = self.server(name)
        last = weight or (old.weight if old.last_weight is None else old.last_weight)
        new = replace(old, weight=weight, last_weight=last, threshold=0, overloaded=False)
        return self._changed("edit", name, tuple(new if each == old else each for each in self.servers))

    def remove(self, name: str) -> SimulatedService:
        """Remove the server ``name``."""
        removed = (*self.removed, self.server(name))
        without = tuple(server for server in self.servers if server.name != name)
        return replace(self, removed=removed)._changed("remove", name, without)

    def scheduled_by(self, model: Model) -> SimulatedService:
        """Change to another scheduler, whose memory is empty.

        Naming the same one again would change nothing (``ip_vs_edit_service``).
        """
        return replace(self, model=model, memory=None)

    def connect(
        self, client: str = "", destination: str = "", client_port: int = 0, now: float = 0.0
    ) -> tuple[str, SimulatedService]:
        """Schedule a connection, active from now on; return its server's name, or NOBODY.

        A server that has its threshold of connections then is overloaded (``ip_vs_bind_dest`` in
        ip_vs_conn.c, 2.6.11 to 6.12). It stays so: expiry of connections is not simulated.
        """
        choice = self.model.choose(Moment(self.servers, client, self.memory, destination, client_port, now))
        after = replace(self, memory=choice.memory)
        if choice.server is None:
            return NOBODY, after
        name = self.servers[choice.server].name
        return name, after.give(name)

    def chances(self) -> Mapping[str, Fraction] | None:
        """Return the probability of each server, or of NOBODY, for the next connection.

        None where the scheduler does not draw: `connect` tells the server then.
        """
        if self.model.chances is None:
            return None
        found = self.model.chances(Moment(self.servers, memory=self.memory))
        return {self.servers[place].name: chance for place, chance in found.items()} or {NOBODY: Fraction(1)}

    def give(self, name: str) -> SimulatedService:
        """Add an active connection to the server ``name``; NOBODY changes nothing."""
        return self._counted(name, active=1)

    def finish(self, name: str) -> SimulatedService:
        """Turn an active connection of ``name`` into an inactive one."""
        return self._counted(name, active=-1, inactive=1)

    def server(self, name: str) -> Server:
        """Return the server of that name. Raises LvsLabError where there is none."""
        there = {server.name: server for server in self.servers}
        if name not in there:
            raise LvsLabError(f"{name} is not among the servers: {', '.join(there) or '(none)'}")
        return there[name]

    def _counted(self, name: str, *, active: int = 0, inactive: int = 0) -> SimulatedService:
        def counted(server: Server) -> Server:
            if server.name != name:
                return server
            now = replace(server, active=server.active + active, inactive=server.inactive + inactive)
            full = 0 < now.threshold <= now.active + now.inactive
            return replace(now, overloaded=now.overloaded or full)

        servers, removed = (tuple(map(counted, each)) for each in (self.servers, self.removed))
        return replace(self, servers=servers, removed=removed)

    def _changed(
        self, kind: Literal["add", "edit", "remove"], name: str, after: tuple[Server, ...]
    ) -> SimulatedService:
        memory = self.model.changed(Change(kind, name, self.servers, after, self.memory))
        return replace(self, servers=after, memory=memory)
