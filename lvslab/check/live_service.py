"""Virtual services of checks on a running director, compared with simulated ones.

Every change and connection is made on both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING

from lvslab.check import exact_test, verdict
from lvslab.check.forwarding import method_for
from lvslab.check.ipvs import director
from lvslab.check.ipvs.table import Forwarding, endpoint
from lvslab.check.schedulers import NOBODY, Server, SimulatedService, model_for
from lvslab.check.traffic.held import HeldConnection, HeldConnections
from lvslab.check.traffic.http import RequestFailed
from lvslab.closing import Closing
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.check.testbed import NodeUnderTest
    from lvslab.cluster.running import RunningLab


_LISTENING = 80
"""The port that real servers listen on."""
_UNDISTURBED = 30.0
"""Seconds during which no connection of an earlier service shall expire."""


@dataclass(frozen=True)
class Place:
    """The traffic of a virtual service: a TCP port of an address, or packets with a firewall ``mark``.

    ``port`` is the one that clients connect to.
    """

    address: str
    port: int
    mark: int = 0

    @property
    def option(self) -> str:
        """The options of ipvsadm that name the service."""
        return f"-f {self.mark}" if self.mark else f"-t {endpoint(self.address, self.port)}"

    @property
    def name(self) -> str:
        """The name of the service's row in a listing (see ``table.service_name``)."""
        return f"firewall mark {self.mark}" if self.mark else endpoint(self.address, self.port)


class LiveService(Closing):
    """A virtual service on a director, and its model.

    ``servers`` maps the names on the real servers' pages to their addresses; all listen on port 80, and are
    reached by ``forwarding``. ``expected`` and ``observed`` hold one server for each connection. Where the
    scheduler draws they are the same, and ``check`` tests how likely these servers were. Raises CheckFailed
    where ``forwarding`` has no model.
    """

    def __init__(
        self,
        cluster: RunningLab,
        node: NodeUnderTest,
        place: Place,
        servers: Mapping[str, str],
        held: HeldConnections,
        *,
        kernel: str,
        forwarding: Forwarding = "masquerading",
    ) -> None:
        self._method = method_for(forwarding)
        if why := self._method.unforeseen:
            raise CheckFailed(f"the connections of {place.name} cannot be foreseen: {why}")
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

    def close(self) -> None:
        """Drop the open connections and delete the service."""
        for _, connection in self._open:
            connection.close()
        if self._model is not None:
            self._model = None
            self._node.execute(f"ipvsadm -D {self.place.option}")

    @property
    def model(self) -> SimulatedService:
        """The model in its present state. Raises CheckFailed before ``make``."""
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
        """Make the service with servers of these ``weights``, added in this order.

        ``thresholds`` are upper thresholds, in connections. ``modelled`` is the scheduler of the model,
        where it is to differ from the director's.
        """
        options = f" -b {','.join(flags)}" if flags else ""
        commands = [f"ipvsadm -A {self.place.option} -s {scheduler}{options}"]
        model = SimulatedService(model_for(modelled or scheduler, self._kernel, flags))
        for name, weight in weights.items():
            threshold = thresholds.get(name, 0)
            commands.append(self._adding(name, weight, threshold))
            model = model.add(self._server(name, weight, threshold))
        self._node.execute(" && ".join(commands))
        counts = self._counts_at_rest()  # of connections that servers still have from an earlier service
        servers = (
            replace(server, active=counts[server.name][0], inactive=counts[server.name][1])
            for server in model.servers
        )
        self._model = replace(model, servers=tuple(servers))

    def schedule_by(self, scheduler: str, *, modelled: str = "") -> None:
        """Change the scheduler to another one; ``modelled`` is as for `make`."""
        self._node.execute(f"ipvsadm -E {self.place.option} -s {scheduler}")
        self._model = self.model.scheduled_by(model_for(modelled or scheduler, self._kernel))

    def add(self, name: str, weight: int) -> None:
        """Add the server ``name``."""
        self._node.execute(self._adding(name, weight))
        self._model = self.model.add(self._server(name, weight))

    def edit(self, name: str, weight: int, *, modelled: int | None = None) -> None:
        """Give the server ``name`` another weight; ``modelled`` is that of the model, where it differs."""
        self._node.execute(f"ipvsadm -e {self._reaching(name)} {self._method.option} -w {weight}")
        self._model = self.model.edit(name, weight if modelled is None else modelled)

    def remove(self, name: str) -> None:
        """Remove the server ``name``, which may have connections."""
        self._node.execute(f"ipvsadm -d {self._reaching(name)}")
        self._model = self.model.remove(name)

    def connect(self, count: int = 1, *, source: str = "", to: str = "") -> None:
        """Make ``count`` connections, one after the other, and hold them.

        They come from the client's address ``source``, and go ``to`` another address than the service's
        where a mark brings them there. One that is refused counts as given to NOBODY. Raises RequestFailed
        where a connection fails in another way.
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
        """End the open connections with these indices: 0 is the oldest, -1 the newest."""
        for name, connection in [self._open[place] for place in places]:
            connection.finish()
            self._open.remove((name, connection))
            if name != NOBODY:
                self._model = self.model.finish(name)

    def finish_all(self) -> None:
        """End all open connections."""
        self.finish(*range(len(self._open)))

    def check(self) -> None:
        """Compare the chosen servers and the director's counts of connections with the model's.

        Where the scheduler draws, a correct one fails with a probability of at most
        ``exact_test.FALSE_ALARM``. Raises CheckFailed.
        """
        verdict.sequence_matches(self.expected, self.observed)
        exact_test.draws_hold("connections", self._draws)
        counted = self._counts()
        wanted = {server.name: (server.active, server.inactive) for server in self.model.servers}
        if counted != wanted:
            lines = [f"the director does not have the connections of {self.place.name} that were made"]
            lines += [
                f"  {name}: {_said(wanted.get(name))} made, {_said(counted.get(name))} on the director"
                for name in sorted({*counted, *wanted})
                if counted.get(name) != wanted.get(name)
            ]
            raise CheckFailed(
                "\n".join(lines), "are there other clients, or have connections expired meanwhile?"
            )

    def _adding(self, name: str, weight: int, threshold: int = 0) -> str:
        upper = f" -x {threshold}" if threshold else ""
        return f"ipvsadm -a {self._reaching(name)} {self._method.option} -w {weight}{upper}"

    def _reaching(self, name: str) -> str:
        return f"{self.place.option} -r {endpoint(self._addresses[name], self._port)}"

    @property
    def _port(self) -> int:
        """The port of the destinations."""
        return self._method.destination_port(self.place.port, _LISTENING)

    def _server(self, name: str, weight: int, threshold: int = 0) -> Server:
        return Server(name, weight, address=self._addresses[name], port=self._port, threshold=threshold)

    def _counts_at_rest(self) -> dict[str, tuple[int, int]]:
        """Return `_counts` when none of these connections will expire during the check."""
        counts = self._counts()
        while any(map(any, counts.values())):
            known = director.read_director(self._cluster, self._node.name, ("entries",)).tracked
            port = f":{self.place.port}"
            finished = director.expiries(entry for entry in known if entry.virtual.endswith(port))
            counts = self._counts()
            if not (pause := director.delay_until_gap(finished, _UNDISTURBED)):
                break
            time.sleep(pause)
        return counts

    def _counts(self) -> dict[str, tuple[int, int]]:
        """Return active and inactive connections by server, as the director counts them."""
        names = {address: name for name, address in self._addresses.items()}
        rows = director.read_director(self._cluster, self._node.name, ("listing",)).connections
        servers = next((row.servers for row in rows if str(row) == self.place.name), ())
        return {names[server.address]: (server.active, server.inactive) for server in servers}


def _said(counts: tuple[int, int] | None) -> str:
    return "not there" if counts is None else f"{counts[0]} active and {counts[1]} inactive"
