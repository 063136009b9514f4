"""A running lab in the hands of a check: its nodes, traffic from inside them, and rounds of requests."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from lvslab.apply.ssh import Executed
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.status import Summary
from lvslab.check import rounds
from lvslab.check.examine import void_entry
from lvslab.check.ipvs import director
from lvslab.check.ipvs.table import Service
from lvslab.check.probes import connect_from
from lvslab.check.rounds import Round
from lvslab.check.traffic import http
from lvslab.check.traffic.http import Reply
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.check.traffic.request import RequestFailed
from lvslab.closing import Closing
from lvslab.cluster.running import RunningLab
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.check.forwarding.captured import CapturedPackets


def without_host(clients: Collection[str]) -> tuple[str, str]:
    """Return why none of a lab's ``clients`` can make requests, and what would be right."""
    if not clients:
        return "the lab has no client to make requests", "add a node with the role client to lab.yaml"
    why = "no client of this lab is a Mininet host, and requests are made on those"
    return why, "give one client no kernel of its own"


class NodeUnderTest:
    """One node of the lab."""

    def __init__(self, testbed: Testbed, name: str) -> None:
        self.name = name
        self.addresses = tuple(str(address) for address in testbed.cluster.lab.nodes[name].addresses)
        self._testbed = testbed

    def __repr__(self) -> str:
        return f"<{self.name} {', '.join(self.addresses)}>"

    @property
    def address(self) -> str:
        """The node's first address."""
        return self.addresses[0]

    @property
    def namespace(self) -> NamespaceThread:
        """A thread in the node's network namespace. The node must be a Mininet host."""
        return self._testbed.enter(self.name)

    @property
    def inside(self) -> Namespaces:
        """The node's network and mount namespaces. The node must be a Mininet host."""
        return self._testbed.inside(self.name)

    def execute(self, command: str, *, check: bool = True) -> Executed:
        """Run ``command`` on the node over SSH.

        With ``check``, raises CheckFailed where it ends with another status than 0.
        """
        done = self._testbed.cluster.execute(self.name, command)
        if check and done.status != 0:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise CheckFailed(f"on {self.name}, `{command}` ended with status {done.status}", said or None)
        return done

    def output(self, command: str) -> str:
        """Run ``command`` as `execute` does; return its output without the last line feed."""
        return self.execute(command).stdout.decode(errors="replace").rstrip("\n")

    def seen_by(self, other: NodeUnderTest) -> str:
        """Connect to ``other``, a Mininet host, by TCP; return the source address that it sees.

        Raises CheckFailed where the connection is not made within 5 s.
        """
        family = socket.AF_INET6 if ":" in other.address else socket.AF_INET
        with other.namespace.call(socket.create_server, (other.address, 0), family=family) as listener:
            listener.settimeout(5)
            place = listener.getsockname()[:2]
            try:
                if not self._testbed.cluster.is_enterable(self.name):
                    # The node's program ends when this side closes the connection.
                    with ThreadPoolExecutor(1) as pool:
                        connecting = pool.submit(connect_from, self._testbed.cluster, self.name, *place)
                        seen = _accepted(listener)
                        connecting.result()
                else:
                    with self.namespace.call(socket.create_connection, place, 5):
                        seen = _accepted(listener)
            except OSError as failed:
                raise CheckFailed(
                    f"{self.name} cannot connect to {other.name} ({other.address}): {failed}",
                    "does the director forward, and masquerade what leaves on the outer interface?",
                ) from None
        return seen

    def get(self, url: str, count: int = 1) -> tuple[Reply, ...]:
        """Request ``url`` from inside the node, ``count`` times in turn. Raises RequestFailed."""
        return http.requests_in_turn(self.namespace, url, count)


def _accepted(listener: socket.socket) -> str:
    """Return the source address of the next connection."""
    connection, (seen, *_) = listener.accept()
    connection.close()
    return str(seen)


class Testbed(Closing):
    """A running lab and the threads that live in its hosts' network namespaces."""

    __test__ = False  # pytest would collect it for its name

    def __init__(self, cluster: RunningLab) -> None:
        self.cluster = cluster
        self._opened = ExitStack()
        self._threads: dict[str, NamespaceThread] = {}
        self._namespaces: dict[str, Namespaces] = {}
        self._besides: list[tuple[float, Mapping[str, int]]] = []

    def close(self) -> None:
        """End the threads."""
        self._opened.close()

    def node(self, name: str) -> NodeUnderTest:
        """The node ``name``."""
        return NodeUnderTest(self, name)

    @property
    def directors(self) -> tuple[NodeUnderTest, ...]:
        """The directors, in the order of lab.yaml; the same for the other roles."""
        return tuple(map(self.node, self.cluster.lab.directors))

    @property
    def real_servers(self) -> tuple[NodeUnderTest, ...]:
        """The real servers."""
        return tuple(map(self.node, self.cluster.lab.real_servers))

    @property
    def clients(self) -> tuple[NodeUnderTest, ...]:
        """The clients."""
        return tuple(map(self.node, self.cluster.lab.clients))

    def apply(self, *, without: Sequence[str] = ()) -> Summary:
        """Type the how-to's steps, except those whose command contains a text of ``without``."""
        return self.cluster.apply(without=without)

    def table_of_steps(self, node: str = "") -> tuple[Service, ...]:
        """Return the table that the steps' calls of ipvsadm made on a director.

        It is the first one, unless ``node`` names another.
        """
        return director.table_of_steps(self.cluster, node or self.directors[0].name)

    def reading(self, node: str = "") -> director.Reading:
        """Read a director, by default the first one."""
        return director.read_director(self.cluster, node or self.directors[0].name)

    def settled_reading(self) -> director.Reading:
        """Read the first director once its counters have caught up with the traffic."""
        return director.read_settled(self.cluster, self.directors[0].name)

    def connections_since(self, before: director.Reading) -> dict[str, int]:
        """Return the connections by server that the first director's counters gained since ``before``.

        Requests that `round` made besides those of its result are not among them.
        """
        gained = Counter(rounds.connections_since(before, self.settled_reading(), self.cluster))
        for made, servers in self._besides:
            if made > before.at:
                gained.subtract(servers)
        return {name: number for name, number in gained.items() if number}

    def round(
        self,
        *,
        count: int = 12,
        client: str = "",
        director: str = "",
        service: str = "",
        port: int = 0,
        padding: int = 0,
    ) -> Round:
        """Take a round of requests.

        It goes from the first client that is a Mininet host, through the first director, to its first web
        service, unless others are named. Of a service with several ports, ``port`` is asked, or else the
        first one that is served. Requests are larger by ``padding`` bytes, 30000 at most. It begins as on an
        idle cluster, after any earlier traffic: see `rounds.take`.
        """
        chosen = director or self.directors[0].name

        def besides(servers: Mapping[str, int]) -> None:
            if chosen == self.directors[0].name:
                self._besides.append((time.monotonic(), servers))

        return rounds.take(
            self.cluster,
            self.enter,
            client=client or self.first_client(),
            director=chosen,
            count=count,
            service=service,
            port=port,
            level=True,
            padding=padding,
            besides=besides,
        )

    @contextmanager
    def explained(self, own: str) -> Iterator[None]:
        """Explain a RequestFailed of the block by the director's entry for ``own``.

        ``own`` is the client's ``address:port``, and the director the first one. This is for sockets that
        ask more than once: the requests of a round have ports of their own.
        """
        try:
            yield
        except RequestFailed as failed:
            found = void_entry(self.cluster, self.directors[0].name, own)
            if found is None:
                raise
            said = failed.message, f"{found.cause}; {found.remedy}"
            raise RequestFailed(failed.kind, failed.request_id, *said, failed.before) from failed

    def packets(
        self, service: str = "", *, director: str = "", marked: Mapping[int, Sequence[tuple[str, int]]] = {}
    ) -> CapturedPackets:
        """Capture at a director's cards for a block, to compare every packet.

        ``with lab.packets() as seen: ...`` and then ``seen.match()``. The director is the first one, and
        the services all of its table, unless others are named. ``marked`` are the virtual addresses and
        ports (0 for all) of services that are firewall marks, by mark.
        """
        from lvslab.check.forwarding.captured import CapturedPackets  # imports scapy

        return CapturedPackets(self.cluster, director or self.directors[0].name, service, marked)

    def first_client(self) -> str:
        """Return the name of the first client that is a Mininet host. Raises CheckFailed."""
        if not (hosts := self.host_clients):
            raise CheckFailed(*without_host(self.cluster.lab.clients))
        return hosts[0]

    @property
    def host_clients(self) -> list[str]:
        """The names of the clients that are Mininet hosts."""
        return [*filter(self.cluster.is_enterable, self.cluster.lab.clients)]

    def inside(self, node: str) -> Namespaces:
        """Return the network and mount namespaces of the Mininet host ``node``.

        They are for code that reads its files too, as the C library's resolver reads /etc/resolv.conf.
        """
        if node not in self._namespaces:
            self._namespaces[node] = self._opened.enter_context(self.cluster.namespaces(node))
        return self._namespaces[node]

    def enter(self, node: str) -> NamespaceThread:
        """Return the one thread in the network namespace of the Mininet host ``node``."""
        if node not in self._threads:
            thread = NamespaceThread(self.inside(node).network, node)
            self._threads[node] = self._opened.enter_context(thread)
        return self._threads[node]
