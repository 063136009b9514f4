"""Rounds through a virtual server in miniature: one process on loopback that does what a director and its
real servers do together, and tells of it as they would."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from lvslab.apply.howto import Step
from lvslab.apply.ssh import Executed
from lvslab.check import rounds, verdict
from lvslab.check.ipvs import director
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.probes import HostView
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.http import Here
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.cluster.cluster import Cluster
from lvslab.errors import CheckFailed
from lvslab.lab import loader

LAB = """
title: for a test
networks:
  lan: {subnet: 10.0.0.0/24}
  outer: {subnet: 127.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: outer, address: 127.0.0.1}
      eth1: {network: lan, address: 10.0.0.1}
  rs1:
    role: real-server
    interfaces: {eth0: {network: lan, address: 10.0.0.100, gateway: 10.0.0.1}}
    services: [{kind: http, port: 80}]
  rs2:
    role: real-server
    interfaces: {eth0: {network: lan, address: 10.0.0.101, gateway: 10.0.0.1}}
    services: [{kind: http, port: 80}]
  client:
    role: client
    interfaces: {eth0: {network: outer, address: 127.0.0.9}}
"""


@dataclass
class Miniature:
    """A cluster that is one listening socket. ``inactive`` counts connections by real server; ``turns`` are
    the addresses of the servers that get the next ones, where wlc shall not say."""

    lab: loader.Lab
    port: int
    commands: list[str]
    inactive: dict[str, int] = field(default_factory=lambda: {"10.0.0.100": 0, "10.0.0.101": 0})
    entries: list[tuple[str, str]] = field(default_factory=list)
    log: dict[str, list[str]] = field(default_factory=lambda: {"rs1": [], "rs2": []})
    weights: dict[str, int] = field(default_factory=lambda: {"10.0.0.100": 1, "10.0.0.101": 2})
    forgets: list[str] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    elsewhere: str = ""
    versions: dict[str, str] = field(default_factory=lambda: {"kernel": "6.1.176"})
    ip_forward: int = 1
    evidence: Path = Path("/nonexistent")

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(
            Step(0, "director", command.replace("PORT", str(self.port)), 0) for command in self.commands
        )

    def serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536)
        # The server with the fewest connections for its weight; of equals the one that was added last.
        server = (
            self.turns.pop(0)
            if self.turns
            else min(
                reversed(self.weights), key=lambda address: self.inactive[address] / self.weights[address]
            )
        )
        name = "rs1" if server == "10.0.0.100" else "rs2"
        found = re.search(rb"X-Request-ID: (\S+)", request)
        assert found
        row = {"time": 1.0, "request_id": found[1].decode(), "client": peer[0], "client_port": str(peer[1])}
        self.log[name].append(json.dumps({**row, "status": 200, "path": "/", "server": name}))
        self.inactive[server] += 1
        self.entries.append((f"{peer[0]}:{peer[1]}", f"{server}:80"))
        if self.forgets:
            self.inactive[self.forgets.pop()] -= 1
        head = f"HTTP/1.1 200 OK\r\nX-Real-Server: {name}\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode())

    def execute(self, node: str, command: str) -> Executed:
        if command == "ip route show default":
            return Executed(b"default via 10.0.0.1 dev eth0 \n", b"", 0)
        raise AssertionError(f"{command} on {node}: to look at a director takes no login")

    def observe(self, node: str, command: str) -> str:
        assert node == "director"
        if command.startswith("cat /proc/uptime"):
            return "9.50 1.20\n"
        vip = f"127.0.0.1:{self.port}"
        rules, listing, stats = f"-A -t {vip} -s wlc\n", f"TCP  {vip} wlc\n", f"TCP  {vip} 0 0 0 0 0\n"
        for server, weight in self.weights.items():
            count = self.inactive[server]
            rules += f"-a -t {vip} -r {server}:80 -m -w {weight}\n"
            listing += f"  -> {server}:80  Masq  {weight}  0  {count}\n"
            stats += f"  -> {server}:80  {count} 0 0 0 0\n"
        entries = "".join(f"TCP 01:58 TIME_WAIT {source} {vip} {to}\n" for source, to in self.entries)
        answers = {
            "ipvsadm -Sn": rules,
            "ipvsadm -Ln --thresholds": "",
            "ipvsadm -Ln": _LISTING_HEAD + listing,
            "ipvsadm -Ln --stats --exact": _STATS_HEAD + stats,
            director.ENTRIES: _ENTRIES_HEAD + entries + self.elsewhere,
            "cat /proc/sys/net/ipv4/ip_forward": f"{self.ip_forward}\n",
        }
        parts = command.split(" && ")
        for mark in re.findall(r"echo '(-- \w+)'", command)[:1]:
            return f"{mark}\n".join(answers[part] for part in parts[::2])
        return answers[command]

    def is_enterable(self, node: str) -> bool:
        return node != "director"

    def access_log(self, node: str) -> str:
        return "".join(f"{line}\n" for line in self.log[node])


_LISTING_HEAD = (
    "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
)
_STATS_HEAD = (
    "IP Virtual Server version 1.2.1 (size=4096)\n"
    "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n"
    "  -> RemoteAddress:Port\n"
)
_ENTRIES_HEAD = "IPVS connection entries\npro expire state source virtual destination\n"

# /proc/net/route on a little-endian machine, as it pads its lines.
ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100000A	0003	0	0	0	00000000	0	0	0
eth0	0000000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""

COMMANDS = [
    "ipvsadm -A -t 127.0.0.1:PORT -s wlc",
    "ipvsadm -a -t 127.0.0.1:PORT -r 10.0.0.100:80 -m",
    "ipvsadm -a -t 127.0.0.1:PORT -r 10.0.0.101:80 -m -w 2",
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Miniature]:
    (tmp_path / "lab.yaml").write_text(LAB)
    made: list[Miniature] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            made[0].serve(self.request, self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        made.append(Miniature(loader.load(tmp_path), server.server_address[1], list(COMMANDS)))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield made[0]
        finally:
            server.shutdown()
            thread.join()


def take(cluster: Miniature, count: int = 9) -> rounds.Round:
    def namespaces(node: str) -> NamespaceThread:
        return cast(NamespaceThread, Here())

    return rounds.take(cast(Cluster, cluster), namespaces, client="client", director="director", count=count)


def test_a_round_is_what_was_foreseen_and_everybody_counts_the_same(cluster: Miniature) -> None:
    taken = take(cluster)
    assert taken.url == f"http://127.0.0.1:{cluster.port}/"
    assert taken.observed == taken.forecast
    # wlc with weights 1 and 2, the last one added first (ip_vs_wlc.c): counted by hand.
    assert taken.forecast[:6] == ("rs2", "rs1", "rs2", "rs2", "rs1", "rs2")
    counts = {"rs1": 3, "rs2": 6}
    assert taken.observed_counts == taken.expected_counts == taken.director == taken.logged == counts
    assert taken.sources == {"127.0.0.1"}
    assert "Masq" in taken.table
    assert taken.service == f"127.0.0.1:{cluster.port}"


def test_a_second_round_begins_where_the_first_one_ended(cluster: Miniature) -> None:
    take(cluster, 4)
    taken = take(cluster, 5)
    assert taken.observed == taken.forecast
    # Only this round's requests are counted.
    assert sum(taken.logged.values()) == sum(taken.director.values()) == 5


def test_another_order_than_foreseen_is_seen(cluster: Miniature) -> None:
    cluster.weights["10.0.0.101"] = 1
    taken = take(cluster)
    assert taken.observed != taken.forecast
    assert taken.observed_counts != taken.expected_counts


def test_a_round_in_which_a_connection_was_forgotten_is_taken_again(cluster: Miniature) -> None:
    cluster.inactive["10.0.0.101"] = 5
    cluster.forgets = ["10.0.0.101"]
    taken = take(cluster)
    assert taken.observed == taken.forecast
    assert sum(len(log) for log in cluster.log.values()) == 18


def test_a_director_that_always_forgets_is_not_tried_for_ever(cluster: Miniature) -> None:
    cluster.inactive["10.0.0.101"] = 50
    cluster.forgets = ["10.0.0.101"] * 50
    assert len(take(cluster, 3).replies) == 3
    assert sum(len(log) for log in cluster.log.values()) == 12


def test_the_last_lines_of_a_log_may_come_late(cluster: Miniature) -> None:
    late: list[str] = []
    asked: list[str] = []
    log = cluster.access_log

    def access_log(node: str) -> str:
        asked.append(node)
        if not late and node == "rs2":
            late.append(cluster.log["rs2"].pop())
        elif len(asked) > 6 and len(late) == 1:
            late.append("told")
            cluster.log["rs2"].append(late[0])
        return log(node)

    cluster.access_log = access_log  # type: ignore[method-assign]
    assert take(cluster, 3).logged == {"rs1": 1, "rs2": 2}


def test_a_log_that_never_has_a_request(cluster: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_LOG_SECONDS", 0.05)
    cluster.access_log = lambda node: ""  # type: ignore[method-assign]
    assert take(cluster, 3).logged == {}


def test_no_answer_comes_with_its_likely_cause(cluster: Miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.ip_forward = 0
    cluster.serve = lambda connection, peer: None  # type: ignore[method-assign]
    probed: list[str] = []

    def probe(self: HostView, address: str, port: int) -> str:
        probed.append(f"{address}:{port}")
        return "answers"

    monkeypatch.setattr(HostView, "probe", probe)
    monkeypatch.setattr(HostView, "routes", lambda self: ROUTES)
    with pytest.raises(CheckFailed, match="request 1 of 9") as caught:
        take(cluster)
    hint = caught.value.hint or ""
    assert hint.startswith("ip_forward is 0 on the director")
    assert "default route" not in hint
    assert sorted(probed) == ["10.0.0.100:80", "10.0.0.101:80"]
    monkeypatch.setattr(HostView, "routes", lambda self: ROUTES.replace("0100000A", "FE00000A"))
    with pytest.raises(CheckFailed, match=r"rs1's default route goes to 10\.0\.0\.254"):
        take(cluster)


def test_a_scheduler_without_a_model(cluster: Miniature) -> None:
    cluster.commands[0] = "ipvsadm -A -t 127.0.0.1:PORT -s twos"
    cluster.versions["kernel"] = "6.1"
    with pytest.raises(CheckFailed, match=r"cannot be foreseen: twos draws its servers"):
        take(cluster)


def test_a_scheduler_that_looks_at_ports(cluster: Miniature) -> None:
    cluster.commands[0] = "ipvsadm -A -t 127.0.0.1:PORT -s sh -b sh-port"
    with pytest.raises(CheckFailed, match=r"sh-port chooses them by the client's port"):
        take(cluster)


def test_a_forwarding_method_without_a_model(cluster: Miniature) -> None:
    (service,) = parse_rules("-A -t 127.0.0.1:80 -s rr\n-a -t 127.0.0.1:80 -r 10.0.0.100 -i\n")
    with pytest.raises(CheckFailed, match="cannot be foreseen: lvslab has no model of tunneling yet"):
        rounds.refuse_unforeseen(cast(Cluster, cluster), service)


def test_a_persistent_service_stays_with_the_server_that_it_chose(cluster: Miniature) -> None:
    cluster.commands[0] = "ipvsadm -A -t 127.0.0.1:PORT -s wlc -p 300"
    assert take(cluster, 3).forecast == ("rs2", "rs2", "rs2")
    # The kernel's template of it: the client without its port. Another service has one of its own.
    cluster.entries.append(("127.0.0.9:0", "10.0.0.100:80"))
    cluster.elsewhere = "TCP 04:58 NONE 127.0.0.9:0 127.0.0.1:443 10.0.0.101:443\n"
    cluster.turns = ["10.0.0.100"] * 3
    taken = take(cluster, 3)
    assert taken.forecast == taken.observed == ("rs1", "rs1", "rs1")


def test_a_persistent_service_stays_with_a_network_of_clients(cluster: Miniature) -> None:
    cluster.commands[0] = "ipvsadm -A -t 127.0.0.1:PORT -s rr -p 300 -M 255.255.255.0"
    cluster.entries.append(("127.0.0.0:0", "10.0.0.100:80"))
    assert take(cluster, 2).forecast == ("rs1", "rs1")
    # How often rr was asked is not counted, where each client asks it once.
    cluster.entries.clear()
    with pytest.raises(CheckFailed, match="how often a persistent service has asked rr is not counted"):
        take(cluster, 2)


def test_wrr_goes_on_where_the_counters_say(cluster: Miniature) -> None:
    cluster.commands[0] = "ipvsadm -A -t 127.0.0.1:PORT -s wrr"
    one, two = "10.0.0.100", "10.0.0.101"
    # Rounds for weight 1 and 2 of the list two, one (ip_vs_wrr.c, 4.19.79): counted by hand.
    cluster.turns = [two, one, two, two, one, two, two]
    first = take(cluster, 4)
    assert first.forecast == first.observed == ("rs2", "rs1", "rs2", "rs2")
    second = take(cluster, 3)
    assert second.forecast == second.observed == ("rs1", "rs2", "rs2")


def test_sh_is_asked_about_the_clients_address(cluster: Miniature) -> None:
    cluster.commands[0] = "ipvsadm -A -t 127.0.0.1:PORT -s sh"
    # 127.0.0.9 times 0x61c88647 ends in 0xa90cb87f, so place 0xa9, and 169 % 3 = 1 is the second of rs2,
    # rs2, rs1.
    assert set(take(cluster, 2).forecast) == {"rs2"}


def test_a_round_through_another_service(cluster: Miniature) -> None:
    cluster.commands[:0] = ["ipvsadm -A -t 127.0.0.1:1", "ipvsadm -a -t 127.0.0.1:1 -r 10.0.0.100:80 -m"]

    def named(service: str) -> rounds.Round:
        return rounds.take(
            cast(Cluster, cluster),
            lambda node: cast(NamespaceThread, Here()),
            client="client",
            director="director",
            count=2,
            service=service,
        )

    assert named(f"127.0.0.1:{cluster.port}").observed_counts == {"rs2": 1, "rs1": 1}
    with pytest.raises(CheckFailed, match=r"make no web service 127\.0\.0\.1:2 on director"):
        named("127.0.0.1:2")


def test_which_services_are_for_the_web(cluster: Miniature) -> None:
    cluster.commands += [
        "ipvsadm -A -u 127.0.0.1:53 -s rr",
        "ipvsadm -a -u 127.0.0.1:53 -r 10.0.0.100:80 -m",
        "ipvsadm -A -t 127.0.0.1:21 -s rr",
        "ipvsadm -a -t 127.0.0.1:21 -r 10.0.0.100:21 -m",
    ]
    cluster.commands += ["ipvsadm -A -t 127.0.0.1:443 -s rr"]
    (service,) = rounds.web_services(cast(Cluster, cluster), "director")
    assert service.port == cluster.port


SECOND = """
  other-lan: {subnet: 10.0.9.0/24}
nodes:
  director-2:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: outer, address: 127.0.0.2}
      eth1: {network: other-lan, address: 10.0.9.1}
  rs9:
    role: real-server
    interfaces: {eth0: {network: other-lan, address: 10.0.9.100, gateway: 10.0.9.1}}
    services: [{kind: http, port: 80}]
"""


def test_only_its_own_servers_are_a_directors_matter(cluster: Miniature, tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(LAB.replace("\nnodes:\n", SECOND))
    cluster.lab = loader.load(tmp_path)

    class Sees:
        def probe(self, address: str, port: int) -> str:
            return "open"

        def routes(self) -> str:
            return ROUTES

    (service,) = rounds.web_services(cast(Cluster, cluster), "director")
    now = director.read(cast(Cluster, cluster), "director")
    facts = rounds.facts_of(
        cast(Cluster, cluster), service, "director", "http", lambda name: cast(Any, Sees()), now
    )
    assert {server.name for server in facts.servers} == {"rs1", "rs2"}
    assert verdict.diagnose(facts) == ()


def test_a_lab_without_a_web_service(cluster: Miniature) -> None:
    cluster.commands.clear()
    with pytest.raises(CheckFailed):
        take(cluster)


def test_what_the_directors_counters_gained(cluster: Miniature) -> None:
    before = director.read(cast(Cluster, cluster), "director")
    take(cluster, 6)
    after = director.read(cast(Cluster, cluster), "director")
    assert rounds.connections_since(before, after, cast(Cluster, cluster)) == {"rs1": 2, "rs2": 4}
    assert rounds.connections_since(after, after, cast(Cluster, cluster)) == {}


# --- in the hands of a check -----------------------------------------------------------------------------


@pytest.fixture
def testbed(cluster: Miniature, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    made = Testbed(cast(Cluster, cluster))
    monkeypatch.setattr(made, "enter", lambda node: Here())
    return made


def test_a_testbed_knows_its_nodes(testbed: Testbed) -> None:
    assert [node.name for node in testbed.directors] == ["director"]
    assert [node.name for node in testbed.real_servers] == ["rs1", "rs2"]
    assert [node.name for node in testbed.clients] == ["client"]
    assert testbed.directors[0].addresses == ("127.0.0.1", "10.0.0.1")
    assert repr(testbed.node("rs1")) == "<rs1 10.0.0.100>"
    assert testbed.node("rs1").address == "10.0.0.100"


def test_a_testbed_takes_rounds(testbed: Testbed) -> None:
    before = testbed.reading()
    taken = testbed.round(count=3)
    assert taken.client == "client"
    assert taken.observed == ("rs2", "rs1", "rs2")
    assert [str(service) for service in testbed.table_of_steps()] == [taken.service]
    assert before.rules == testbed.reading().rules
    (reply,) = testbed.node("client").get(taken.url)
    assert reply.server in ("rs1", "rs2")


def test_a_command_on_a_node(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Any] = {
        "uname -r": Executed(b"6.1.0\n\n", b"", 0),
        "false": Executed(b"so far\n", b"", 1),
        "nope": Executed(b"", b"nope: not found\n", 127),
    }
    monkeypatch.setattr(testbed.cluster, "execute", lambda node, command: answers[command])
    node = testbed.node("rs1")
    assert node.output("uname -r") == "6.1.0"
    assert node.execute("false", check=False).status == 1
    with pytest.raises(CheckFailed, match=r"^on rs1, `false` ended with status 1\n  so far$"):
        node.execute("false")
    with pytest.raises(CheckFailed, match="nope: not found"):
        node.output("nope")
