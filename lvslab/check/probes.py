"""What a person would look at on a real server whose requests are not answered, from its own network."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvslab.check.forwarding.facts import Probe
from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import http
from lvslab.check.traffic.http import RequestFailed
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.errors import CheckFailed

if TYPE_CHECKING:
    from lvslab.cluster.cluster import Cluster


class Seen(Protocol):
    """A node as its own processes see the network."""

    def probe(self, address: str, port: int) -> Probe:
        """What the node itself gets when it asks the web server there for a page."""
        ...

    def routes(self) -> str:
        """Its IPv4 routes, as /proc/net/route lists them."""
        ...


@dataclass(frozen=True)
class SeenHere:
    """A Mininet host, looked at by a thread of this process that is in its namespace."""

    namespace: NamespaceThread

    def probe(self, address: str, port: int) -> Probe:
        url = f"http://{endpoint(address, port)}/"
        try:
            http.requests_in_turn(self.namespace, url, 1, connect_timeout=1.0, read_timeout=1.0)
        except RequestFailed as failure:
            return "refused" if failure.kind == "refused" else "no-answer"
        return "answers"

    def routes(self) -> str:
        return self.namespace.call(Path("/proc/thread-self/net/route").read_text)


@dataclass(frozen=True)
class SeenByAgent:
    """A virtual machine, looked at by programs of its own."""

    cluster: Cluster
    node: str

    def probe(self, address: str, port: int) -> Probe:
        # Not wget: the distribution's static busybox has one that crashes (1.35).
        asking = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 1 {address} {port} 2>&1"
        said = self.cluster.observe(self.node, f"{asking}; :")
        if said.startswith("HTTP/"):
            return "answers"
        return "refused" if "refused" in said else "no-answer"

    def routes(self) -> str:
        return self.cluster.observe(self.node, "cat /proc/net/route")


def connect_from(cluster: Cluster, node: str, address: str, port: int) -> None:
    """Have the virtual machine ``node`` connect to ``address`` and ``port`` by TCP and hang up.

    Raises CheckFailed where that does not come about within 5 s.
    """
    said = cluster.observe(node, f"busybox nc -w 5 {address} {port} < /dev/null 2>&1; echo status $?")
    if not said.rstrip().endswith("status 0"):
        raise CheckFailed(f"{node} cannot connect to {address} port {port}", said.strip())


def default_gateway(routes: str) -> str:
    """The gateway of the default route in a listing of /proc/net/route; "" where it has none."""
    for line in routes.splitlines()[1:]:
        _, destination, gateway, _, _, _, _, mask, *_ = line.split()
        if (destination, mask) == ("00000000", "00000000"):
            # Four bytes in the network's order, printed as one number of this machine's.
            return str(IPv4Address(int(gateway, 16).to_bytes(4, sys.byteorder)))
    return ""
