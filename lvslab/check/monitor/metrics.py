"""Prometheus metrics of a lab's directors, read at each scrape.

Names, units and types follow Prometheus's conventions, and those of node_exporter's IPVS collector, which
has the counters of all services together, and servers' weights and connections. They are served on this
machine's loopback only.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from lvslab.check.ipvs import director as directors
from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.listing import Counters, ListedServer, ListedService
from lvslab.check.monitor import watch
from lvslab.check.monitor.watch import Places
from lvslab.errors import LvsLabError, MachineError, UsageError

HOST = "127.0.0.1"

_LAB = ("lab",)
_DIRECTOR = (*_LAB, "director")
_SERVICE = (*_DIRECTOR, "protocol", "address", "port", "fwmark")
_SERVER = (*_SERVICE, "server", "server_address", "server_port")
# In the order of the fields of Counters.
_COUNTED = {
    "connections": "Connections given out",
    "incoming_packets": "Packets from clients",
    "outgoing_packets": "Packets from real servers to clients",
    "incoming_bytes": "Bytes from clients",
    "outgoing_bytes": "Bytes from real servers to clients",
}
_OF = {
    "": ("by all virtual services of a director together", _DIRECTOR),
    "service_": ("by a virtual service", _SERVICE),
    "server_": ("by a real server of a virtual service", _SERVER),
}


class Families:
    """The metrics of one scrape."""

    def __init__(self) -> None:
        def gauge(name: str, meaning: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"lvslab_{name}", meaning, labels=labels)

        self.lab_up = gauge("lab_up", "Whether the lab is up", _LAB)
        self.up = gauge("director_up", "Whether the director could be read", _DIRECTOR)
        self.counted = {
            of: [
                CounterMetricFamily(f"lvslab_ipvs_{of}{what}", f"{meaning}, {whose}", labels=labels)
                for what, meaning in _COUNTED.items()
            ]
            for of, (whose, labels) in _OF.items()
        }
        self.service = InfoMetricFamily(
            "lvslab_ipvs_service", "The scheduler of a virtual service, and its flags", labels=_SERVICE
        )
        self.server = InfoMetricFamily(
            "lvslab_ipvs_server", "How a real server is reached (forwarding method)", labels=_SERVER
        )
        self.weight = gauge("ipvs_server_weight", "The weight of a real server", _SERVER)
        self.active = gauge("ipvs_server_active_connections", "Active connections of a real server", _SERVER)
        self.inactive = gauge(
            "ipvs_server_inactive_connections", "Inactive connections of a real server", _SERVER
        )

    def __iter__(self) -> Iterator[Metric]:
        yield from (
            self.lab_up,
            self.up,
            *(metric for metrics in self.counted.values() for metric in metrics),
        )
        yield from (self.service, self.server, self.weight, self.active, self.inactive)

    def add(self, lab: str, director: str, found: Reading | LvsLabError, places: Places) -> None:
        """Add the reading of a director, or the error of reading it."""
        labels = [lab, director]
        self.up.add_metric(labels, float(isinstance(found, Reading)))
        if isinstance(found, Reading):
            self._count("", labels, found.stats.counters if found.stats else None)
            for row in found.connections:
                self._add_service(labels, row, found, places)

    def _add_service(self, labels: list[str], row: ListedService, found: Reading, places: Places) -> None:
        family = "fwmark-ipv6" if row.protocol == "fwmark" and row.ipv6 else row.protocol
        labels = [*labels, family, row.address, str(row.port), str(row.mark or "")]
        self.service.add_metric(labels, {"scheduler": row.scheduler, "flags": row.flags})
        self._count("service_", labels, found.totals.get(str(row)))
        for server in row.servers:
            self._add_server(labels, row, server, found, places)

    def _add_server(
        self,
        labels: list[str],
        row: ListedService,
        server: ListedServer,
        found: Reading,
        places: Places,
    ) -> None:
        name = places.nodes.get(server.address, "")
        labels = [*labels, name, server.address, str(server.port)]
        self.server.add_metric(labels, {"forwarding": server.forwarding})
        self.weight.add_metric(labels, server.weight)
        self.active.add_metric(labels, server.active)
        self.inactive.add_metric(labels, server.inactive)
        self._count("server_", labels, found.by_server.get((str(row), str(server))))

    def _count(self, of: str, labels: list[str], counters: Counters | None) -> None:
        if counters is not None:
            for metric, value in zip(self.counted[of], astuple(counters), strict=True):
                metric.add_metric(labels, value)


class LabCollector(Collector):
    """Collector that reads the directors of the lab ``name`` at each scrape.

    A lab that has ended is not up; one that comes up under the same name is read again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        watch.places(name)  # a lab that is not there is an error now, and not at every scrape

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of one scrape; a lab that cannot be read is a metric, and not an error."""
        families = Families()
        there = self._there()
        families.lab_up.add_metric([self.name], float(there is not None))
        if there is not None:
            with ThreadPoolExecutor(max(1, len(there.directors)), "scrape") as workers:
                readings = workers.map(self._read, there.directors)
                for director, found in zip(there.directors, readings, strict=True):
                    families.add(self.name, director, found, there)
        yield from families

    def _there(self) -> Places | None:
        """Return the lab's nodes, or None where it is not up; it may differ from that of the last scrape."""
        try:
            return watch.places(self.name)
        except LvsLabError:
            return None  # it has ended, or is just coming up, or going

    def _read(self, director: str) -> Reading | LvsLabError:
        return watch.glance(
            self.name, director, lambda by, node: directors.read_director(by, node, directors.MONITORED)
        )


@contextmanager
def served(name: str, port: int) -> Iterator[str]:
    """Serve the metrics of the lab ``name`` in background threads during the block; yield the URL.

    ``port`` 0 takes a free one. Raises StateError, UsageError and MachineError.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}", "it takes a number from 0 (any that is free) to 65535")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LabCollector(name))
    try:
        server, thread = start_http_server(port, HOST, registry)
    except OSError as refused:
        raise MachineError(
            f"cannot listen on {HOST} port {port}: {refused.strerror}", "--port 0 takes one that is free"
        ) from None
    try:
        yield f"http://{HOST}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
