"""Rounds through a cluster on loopback: one process does what a director and its servers do together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lvslab.apply.ssh import Executed
from lvslab.check import rounds, verdict
from lvslab.check.examine import facts_of
from lvslab.check.forwarding.facts import Asked
from lvslab.check.ipvs import director
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.probes import HostView
from lvslab.check.schedulers.model import Moment, Server
from lvslab.check.services.target import NotAsked
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.http import Here
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.check.traffic.request import RequestFailed
from lvslab.errors import CheckFailed, UsageError
from tests.unit.fake_cluster import COMMANDS, LAB, FakeCluster, LoopbackCluster, lab_in, loopback_cluster

SERVERS = COMMANDS[1:]

# /proc/net/route on a little-endian machine, as it pads its lines.
ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	0100000A	0003	0	0	0	00000000	0	0	0
eth0	0000000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LoopbackCluster]:
    with loopback_cluster(lab_in(tmp_path)) as made:
        yield made


def take(cluster: LoopbackCluster, count: int = 9) -> rounds.Round:
    def namespaces(node: str) -> NamespaceThread:
        return cast(NamespaceThread, Here())

    return rounds.take(cluster, namespaces, client="client", director="director", count=count)


def test_a_round_is_what_was_foreseen_and_everybody_counts_the_same(cluster: LoopbackCluster) -> None:
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


def test_a_second_round_begins_where_the_first_one_ended(cluster: LoopbackCluster) -> None:
    take(cluster, 4)
    taken = take(cluster, 5)
    assert taken.observed == taken.forecast
    # Only this round's requests are counted.
    assert sum(taken.logged.values()) == sum(taken.director.values()) == 5


def test_another_order_than_foreseen_is_seen(cluster: LoopbackCluster) -> None:
    cluster.weights["10.0.0.101"] = 1
    taken = take(cluster)
    assert taken.observed != taken.forecast
    assert taken.observed_counts != taken.expected_counts


def test_a_round_in_which_a_connection_was_forgotten_is_taken_again(cluster: LoopbackCluster) -> None:
    cluster.inactive["10.0.0.101"] = 5
    cluster.forgets = ["10.0.0.101"]
    taken = take(cluster)
    assert taken.observed == taken.forecast
    assert sum(len(log) for log in cluster.requests.values()) == 18


def test_a_director_that_always_forgets_is_not_tried_for_ever(cluster: LoopbackCluster) -> None:
    cluster.inactive["10.0.0.101"] = 50
    cluster.forgets = ["10.0.0.101"] * 50
    assert len(take(cluster, 3).replies) == 3
    assert sum(len(log) for log in cluster.requests.values()) == 12


def test_a_round_waits_for_connections_that_are_about_to_expire(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.inactive["10.0.0.101"] = 2
    vip, paused = f"127.0.0.1:{cluster.port}", list[float]()
    cluster.elsewhere = f"TCP 00:01 TIME_WAIT 127.0.0.9:5 {vip} 10.0.0.101:80\n"
    cluster.elsewhere += f"TCP 01:50 TIME_WAIT 127.0.0.9:6 {vip} 10.0.0.101:80\n"

    def pause(seconds: float) -> None:
        paused.append(seconds)
        if seconds:
            cluster.inactive["10.0.0.101"], cluster.elsewhere = 1, ""

    monkeypatch.setattr(rounds.time, "sleep", pause)
    taken = take(cluster, 3)
    assert taken.observed == taken.forecast
    assert paused[0] == 2
    assert sum(len(log) for log in cluster.requests.values()) == 3


def test_a_round_of_a_check_begins_as_on_an_idle_cluster(testbed: Testbed, cluster: LoopbackCluster) -> None:
    cluster.inactive.update({"10.0.0.100": 4, "10.0.0.101": 2})
    before = testbed.reading()
    taken = testbed.round(count=6)
    assert taken.observed == taken.forecast
    assert taken.observed_counts == {"rs1": 2, "rs2": 4}
    # The requests that made it so are not counted as those of the round.
    assert sum(len(log) for log in cluster.requests.values()) > 6
    after = testbed.reading()
    testbed.settled_reading = lambda: after  # type: ignore[method-assign]
    assert testbed.connections_since(before) == {"rs1": 2, "rs2": 4}


def test_what_a_director_does_wrong_before_the_round_is_shown(cluster: LoopbackCluster) -> None:
    cluster.inactive.update({"10.0.0.100": 4, "10.0.0.101": 2})
    cluster.turns = ["10.0.0.100"]
    made = rounds.take(
        cluster,
        lambda node: cast(NamespaceThread, Here()),
        client="client",
        director="director",
        count=6,
        level=True,
    )
    assert made.observed[0] == "rs1" != made.forecast[0]
    assert len(made.observed) == len(made.forecast) > 6


def test_the_last_lines_of_a_log_may_come_late(cluster: LoopbackCluster) -> None:
    late: list[str] = []
    asked: list[str] = []
    log = cluster.access_log

    def access_log(node: str, kind: str = "http") -> str:
        asked.append(node)
        if not late and node == "rs2":
            late.append(cluster.requests["rs2"].pop())
        elif len(asked) > 6 and len(late) == 1:
            late.append("told")
            cluster.requests["rs2"].append(late[0])
        return log(node)

    cluster.access_log = access_log  # type: ignore[method-assign]
    assert take(cluster, 3).logged == {"rs1": 1, "rs2": 2}


def test_a_log_that_never_has_a_request(cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_LOG_SECONDS", 0.05)
    cluster.access_log = lambda node, kind="http": ""  # type: ignore[method-assign]
    assert take(cluster, 3).logged == {}


def test_no_answer_comes_with_its_likely_cause(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.ip_forward = 0
    cluster.serve = lambda connection, peer: None  # type: ignore[method-assign]
    probed: list[str] = []

    def probe(self: HostView, address: str, port: int) -> str:
        probed.append(f"{address}:{port}")
        return "answers"

    monkeypatch.setattr(HostView, "probe", probe)
    monkeypatch.setattr(HostView, "read", lambda self, file: ROUTES)
    monkeypatch.setattr(HostView, "output", lambda self, command: "127.0.0.9 via 10.0.0.1 dev eth0\n")
    with pytest.raises(CheckFailed, match="request 1 of 9") as caught:
        take(cluster)
    hint = caught.value.hint or ""
    assert hint.startswith("ip_forward is 0 on the director")
    assert "default route" not in hint
    assert sorted(probed) == ["10.0.0.100:80", "10.0.0.101:80"]
    monkeypatch.setattr(HostView, "read", lambda self, file: ROUTES.replace("0100000A", "FE00000A"))
    monkeypatch.setattr(HostView, "output", lambda self, command: "127.0.0.9 via 10.0.0.254 dev eth0\n")
    with pytest.raises(CheckFailed, match=r"rs1's default route goes to 10\.0\.0\.254"):
        take(cluster)


def test_a_scheduler_without_a_model(cluster: LoopbackCluster) -> None:
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s twos", *SERVERS)
    cluster.versions = {"kernel": "6.1"}
    with pytest.raises(CheckFailed, match=r"cannot be foreseen: twos draws its servers"):
        take(cluster)


def test_a_scheduler_that_looks_at_ports(cluster: LoopbackCluster) -> None:
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s sh -b sh-port", *SERVERS)
    with pytest.raises(CheckFailed, match=r"sh-port chooses them by the client's port"):
        take(cluster)


def test_a_round_is_taken_whatever_the_forwarding_method(cluster: LoopbackCluster) -> None:
    """Its scheduler says who answers; and a forgotten -m has to be seen to fail."""
    (service,) = parse_rules("-A -t 127.0.0.1:80 -s rr\n-a -t 127.0.0.1:80 -r 10.0.0.100\n")
    assert service.destinations[0].forwarding == "gatewaying"
    assert rounds.unforeseen(cluster, service) == ""


def test_a_persistent_service_stays_with_the_server_that_it_chose(cluster: LoopbackCluster) -> None:
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s wlc -p 300", *SERVERS)
    assert take(cluster, 3).forecast == ("rs2", "rs2", "rs2")
    # The kernel's template of it: the client without its port. Another service has one of its own.
    cluster.entries.append(("127.0.0.9:0", "10.0.0.100:80"))
    cluster.elsewhere = "TCP 04:58 NONE 127.0.0.9:0 127.0.0.1:443 10.0.0.101:443\n"
    cluster.turns = ["10.0.0.100"] * 3
    taken = take(cluster, 3)
    assert taken.forecast == taken.observed == ("rs1", "rs1", "rs1")


def test_a_persistent_service_stays_with_a_network_of_clients(cluster: LoopbackCluster) -> None:
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s rr -p 300 -M 255.255.255.0", *SERVERS)
    cluster.entries.append(("127.0.0.0:0", "10.0.0.100:80"))
    assert take(cluster, 2).forecast == ("rs1", "rs1")
    # How often rr was asked is not counted, where each client asks it once: so either of them may answer.
    for server, name in (("10.0.0.100", "rs1"), ("10.0.0.101", "rs2")):
        cluster.entries.clear()
        cluster.turns = [server] * 2
        taken = take(cluster, 2)
        assert taken.forecast == taken.observed == (name, name)
    # But not both.
    cluster.entries.clear()
    cluster.turns = ["10.0.0.100", "10.0.0.101"]
    taken = take(cluster, 2)
    assert len({*taken.forecast}) == 1 and taken.observed == ("rs1", "rs2")


@pytest.mark.parametrize(("quiescent", "name"), [(0, "rs1"), (1, "rs2")])
def test_a_template_of_a_drained_server(cluster: LoopbackCluster, quiescent: int, name: str) -> None:
    drained = "ipvsadm -e -t 127.0.0.1:PORT -r 10.0.0.100:80 -m -w 0"
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s wlc -p 300", *SERVERS, drained)
    cluster.entries.append(("127.0.0.9:0", "10.0.0.100:80"))
    cluster.quiescent = quiescent
    cluster.turns = ["10.0.0.100" if name == "rs1" else "10.0.0.101"] * 2
    taken = take(cluster, 2)
    assert taken.forecast == taken.observed == (name, name)


def test_wrr_goes_on_where_the_counters_say(cluster: LoopbackCluster) -> None:
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s wrr", *SERVERS)
    one, two = "10.0.0.100", "10.0.0.101"
    # Rounds for weight 1 and 2 of the list two, one (ip_vs_wrr.c, 4.19.79): counted by hand.
    cluster.turns = [two, one, two, two, one, two, two]
    first = take(cluster, 4)
    assert first.forecast == first.observed == ("rs2", "rs1", "rs2", "rs2")
    second = take(cluster, 3)
    assert second.forecast == second.observed == ("rs1", "rs2", "rs2")


def test_sh_is_asked_about_the_clients_address(cluster: LoopbackCluster) -> None:
    cluster.retype("ipvsadm -A -t 127.0.0.1:PORT -s sh", *SERVERS)
    # 127.0.0.9 times 0x61c88647 ends in 0xa90cb87f, so place 0xa9, and 169 % 3 = 1 is the second of rs2,
    # rs2, rs1.
    assert set(take(cluster, 2).forecast) == {"rs2"}


def test_a_round_through_another_service(cluster: LoopbackCluster) -> None:
    first = "ipvsadm -A -t 127.0.0.1:1", "ipvsadm -a -t 127.0.0.1:1 -r 10.0.0.100:80 -m"
    cluster.retype(*first, *COMMANDS)

    def named(service: str) -> rounds.Round:
        return rounds.take(
            cluster,
            lambda node: cast(NamespaceThread, Here()),
            client="client",
            director="director",
            count=2,
            service=service,
        )

    assert named(f"127.0.0.1:{cluster.port}").observed_counts == {"rs2": 1, "rs1": 1}
    with pytest.raises(CheckFailed, match=r"make no service 127\.0\.0\.1:2 on director"):
        named("127.0.0.1:2")


def test_which_services_are_for_the_web(cluster: LoopbackCluster) -> None:
    cluster.retype(
        *COMMANDS,
        "ipvsadm -A -u 127.0.0.1:53 -s rr",
        "ipvsadm -a -u 127.0.0.1:53 -r 10.0.0.100:80 -m",
        "ipvsadm -A -t 127.0.0.1:21 -s rr",
        "ipvsadm -a -t 127.0.0.1:21 -r 10.0.0.100:21 -m",
        "ipvsadm -A -t 127.0.0.1:443 -s rr",
    )
    (service,) = rounds.web_services(cluster, "director")
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


def test_only_its_own_servers_are_a_directors_matter(cluster: LoopbackCluster, tmp_path: Path) -> None:
    cluster.lab = lab_in(tmp_path, LAB.replace("\nnodes:\n", SECOND))

    class Sees:
        def probe(self, address: str, port: int) -> str:
            return "open"

        def read(self, file: str) -> str:
            return ROUTES

        def output(self, command: str) -> str:
            return ""

    (service,) = rounds.web_services(cluster, "director")
    now = director.read_director(cluster, "director")
    facts = facts_of(cluster, Asked(service), "director", "http", lambda name: cast(Any, Sees()), now)
    assert {server.name for server in facts.servers} == {"rs1", "rs2"}
    assert verdict.diagnose(facts) == ()


def test_a_lab_without_a_web_service(cluster: LoopbackCluster) -> None:
    cluster.retype()
    with pytest.raises(CheckFailed):
        take(cluster)


def test_what_the_directors_counters_gained(cluster: LoopbackCluster) -> None:
    before = director.read_director(cluster, "director")
    take(cluster, 6)
    after = director.read_director(cluster, "director")
    assert rounds.connections_since(before, after, cluster) == {"rs1": 2, "rs2": 4}
    assert rounds.connections_since(after, after, cluster) == {}


# --- in the hands of a check -----------------------------------------------------------------------------


@pytest.fixture
def testbed(cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    made = Testbed(cluster)
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


def test_a_service_that_cannot_be_asked_is_passed_over(cluster: LoopbackCluster) -> None:
    mail = "ipvsadm -A -t 127.0.0.1:25 -s rr", "ipvsadm -a -t 127.0.0.1:25 -r 10.0.0.100:25 -m"
    cluster.retype(*mail, *COMMANDS)
    assert take(cluster, 3).service == f"127.0.0.1:{cluster.port}"
    cluster.retype(*mail)
    with pytest.raises(NotAsked, match=r"the servers of 127\.0\.0\.1:25 have no service in lab.yaml"):
        take(cluster, 3)
    with pytest.raises(NotAsked, match=r"127\.0\.0\.1:25"):
        Testbed(cluster).round(count=3, client="client", service="127.0.0.1:25")


def test_a_failure_is_explained_by_the_directors_entry(cluster: LoopbackCluster) -> None:
    testbed = Testbed(cluster)
    cluster.elsewhere = "TCP 01:58 ESTABLISHED 127.0.0.9:6001 127.0.0.1:80 10.0.0.77:80\n"
    failure = RequestFailed("no-reply", "id", "no answer", "is it stuck?")
    says = r"no answer\n.*entry for 127\.0\.0\.9:6001 still points to 10\.0\.0\.77:80"
    with pytest.raises(RequestFailed, match=says), testbed.explained("127.0.0.9:6001"):
        raise failure
    with pytest.raises(RequestFailed, match="is it stuck") as same, testbed.explained("127.0.0.9:6002"):
        raise failure
    assert same.value is failure


def test_a_scheduler_is_that_of_the_kernels_update(cluster: LoopbackCluster) -> None:
    """The release of Debian's 6.1 does not say which update it is, and wlc differs since 6.1.183."""
    cluster.versions = {"kernel": "6.1.0-56-cloud-amd64"}
    said = "Linux version 6.1.0-56-cloud-amd64 (gcc-12 (Debian 12.2.0-14)) #1 SMP Debian 6.1.192-2\n"
    prints = cluster.prints
    cluster.prints = lambda node, command: (  # type: ignore[method-assign]
        said if command == "cat /proc/version" else prints(node, command)
    )
    (service,) = director.table_of_steps(cluster, "director")
    one, other = Server("one", 2, 1, 4), Server("other", 1, 0, 130)
    chosen = rounds.model_of(cluster, service).choose(Moment((one, other)))
    assert chosen.server == 1, "an active connection costs 257"
    assert [command for _, command in cluster.asked].count("cat /proc/version") == 1
    rounds.model_of(cluster, service)
    assert [command for _, command in cluster.asked].count("cat /proc/version") == 1


def test_answers_that_came_around_the_director(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unknown(list[tuple[str, str]]):
        def append(self, entry: tuple[str, str]) -> None:
            """Know nothing of the connection."""

    cluster.entries = Unknown()
    monkeypatch.setattr(HostView, "output", lambda self, command: "127.0.0.1 dev eth0\n")
    assert take(cluster).director == {}, "no cause was seen"
    monkeypatch.setattr(HostView, "output", lambda self, command: "127.0.0.1 via 10.0.0.100 dev eth0\n")
    with pytest.raises(
        CheckFailed, match=r"client's route to 127\.0\.0\.1 goes to 10\.0\.0\.100, which is rs1, a real"
    ):
        take(cluster)


def test_a_page_that_is_not_there(cluster: LoopbackCluster) -> None:
    """An answer of another status names its server, and is a failure all the same."""
    serve = cluster.serve

    class Refusing:
        def __init__(self, connection: socket.socket) -> None:
            self.connection = connection

        def recv(self, most: int) -> bytes:
            return self.connection.recv(most)

        def sendall(self, data: bytes) -> None:
            self.connection.sendall(data.replace(b"200 OK", b"404 Not Found"))

    cluster.serve = lambda connection, peer: serve(  # type: ignore[method-assign]
        cast(socket.socket, Refusing(connection)), peer
    )
    with pytest.raises(CheckFailed, match="rs2 answered request 1 of 9 with status 404, and not with"):
        take(cluster)


@pytest.mark.parametrize("padding", [-1, 30_001])
def test_padding_that_no_server_takes(padding: int) -> None:
    nobody = cast(Any, None)
    with pytest.raises(UsageError, match=f"padding is {padding}"):
        rounds.take(FakeCluster(), nobody, client="client", director="director", count=1, padding=padding)
