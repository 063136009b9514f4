"""Prometheus metrics of a lab's directors, read at each scrape.

Names, units and types follow Prometheus's conventions, and those of node_exporter's IPVS collector, which
has the counters of all services together, and servers' weights and connections. They are served on this
machine's loopback only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from itertools import chain

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from lvslab.boot.status import LabStatus
from lvslab.check.ipvs import director as directors
from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.listing import Counters
from lvslab.check.monitor import watch
from lvslab.cluster import registry
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
        yield from (self.lab_up, self.up, *chain.from_iterable(self.counted.values()))
        yield from (self.service, self.server, self.weight, self.active, self.inactive)

    def add(self, labels: list[str], found: Reading | LvsLabError, names: Mapping[str, str]) -> None:
        """Add a reading of a director, or its error; ``names`` are of nodes by address."""
        self.up.add_metric(labels, float(isinstance(found, Reading)))
        if isinstance(found, LvsLabError):
            return
        self._count("", labels, found.stats.counters if found.stats else None)
        for row in found.connections:
            family = "fwmark-ipv6" if row.protocol == "fwmark" and row.ipv6 else row.protocol
            service = [*labels, family, row.address, str(row.port), str(row.mark or "")]
            self.service.add_metric(service, {"scheduler": row.scheduler, "flags": row.flags})
            self._count("service_", service, found.totals.get(str(row)))
            for real in row.servers:
                server = [*service, names.get(real.address, ""), real.address, str(real.port)]
                self.server.add_metric(server, {"forwarding": real.forwarding})
                self.weight.add_metric(server, real.weight)
                self.active.add_metric(server, real.active)
                self.inactive.add_metric(server, real.inactive)
                self._count("server_", server, found.by_server.get((str(row), str(real))))

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
        registry.status(name)  # a lab that is not there is an error now, and not at every scrape

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of one scrape; an unreadable lab is a metric too."""
        families = Families()
        there = self._there()
        families.lab_up.add_metric([self.name], float(there is not None))
        if there is not None:
            with ThreadPoolExecutor(max(1, len(there.directors)), "scrape") as workers:
                readings = workers.map(self._read, there.directors)
                for director, found in zip(there.directors, readings, strict=True):
                    families.add([self.name, director], found, there.names)
        yield from families

    def _there(self) -> LabStatus | None:
        """Return the status of the lab that is up now, or None."""
        try:
            return registry.status(self.name)
        except LvsLabError:
            return None  # it has ended, or is just coming up, or going

    def _read(self, director: str) -> Reading | LvsLabError:
        return watch.glance(
            self.name, director, lambda by, node: directors.read_director(by, node, directors.MONITORED)
        )


@contextmanager
def served(name: str, port: int) -> Iterator[str]:
    """Serve the metrics of the lab ``name`` during the block; yield the URL.

    ``port`` 0 takes a free one. Raises StateError, UsageError and MachineError.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}", "it takes a number from 0 (any that is free) to 65535")
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(LabCollector(name))
    try:
        server, thread = start_http_server(port, HOST, collectors)
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
