"""Probes inside a node, for the diagnosis of requests that are not answered."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvslab.check.traffic import http
from lvslab.check.traffic.clients import CLIENTS
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.check.traffic.request import RequestFailed, new_request_id
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.check.forwarding.facts import Probe
    from lvslab.cluster.running import RunningLab


class NodeView(Protocol):
    """The network as processes on a node see it."""

    def probe(self, address: str, port: int) -> Probe | None:
        """Make a request from inside the node and tell what comes back.

        None where lvslab cannot make one.
        """
        ...

    def read(self, file: str) -> str:
        """Read a file of /proc, such as /proc/net/route for its IPv4 routes."""
        ...


@dataclass(frozen=True)
class HostView:
    """The view of a Mininet host, by a thread of this process in its namespace.

    ``kind`` is that of the servers that `probe` asks, as in ``lab.yaml``.
    """

    namespace: NamespaceThread
    kind: str = "http"

    def probe(self, address: str, port: int) -> Probe | None:
        if self.kind != "http":
            return self._ask(address, port)
        made = http.attempt(self.namespace, address, port, http.new_request_id(), patience=1.0)
        if made.failure in (None, "status"):
            return "answers"
        return "refused" if made.failure == "refused" else "no-answer"

    def _ask(self, address: str, port: int) -> Probe | None:
        if (ask := CLIENTS.get(self.kind)) is None:
            return None
        try:
            self.namespace.call(ask, address, port, new_request_id())
        except RequestFailed as failed:
            return "refused" if failed.kind == "refused" else "no-answer"
        return "answers"

    def read(self, file: str) -> str:
        return self.namespace.call(Path(file.replace("/proc/net/", "/proc/thread-self/net/")).read_text)


@dataclass(frozen=True)
class GuestView:
    """The view of a virtual machine, by programs that its agent runs. It asks web servers only."""

    cluster: RunningLab
    node: str
    kind: str = "http"

    def probe(self, address: str, port: int) -> Probe | None:
        if self.kind != "http":
            return None
        # Not wget: the distribution's static busybox has one that crashes (1.35).
        asking = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 1 {address} {port} 2>&1"
        said = self.cluster.observe(self.node, f"{asking}; :")
        if said.startswith("HTTP/"):
            return "answers"
        return "refused" if "refused" in said else "no-answer"

    def read(self, file: str) -> str:
        return self.cluster.observe(self.node, f"cat {file}")


def connect_from(cluster: RunningLab, node: str, address: str, port: int) -> None:
    """Have the virtual machine ``node`` make and close a TCP connection. Raises CheckFailed after 5 s."""
    said = cluster.observe(node, f"busybox nc -w 5 {address} {port} < /dev/null 2>&1; echo status $?")
    if not said.rstrip().endswith("status 0"):
        raise CheckFailed(f"{node} cannot connect to {address} port {port}", said.strip())


def default_gateway(routes: str) -> str:
    """Return the default route's gateway in a listing of /proc/net/route, "" for none."""
    for line in routes.splitlines()[1:]:
        _, destination, gateway, _, _, _, _, mask, *_ = line.split()
        if (destination, mask) == ("00000000", "00000000"):
            # Four bytes in network order, printed as a number in this machine's byte order.
            return str(IPv4Address(int(gateway, 16).to_bytes(4, sys.byteorder)))
    return ""
