"""Real servers that are examined, and nodes that send to the wrong hardware address."""

from __future__ import annotations

from typing import Any

import pytest

from lvslab.check.examine import _examined, diverted, examined_address, macs, void_entry
from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import Asked, ClusterFacts
from lvslab.check.ipvs import director
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.verdict import diagnose
from lvslab.errors import BootError
from tests.unit.fake_cluster import FakeCluster


def test_hardware_addresses_of_a_node() -> None:
    links = """\
1: lo: <LOOPBACK> mtu 65536 state UNKNOWN \\    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
2: eth0@if3: <UP> mtu 1500 \\    link/ether 02:00:00:00:00:0a brd ff:ff:ff:ff:ff:ff link-netnsid 0
"""
    assert macs(links) == ["02:00:00:00:00:0a"]


def test_a_server_is_examined_at_its_address_of_the_service() -> None:
    four, six = parse_rules(
        "-A -t 66.199.240.50:80 -s rr\n-a -t 66.199.240.50:80 -r 10.0.0.100:80 -m\n"
        "-A -t [2001:db8::50]:80 -s rr\n-a -t [2001:db8::50]:80 -r [fd00::100]:80 -m\n"
    )
    assert examined_address(["10.0.0.100", "fd00::100"], four) == "10.0.0.100"
    assert examined_address(["10.0.0.100", "fd00::100"], six) == "fd00::100"
    # Servers of other services have nothing to do with this one.
    assert examined_address(["10.0.0.101", "fd00::101"], six) is None


class Hung:
    """A virtual machine that does not answer."""

    def output(self, command: str) -> str:
        raise BootError("rs1 has not answered for 30 s")

    read = output

    def probe(self, address: str, port: int) -> None:
        self.output("")


def test_a_server_that_does_not_answer_does_not_hide_other_causes() -> None:
    (service,) = parse_rules("-A -t 127.0.0.1:80 -s rr\n-a -t 127.0.0.1:80 -r 10.0.0.100:80 -i\n")
    asked = Asked(service, "127.0.0.1")
    found = _examined(method_for("tunneling"), Hung(), "rs1", "10.0.0.100", 80, asked)
    assert found.unexamined == "rs1 has not answered for 30 s"
    facts = ClusterFacts(str(service), "", (service,), (service,), (found,), ip_forward=1)
    (cause,) = diagnose(facts)
    assert cause.cause == "rs1 cannot be examined: rs1 has not answered for 30 s"

    class Other:
        def output(self, command: str) -> str:
            if command.startswith("ip neigh"):
                return "127.0.0.1 dev eth0 lladdr 02:00:00:00:00:0b REACHABLE\n"
            return "2: eth0: <UP> mtu 1500 \\    link/ether 02:00:00:00:00:0b brd ff:ff:ff:ff:ff:ff\n"

    def see(name: str) -> Any:
        return Hung() if name == "rs1" else Other()

    assert diverted(FakeCluster(), asked, see) == {"client": "rs2"}


OWN = "66.199.240.10:6001"
NODEST = "cat /proc/sys/net/ipv4/vs/expire_nodest_conn 2> /dev/null; :"


@pytest.mark.parametrize(
    ("server", "value", "says"),
    [
        ("10.0.0.101:80", "0\n", "is 0, so it drops the packets until the entry expires in 118 s"),
        ("10.0.0.101:80", "1\n", "expire_nodest_conn is 1"),
        ("10.0.0.101:80", "", "expire_nodest_conn is not known"),
        ("10.0.0.100:80", "0\n", None),
        ("10.0.0.100:8080", "0\n", "10.0.0.100:8080, a real server that was removed"),
    ],
)
def test_an_entry_of_a_removed_server(server: str, value: str, says: str | None) -> None:
    rules = "-A -t 66.199.240.50:80 -s rr\n-a -t 66.199.240.50:80 -r 10.0.0.100:80 -m\n"
    entries = f"TCP 01:58 ESTABLISHED {OWN} 66.199.240.50:80 {server}\n"
    answers = {"ipvsadm -Sn": rules, director.ENTRIES: entries, NODEST: value}
    cluster = FakeCluster(answers=answers)
    found = void_entry(cluster, "director", OWN)
    assert (found is None) is (says is None)
    if found is not None and says is not None:
        assert f"entry for {OWN} still points to {server}" in found.cause and says in found.cause
    assert void_entry(cluster, "director", "66.199.240.10:6002") is None


def test_a_server_of_every_port_is_in_the_table() -> None:
    rules = "-A -t 66.199.240.50:0 -s rr -p 300\n-a -t 66.199.240.50:0 -r 10.0.0.100:0 -m\n"
    entries = f"TCP 01:58 ESTABLISHED {OWN} 66.199.240.50:80 10.0.0.100:80\n"
    cluster = FakeCluster(answers={"ipvsadm -Sn": rules, director.ENTRIES: entries, NODEST: "0\n"})
    assert void_entry(cluster, "director", OWN) is None
