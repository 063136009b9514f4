"""Routes that are followed from node to node."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lvslab.check.diagnosis.ways import Way, follow
from lvslab.check.probes import Route
from tests.unit.fake_cluster import lab_in

LAB = """
title: a director behind a router
networks:
  outer: {subnet: [198.51.100.0/24, "2001:db8:1::/64"]}
  inner: {subnet: [66.199.240.0/24, "2001:db8:2::/64"]}
nodes:
  router:
    role: router
    interfaces:
      eth0: {network: outer, address: [198.51.100.1, "2001:db8:1::1"]}
      eth1: {network: inner, address: [66.199.240.1, "2001:db8:2::1"]}
  director:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: inner, address: 66.199.240.2, gateway: 66.199.240.1}}
  rs1:
    role: real-server
    interfaces: {eth0: {network: inner, address: 66.199.240.100, gateway: 66.199.240.1}}
    services: [{kind: http, port: 80}]
  client:
    role: client
    interfaces: {eth0: {network: outer, address: 198.51.100.10, gateway: 198.51.100.1}}
"""
VIP = "66.199.240.50"
ON_LINK = f"{VIP} dev eth1 src 66.199.240.1\n"
BY_ROUTER = f"{VIP} via 198.51.100.1 dev eth0 src 198.51.100.10\n"


class Node:
    """A node with one route; ``silent`` are neighbours that do not answer."""

    def __init__(self, route: str, forwards: str = "1", silent: str = "") -> None:
        self.route, self.forwards, self.silent = route, forwards, silent

    def output(self, command: str) -> str:
        if command.startswith("ip neigh show"):
            return f"{self.silent} dev eth0 FAILED\n" if command.endswith(f" {self.silent}") else ""
        assert command.startswith("ip route get")
        return self.route

    def read(self, file: str) -> str:
        assert file in ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
        return f"{self.forwards}\n"


def way(tmp_path: Path, target: str = VIP, **nodes: Node) -> Way:
    return follow(lab_in(tmp_path, LAB), lambda name: cast(Any, nodes[name]), "client", target)


def causes(found: Way) -> list[str]:
    return [finding.cause for _, finding in found.findings]


def test_a_way_that_is_whole(tmp_path: Path) -> None:
    found = way(tmp_path, client=Node(BY_ROUTER), router=Node(ON_LINK))
    assert found == Way("client", Route("unicast", "198.51.100.1"), ("router",), ())


@pytest.mark.parametrize(
    "route", ["RTNETLINK answers: Network is unreachable\n", "blackhole 66.199.240.50\n"]
)
def test_a_node_without_a_route(tmp_path: Path, route: str) -> None:
    found = way(tmp_path, client=Node(route))
    assert causes(found) == [f"client has no route to {VIP}"]
    assert found.after_start == []
    behind = way(tmp_path, client=Node(BY_ROUTER), router=Node(route))
    assert [finding.cause for finding in behind.after_start] == [f"router has no route to {VIP}"]


def test_a_next_hop_that_is_not_there(tmp_path: Path) -> None:
    there = f"{VIP} via 198.51.100.254 dev eth0\n"
    found = way(tmp_path, client=Node(there, silent="198.51.100.254"))
    assert causes(found) == [
        f"client's route to {VIP} goes to 198.51.100.254, and no machine answers for that address"
    ]
    # Where it is not known to be silent, nothing is said.
    assert causes(way(tmp_path, client=Node(there))) == []


def test_a_router_that_does_not_forward(tmp_path: Path) -> None:
    found = way(tmp_path, client=Node(BY_ROUTER), router=Node(ON_LINK, forwards="0"))
    assert causes(found) == [
        "ip_forward is 0 on router, a router on the way: it drops packets for other machines"
    ]
    six = "2001:db8:2::50 via 2001:db8:1::1 dev eth0\n"
    found = way(tmp_path, "2001:db8:2::50", client=Node(six), router=Node("", forwards="0"))
    assert causes(found)[0].startswith("IPv6 forwarding is 0 on router")


def test_a_route_around_the_director(tmp_path: Path) -> None:
    around = f"{VIP} via 66.199.240.100 dev eth1\n"
    found = way(tmp_path, client=Node(BY_ROUTER), router=Node(around))
    assert causes(found) == [f"router's route to {VIP} goes to 66.199.240.100, which is rs1, a real server"]


def test_routers_that_send_to_each_other(tmp_path: Path) -> None:
    """The way ends where it would go in a circle."""
    back = f"{VIP} via 66.199.240.1 dev eth1\n"
    assert way(tmp_path, client=Node(BY_ROUTER), router=Node(back)).routers == ("router",)
