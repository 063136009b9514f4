"""What clients ask for at a virtual service."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.services import marks
from lvslab.check.services.target import NotAsked, Target, _near_first, target_of
from tests.unit.fake_cluster import LAB, FakeCluster, lab_in

RULES = marks.command(4)
BOTH = "[{kind: http, port: 80}, {kind: http, port: 8080}]"


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    answers = {"ip route get 127.0.0.9 2>&1; :": "127.0.0.9 dev eth0 src 127.0.0.1 uid 0\n"}
    return FakeCluster(lab_in(tmp_path, LAB.replace("[{kind: http, port: 80}]", BOTH)), answers=answers)


def target(cluster: FakeCluster, service: str, *servers: str, port: int = 0) -> Target:
    option = service.partition(" -s")[0].partition(" -p")[0]
    rules = [f"-A {service}", *(f"-a {option} -r {server}" for server in servers)]
    (found,) = parse_rules("\n".join(rules))
    return target_of(cluster, found, "director", "client", port)


@pytest.mark.parametrize(
    ("service", "servers", "found"),
    [
        ("-t 127.0.0.1:80", ["10.0.0.100:80 -m", "10.0.0.101:80 -m"], Target("http", "127.0.0.1", 80)),
        # Masquerading can change the port; direct routing cannot.
        ("-t 127.0.0.1:88", ["10.0.0.100:8080 -m"], Target("http", "127.0.0.1", 88)),
        ("-t 127.0.0.1:8080", ["10.0.0.100:8080 -g"], Target("http", "127.0.0.1", 8080)),
        ("-t 127.0.0.1:0 -p 300", ["10.0.0.100:0 -g", "10.0.0.101:0 -g"], Target("http", "127.0.0.1", 80)),
    ],
)
def test_what_is_asked_for(cluster: FakeCluster, service: str, servers: list[str], found: Target) -> None:
    assert target(cluster, service, *servers) == found
    assert found.url == f"http://127.0.0.1:{found.port}/"


def test_one_of_several_ports(cluster: FakeCluster) -> None:
    servers = ["10.0.0.100:0 -m", "10.0.0.101:0 -m"]
    found = target(cluster, "-t 127.0.0.1:0 -p 300", *servers, port=8080)
    assert found == Target("http", "127.0.0.1", 8080)
    with pytest.raises(NotAsked, match=r"127\.0\.0\.1:0 has no port 25\n.*it has 80 and 8080"):
        target(cluster, "-t 127.0.0.1:0 -p 300", *servers, port=25)


def test_a_mark_by_the_directors_rules(cluster: FakeCluster) -> None:
    rule = "-A PREROUTING -d 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x3/0xffffffff"
    cluster.answers[RULES] = f"*mangle\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    assert target(cluster, "-f 3", "10.0.0.100:0 -m") == Target("http", "127.0.0.1", 8080)
    with pytest.raises(NotAsked, match="gives packets to port 80 the mark 3; those to port 8080 get it"):
        target(cluster, "-f 3", "10.0.0.100:0 -m", port=80)
    inside = rule.replace("-p tcp", "-i eth1 -p tcp")
    cluster.answers[RULES] = f"*mangle\n:PREROUTING ACCEPT [0:0]\n{inside}\nCOMMIT\n"
    with pytest.raises(NotAsked, match=r"no packet to an address .* gets mark 3: .* -i eth1"):
        target(cluster, "-f 3", "10.0.0.100:0 -m")
    cluster.answers[RULES] = "sh: iptables-save: not found\n"
    with pytest.raises(NotAsked, match="no rule of the director's mangle table sets mark 3"):
        target(cluster, "-f 3", "10.0.0.100:0 -m")


def test_a_mark_whose_servers_have_another_port(cluster: FakeCluster) -> None:
    """Masquerading maps it, direct routing does not, and neither does a persistent service."""
    rule = "-A PREROUTING -d 127.0.0.1/32 -p tcp -m tcp --dport 88 -j MARK --set-xmark 0x3/0xffffffff"
    cluster.answers[RULES] = f"*mangle\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n"
    assert target(cluster, "-f 3", "10.0.0.100:8080 -m", "10.0.0.101:80 -m") == Target(
        "http", "127.0.0.1", 88
    )
    for service, server in (("-f 3", "10.0.0.100:8080 -g"), ("-f 3 -p 300", "10.0.0.100:8080 -m")):
        with pytest.raises(
            NotAsked, match=r"in common .*\n.* reach firewall mark 3: 127\.0\.0\.1:88 \(tcp\)"
        ):
            target(cluster, service, server)


def test_a_mark_is_asked_for_where_the_client_is_of_both_families(tmp_path: Path) -> None:
    text = LAB
    for one, other in (
        ("subnet: 10.0.0.0/24", 'subnet: [10.0.0.0/24, "fd00::/64"]'),
        ("subnet: 127.0.0.0/24", 'subnet: [127.0.0.0/24, "fd01::/64"]'),
        ("address: 10.0.0.1}", 'address: [10.0.0.1, "fd00::1"]}'),
        ("address: 127.0.0.1}", 'address: [127.0.0.1, "fd09::9/128", "fd01::1"]}'),
    ):
        assert one in text
        text = text.replace(one, other)
    cluster = FakeCluster(lab_in(tmp_path, text))
    assert [*_near_first(cluster, "director", "client", 4)] == ["127.0.0.1", "10.0.0.1"]
    assert [*_near_first(cluster, "director", "client", 6)] == ["fd01::1", "fd09::9", "fd00::1"]


@pytest.mark.parametrize(
    ("service", "servers", "says"),
    [
        ("-t 127.0.0.1:80", [], "has no servers"),
        ("-t 127.0.0.1:80", ["10.0.0.77:80 -m"], r"no server with the address 10\.0\.0\.77"),
        ("-t 127.0.0.1:25", ["10.0.0.100:25 -m"], "no service in lab.yaml in common"),
        ("-u 127.0.0.1:80", ["10.0.0.100:80 -m"], "no service in lab.yaml in common"),
    ],
)
def test_what_cannot_be_asked_for(cluster: FakeCluster, service: str, servers: list[str], says: str) -> None:
    with pytest.raises(NotAsked, match=says):
        target(cluster, service, *servers)


def test_sctp_on_a_machine_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = LAB.replace("{kind: http, port: 80}", "{kind: sctp, port: 7}")
    cluster = FakeCluster(lab_in(tmp_path, text))
    service = "--sctp-service 127.0.0.1:7"
    monkeypatch.setattr("lvslab.check.traffic.greeting.sctp_here", lambda: True)
    assert target(cluster, service, "10.0.0.100:7 -m") == Target("sctp", "127.0.0.1", 7)
    monkeypatch.setattr("lvslab.check.traffic.greeting.sctp_here", lambda: False)
    with pytest.raises(NotAsked, match=r"client cannot ask 127\.0\.0\.1:7 \(sctp\): this machine's kernel"):
        target(cluster, service, "10.0.0.100:7 -m")
