"""A virtual service of a check's own: made, changed and used on a director that runs, and beside it the
model of the same service, which goes through the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from lvslab.check import exact_test, verdict
from lvslab.check.ipvs import director
from lvslab.check.ipvs.table import endpoint
from lvslab.check.schedulers import NOBODY, Server, SimulatedService, model_for
from lvslab.check.traffic.held import HeldConnection, HeldConnections
from lvslab.check.traffic.http import RequestFailed
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.check.testbed import NodeUnderTest
    from lvslab.cluster.cluster import Cluster


@dataclass(frozen=True)
class Place:
    """What a virtual service is for: a TCP port of an address, or, with a ``mark``, packets that a firewall
    rule marks; ``port`` is the one that clients connect to."""

    address: str
    port: int
    mark: int = 0

    @property
    def option(self) -> str:
        """How ipvsadm is told of it."""
        return f"-f {self.mark}" if self.mark else f"-t {endpoint(self.address, self.port)}"

    @property
    def name(self) -> str:
        """How a listing's row is called (see ``ipvs_table.service_name``)."""
        return f"firewall mark {self.mark}" if self.mark else endpoint(self.address, self.port)


class LiveService:
    """A virtual service on the director of ``cluster``, by masquerading, and its model.

    ``servers`` maps the names that the real servers' pages bear to their addresses; all listen on port 80.
    ``expected`` and ``observed`` grow with each connection. Where the scheduler draws they are the same, and
    ``check`` looks at how likely these servers were. ``modelled`` is the scheduler that the model believes
    in, where that shall be another one than the director's.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: NodeUnderTest,
        place: Place,
        servers: Mapping[str, str],
        held: HeldConnections,
        *,
        kernel: str,
    ) -> None:
        self.place = place
        self.expected: list[str] = []
        self.observed: list[str] = []
        self._cluster = cluster
        self._node = node
        self._addresses = servers
        self._held = held
        self._kernel = kernel
        self._draws: list[tuple[str, Mapping[str, Fraction]]] = []
        self._open: list[tuple[str, HeldConnection]] = []
        self._model: SimulatedService | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, connection in self._open:
            connection.drop()
        if self._model is not None:
            self._model = None
            self._node.execute(f"ipvsadm -D {self.place.option}")

    @property
    def model(self) -> SimulatedService:
        """The model as it is now. Raises CheckFailed before ``make``."""
        if self._model is None:
            raise CheckFailed(f"the service {self.place.name} has not been made yet")
        return self._model

    def make(
        self,
        scheduler: str,
        weights: Mapping[str, int],
        *,
        thresholds: Mapping[str, int] = MappingProxyType({}),
        flags: Sequence[str] = (),
        modelled: str = "",
    ) -> None:
        """Make the service with servers of these ``weights``, added in this order; some may have an upper
        threshold of connections."""
        options = f" -b {','.join(flags)}" if flags else ""
        commands = [f"ipvsadm -A {self.place.option} -s {scheduler}{options}"]
        commands += [self._adding(name, weight, thresholds.get(name, 0)) for name, weight in weights.items()]
        model = SimulatedService(model_for(modelled or scheduler, self._kernel, flags))
        for name, weight in weights.items():
            model = model.add(self._server(name, weight, thresholds.get(name, 0)))
        self._node.execute(" && ".join(commands))
        self._model = self._with_counts(model)

    def schedule_by(self, scheduler: str, *, modelled: str = "") -> None:
        """Change the scheduler; to one that it does not have."""
        self._node.execute(f"ipvsadm -E {self.place.option} -s {scheduler}")
        self._model = self.model.scheduled_by(model_for(modelled or scheduler, self._kernel))

    def add(self, name: str, weight: int) -> None:
        """Add the server ``name``."""
        self._node.execute(self._adding(name, weight))
        self._model = self.model.add(self._server(name, weight))

    def edit(self, name: str, weight: int, *, modelled: int | None = None) -> None:
        """Give the server ``name`` another weight; ``modelled`` is what the model is told."""
        self._node.execute(f"ipvsadm -e {self.place.option} -r {self._addresses[name]}:80 -m -w {weight}")
        self._model = self.model.edit(name, weight if modelled is None else modelled)

    def remove(self, name: str) -> None:
        """Remove the server ``name``, whatever connections it has."""
        self._node.execute(f"ipvsadm -d {self.place.option} -r {self._addresses[name]}:80")
        self._model = self.model.remove(name)

    def connect(self, count: int = 1, *, source: str = "", to: str = "") -> None:
        """Make ``count`` connections, one after the other, and hold them; from the client's address
        ``source``, ``to`` another address than the service's where a mark brings it there.

        One that the director refuses counts as given to NOBODY. Raises RequestFailed for any other that
        does not come about.
        """
        address = to or self.place.address
        for _ in range(count):
            model = self.model
            try:
                made = self._held.open(address, self.place.port, source=source)
            except RequestFailed as failed:
                if failed.kind != "refused":
                    raise
                made = None
            observed = NOBODY if made is None else made.server
            if (chances := model.chances()) is not None:
                name, self._model = observed, model.give(observed)
                self._draws.append((observed, chances))
            else:
                client, port = (source, 0) if made is None else (made.source_address, made.source_port)
                name, self._model = model.connect(client, address, port)
            self.expected.append(name)
            self.observed.append(observed)
            if made is not None:
                self._open.append((name, made))

    def finish(self, *places: int) -> None:
        """End the open connections at these ``places``, counted from the oldest that is open; -1 is the
        newest."""
        for name, connection in [self._open[place] for place in places]:
            connection.finish()
            self._open.remove((name, connection))
            if name != NOBODY:
                self._model = self.model.finish(name)

    def finish_all(self) -> None:
        """End all open connections."""
        self.finish(*range(len(self._open)))

    def check(self) -> None:
        """Servers were chosen as the model says, and the director counts the connections that it says.

        Where the scheduler draws, a right one fails with a probability of at most ``chance.FALSE_ALARM``.
        Raises CheckFailed.
        """
        verdict.sequence_matches(self.expected, self.observed)
        exact_test.draws_hold("connections", self._draws)
        counted = {name: (active, inactive) for name, active, inactive in self._counts()}
        wanted = {server.name: (server.active, server.inactive) for server in self.model.servers}
        if counted != wanted:
            lines = [f"the director does not have the connections of {self.place.name} that were made"]
            lines += [
                f"  {name}: {_said(wanted.get(name))} made, {_said(counted.get(name))} on the director"
                for name in sorted({*counted, *wanted})
                if counted.get(name) != wanted.get(name)
            ]
            raise CheckFailed("\n".join(lines), "is somebody else using it, or has it taken too long?")

    def _adding(self, name: str, weight: int, threshold: int = 0) -> str:
        upper = f" -x {threshold}" if threshold else ""
        return f"ipvsadm -a {self.place.option} -r {self._addresses[name]}:80 -m -w {weight}{upper}"

    def _server(self, name: str, weight: int, threshold: int = 0) -> Server:
        return Server(name, weight, address=self._addresses[name], port=80, threshold=threshold)

    def _with_counts(self, model: SimulatedService) -> SimulatedService:
        """A server that belonged to an earlier service of the same name still has its connections."""
        counts = {name: (active, inactive) for name, active, inactive in self._counts()}
        return replace(
            model,
            servers=tuple(
                replace(server, active=counts[server.name][0], inactive=counts[server.name][1])
                for server in model.servers
            ),
        )

    def _counts(self) -> list[tuple[str, int, int]]:
        names = {address: name for name, address in self._addresses.items()}
        rows = director.read(self._cluster, self._node.name, ("listing",)).connections
        row = next((row for row in rows if str(row) == self.place.name), None)
        return (
            [(names[server.address], server.active, server.inactive) for server in row.servers]
            if row
            else []
        )


def _said(counts: tuple[int, int] | None) -> str:
    return "not there" if counts is None else f"{counts[0]} active and {counts[1]} inactive"
