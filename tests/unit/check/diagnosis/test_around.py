"""Causes around a service: addresses, neighbours and ways of a small lab."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lvslab.check.diagnosis import around
from lvslab.check.forwarding.facts import Asked
from lvslab.check.ipvs.rules import parse_rules
from lvslab.errors import BootError
from tests.unit.fake_cluster import LAB, lab_in, usual_lab

UNREACHABLE = "RTNETLINK answers: Network is unreachable\n"
MACS = {"rs1": "02:00:00:00:00:0a", "rs2": "02:00:00:00:00:0b"}
ADDRESSES = {"rs1": "10.0.0.100", "rs2": "10.0.0.101", "client": "127.0.0.9", "director": "10.0.0.1"}


class Node:
    """A node of the usual lab as it should be, but for some commands."""

    def __init__(self, name: str, but: Mapping[str, str] = {}) -> None:
        self.name, self.but = name, but

    def read(self, file: str) -> str:
        assert file == "/proc/sys/net/ipv4/ip_forward"
        return "1\n"

    def output(self, command: str) -> str:
        for begin, text in self.but.items():
            if f"{command} ".startswith(begin):
                return text
        words = command.split()
        if command.startswith("ip neigh show"):
            owner = next((name for name, each in ADDRESSES.items() if each == words[-1]), "")
            return f"{words[-1]} dev eth1 lladdr {MACS[owner]} REACHABLE\n" if owner in MACS else ""
        if command.startswith("ip -o link"):
            return f"2: eth0: <UP> mtu 1500 \\ link/ether {MACS.get(self.name, '02:00:00:00:00:01')}\n"
        if command.startswith("ip -o addr"):
            return f"2: eth0    inet {ADDRESSES[self.name]}/24 scope global eth0\n"
        assert command.startswith("ip route get")
        on_link = words[3].startswith("10.") or self.name in ("client", "director")
        return f"{words[3]} dev eth0\n" if on_link else f"{words[3]} via 10.0.0.1 dev eth0\n"


def causes(
    method: str = "-m", servers: tuple[str, ...] = ("10.0.0.100", "10.0.0.101"), **nodes: Any
) -> list[str]:
    rules = "".join(f"-a -t 127.0.0.1:80 -r {server}:80 {method}\n" for server in servers)
    (service,) = parse_rules(f"-A -t 127.0.0.1:80 -s rr\n{rules}")
    lab = usual_lab()
    found = around.examine(
        lab,
        lambda name: cast(Any, nodes.get(name) or Node(name)),
        "director",
        Asked(service, "127.0.0.1", "127.0.0.9"),
        service,
    )
    assert found.nodes == ("client", *(name for name in ("rs1", "rs2") if ADDRESSES[name] in servers))
    return [finding.cause for finding in found.findings]


def test_a_whole_lab_has_no_cause() -> None:
    assert causes() == []
    assert causes("-g") == []


def test_a_server_without_its_address() -> None:
    other = Node("rs1", {"ip -o addr": "2: eth0    inet 10.0.0.111/24 scope global eth0\n"})
    assert causes(rs1=other) == [
        "rs1 does not have the address 10.0.0.100, to which the director sends its packets"
    ]


def test_a_server_with_an_address_of_the_director() -> None:
    """It is a cause only where the director finds no hardware address: it may do no harm."""
    own = Node("rs2", {"ip route get 10.0.0.1 ": "local 10.0.0.1 dev lo src 10.0.0.1\n"})
    assert causes(rs2=own) == []
    director = Node("director", {"ip neigh show 10.0.0.101": "10.0.0.101 dev eth1 FAILED\n"})
    assert causes(rs2=own, director=director) == [
        "rs2 takes 10.0.0.1, an address of the director, for its own, and no answer of it came to the "
        "director's ARP requests for 10.0.0.101"
    ]


def test_a_neighbour_that_is_not_the_server() -> None:
    director = Node(
        "director", {"ip neigh show 10.0.0.100": "10.0.0.100 dev eth1 lladdr 02:de:ad:00:00:01 PERMANENT\n"}
    )
    assert causes(director=director) == [
        "the director sends packets for 10.0.0.100 to 02:de:ad:00:00:01, which is not a card of rs1"
    ]
    director.but = {"ip neigh show 10.0.0.101": "10.0.0.101 dev eth1 FAILED\n"}
    assert causes(director=director) == [
        "no answer of rs2 came to the director's ARP requests for 10.0.0.101"
    ]


def test_a_director_without_a_route() -> None:
    director = Node("director", {"ip route get 10.0.0.101": "RTNETLINK answers: Network is unreachable\n"})
    assert causes(director=director) == ["the director has no route to 10.0.0.101:80"]


def test_a_card_that_is_down_comes_before_what_follows_from_it() -> None:
    director = Node(
        "director",
        {"ip route get 10.0.0.1": UNREACHABLE, "ip -o link": "2: eth1: <BROADCAST> mtu 1500 state DOWN\n"},
    )
    assert causes(director=director)[:2] == [
        "eth1 of director is down",
        "the director has no route to 10.0.0.100:80",
    ]


def test_direct_routing_by_way_of_a_router() -> None:
    director = Node("director", {"ip route get 10.0.0.100": "10.0.0.100 via 127.0.0.77 dev eth0\n"})
    (cause,) = causes("-g", director=director)
    assert cause.startswith("the director reaches 10.0.0.100:80 by the router 127.0.0.77, to which direct ")
    assert causes("-m", director=director) == []


def test_a_virtual_machine_that_does_not_answer_hides_no_other_cause() -> None:
    class Hung:
        def output(self, command: str) -> str:
            raise BootError("rs1 has not answered for 30 s")

        read = output

    director = Node("director", {"ip route get 10.0.0.101": "RTNETLINK answers: Network is unreachable\n"})
    assert causes(director=director, rs1=Hung()) == ["the director has no route to 10.0.0.101:80"]


def test_routers_on_the_way_to_the_client_are_watched(tmp_path: Path) -> None:
    """Also where replies do not come by the director: its ICMP messages go there."""
    router = "  router:\n    role: router\n    interfaces: {eth0: {network: outer, address: 127.0.0.7}}\n"
    (service,) = parse_rules("-A -t 127.0.0.1:80 -s rr\n-a -t 127.0.0.1:80 -r 10.0.0.100:80 -g\n")
    by_router = {"ip route get 127.0.0.9": "127.0.0.9 via 127.0.0.7 dev eth0\n"}
    nodes = {"director": Node("director", by_router), "router": Node("router")}
    found = around.examine(
        lab_in(tmp_path, LAB + router),
        lambda name: cast(Any, nodes.get(name) or Node(name)),
        "director",
        Asked(service, "127.0.0.1", "127.0.0.9"),
        service,
    )
    assert found.nodes == ("client", "router", "rs1")
