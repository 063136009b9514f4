"""Rounds to every service of a director, of the steps and of its own table."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lvslab.check import rounds
from lvslab.check.schedulers import NOBODY
from lvslab.check.services import every
from lvslab.check.services.every import LeftOut, Made, Rounds
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.http import Here
from lvslab.check.traffic.request import Reply, RequestFailed
from lvslab.errors import CheckFailed, StateError, UsageError
from lvslab.lab.model import Lab
from tests.unit.fake_cluster import COMMANDS, LAB, LoopbackCluster, lab_in, loopback_cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCluster]:
    monkeypatch.setattr(Testbed, "enter", lambda testbed, node: Here())
    with loopback_cluster(lab_in(tmp_path)) as made:
        yield made


def of_steps(cluster: LoopbackCluster) -> Rounds:
    testbed = Testbed(cluster)
    return every.of_steps(testbed, testbed.table_of_steps())


def test_a_round_to_the_steps_service(cluster: LoopbackCluster) -> None:
    (made,) = of_steps(cluster).rounds
    assert made.service == f"127.0.0.1:{cluster.port}"
    assert (made.requests, made.client, made.asked) == (12, "client", f"http://127.0.0.1:{cluster.port}/")
    assert made.distribution == {
        "rs1": {"expected": 4, "observed": 4},
        "rs2": {"expected": 8, "observed": 8},
    }
    assert made.wrong is None and "Masq" in made.table


def test_services_without_a_round_and_why(cluster: LoopbackCluster) -> None:
    mail = "ipvsadm -A -t 127.0.0.1:25 -s rr", "ipvsadm -a -t 127.0.0.1:25 -r 10.0.0.100:25 -m"
    drawn = "ipvsadm -A -t 127.0.0.1:81 -s twos", "ipvsadm -a -t 127.0.0.1:81 -r 10.0.0.100:80 -m"
    cluster.retype(*mail, *drawn, *COMMANDS)
    found = of_steps(cluster)
    assert len(found.rounds) == 1
    assert [each.service for each in found.left_out] == ["127.0.0.1:25", "127.0.0.1:81"]
    assert "no service in lab.yaml in common" in found.left_out[0].why
    assert "cannot be foreseen: twos draws" in found.left_out[1].why


def test_no_service_and_no_client(cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.retype()
    assert of_steps(cluster).left_out == [LeftOut("", "the steps make none on director")]
    cluster.retype(*COMMANDS)
    monkeypatch.setattr(cluster, "is_enterable", lambda node: False)
    (left_out,) = of_steps(cluster).left_out
    assert "no client of this lab is a Mininet host" in left_out.why
    monkeypatch.setattr(Lab, "clients", {})
    (left_out,) = of_steps(cluster).left_out
    assert left_out.why == "the lab has no client to make requests"
    with pytest.raises(UsageError, match="no client to make requests") as caught:
        every.now(Testbed(cluster))
    assert caught.value.hint == "add a node with the role client to lab.yaml"


def test_a_service_of_a_family_that_no_client_has(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    six = "ipvsadm -A -t [fd00::1]:80 -s wlc", "ipvsadm -a -t [fd00::1]:80 -r 10.0.0.100:80 -i"
    cluster.retype(*COMMANDS, *six)
    monkeypatch.setattr(every, "_has_route", lambda address: ":" not in address)
    found = of_steps(cluster)
    assert len(found.rounds) == 1
    assert found.left_out == [LeftOut("[fd00::1]:80", "no client has an IPv6 address")]


def test_a_client_with_a_route_is_taken_before_one_without(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = [False, True]
    monkeypatch.setattr(every, "_has_route", lambda address: routes.pop(0))
    testbed = Testbed(cluster)
    (service,) = testbed.table_of_steps()
    assert every._asking(testbed, service, "director", ["client", "rs1"])[0] == "rs1"
    # Without a route anywhere, one of the family: its failure is the reader's to see.
    monkeypatch.setattr(every, "_has_route", lambda address: False)
    assert every._asking(testbed, service, "director", ["client", "rs1"])[0] == "client"


def test_a_route_is_looked_up() -> None:
    assert every._has_route("127.0.0.1")
    assert not every._has_route("255.255.255.255")  # which a socket must ask for first


def test_another_sequence_is_wrong(cluster: LoopbackCluster) -> None:
    cluster.turns = ["10.0.0.100"] * 12
    (made,) = of_steps(cluster).rounds
    assert made.distribution["rs2"] == {"expected": 8, "observed": 0}
    assert made.wrong is not None
    assert f"127.0.0.1:{cluster.port}: the servers did not answer in the order" in made.wrong.message


def test_the_directors_own_table_is_what_counts_later(cluster: LoopbackCluster) -> None:
    cluster.weights = {"10.0.0.100": 3, "10.0.0.101": 1}
    found = every.now(Testbed(cluster), count=8)
    (made,) = found.rounds
    assert (made.requests, found.wrong) == (8, None)
    assert made.distribution == {
        "rs1": {"expected": 6, "observed": 6},
        "rs2": {"expected": 2, "observed": 2},
    }
    assert found.as_json()["rounds"][0]["expected"] == list(made.observed)


def test_a_request_that_is_not_answered_is_part_of_the_result(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = cluster.serve
    cluster.ip_forward = 0

    def twice(connection: object, peer: tuple[str, int]) -> None:
        if len(cluster.entries) < 2:
            serve(connection, peer)  # type: ignore[arg-type]

    cluster.serve = twice  # type: ignore[method-assign]
    monkeypatch.setattr("lvslab.check.probes.HostView.probe", lambda *_: "answers")
    monkeypatch.setattr("lvslab.check.probes.HostView.read", lambda *_: "Iface\n")
    found = every.now(Testbed(cluster), count=3)
    (made,) = found.rounds
    assert made.observed == ["rs2", "rs1"] and len(made.expected) == 3
    assert made.failure.startswith("request 3 of 3: ")
    assert "ip_forward is 0" in made.causes
    assert found.wrong is not None and "request 3 of 3" in found.wrong.message


def test_a_refusal_that_the_scheduler_foresees_is_no_failure(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained = (f"ipvsadm -e -t 127.0.0.1:PORT -r 10.0.0.{number}:80 -m -w 0" for number in (100, 101))
    cluster.retype(*COMMANDS, *drained)
    cluster.weights = {"10.0.0.100": 0, "10.0.0.101": 0}
    refused = RequestFailed("refused", "id", "request 1 of 1: connection refused by 127.0.0.1:80")

    def refuse(*_: object, **options: object) -> tuple[Reply, ...]:
        raise refused

    monkeypatch.setattr(rounds, "ask_in_turn", refuse)
    monkeypatch.setattr("lvslab.check.probes.HostView.probe", lambda *_: "answers")
    monkeypatch.setattr("lvslab.check.probes.HostView.read", lambda *_: "Iface\n")
    (made,) = of_steps(cluster).rounds
    assert made.distribution == {NOBODY: {"expected": 3, "observed": 3}}
    assert made.wrong is None and made.requests == 3
    assert made.causes == "wlc has no server for them: rs2 has weight 0 and rs1 has weight 0"
    # A check expects answers all the same.
    with pytest.raises(CheckFailed, match="request 1 of 3: connection refused"):
        Testbed(cluster).round(count=3)


def test_what_cannot_be_asked_for(cluster: LoopbackCluster) -> None:
    testbed = Testbed(cluster)
    with pytest.raises(UsageError, match="--count is 1001"):
        every.now(testbed, count=1001)
    with pytest.raises(UsageError, match="has no client 'clients'"):
        every.now(testbed, client="clients")
    with pytest.raises(UsageError, match="has no director 'x'"):
        every.now(testbed, director="x")
    with pytest.raises(UsageError, match=r"has no virtual service '10\.9\.9\.9'"):
        every.now(testbed, service="10.9.9.9")
    assert len(every.now(testbed, service="127.0.0.1", count=3).rounds) == 1
    cluster.prints = lambda node, command: ""  # type: ignore[method-assign]
    with pytest.raises(StateError, match="director has no virtual service"):
        every.now(testbed)


def made(service: str, *, failure: str = "") -> Made:
    return Made(service, "rr", "d", "c", "", 1, ["a"], ["a" if failure else "b"], {}, failure=failure)


def test_all_that_is_wrong_is_one_error() -> None:
    found = Rounds("lab", "d", "c", [made("1.1.1.1:80"), made("1.1.1.1:81", failure="no answer")])
    assert "1.1.1.1:80: the servers" in str(found.wrong)
    assert "1.1.1.1:81: no answer" in str(found.wrong)


@pytest.mark.parametrize("service", ["127.0.0.1:PORT", "127.0.0.1:0 -p 300"])
def test_an_ftp_service_is_asked_by_logins(
    cluster: LoopbackCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    """At any address, port 0 too, and with what the director has."""
    cluster.lab = lab_in(tmp_path, LAB.replace("{kind: http, port: 80}", "{kind: ftp, port: 21}"))
    asked, ports = set[tuple[str, int]](), count(6000)

    def login(address: str, port: int, request_id: str) -> Reply:
        asked.add((address, port))
        own = next(ports)
        cluster.entries.append((f"127.0.0.9:{own}", "10.0.0.101:21"))
        return Reply("rs2", 220, "rs2", request_id, 0.1, "127.0.0.9", own)

    monkeypatch.setattr("lvslab.check.traffic.ftp.ask", login)
    place, _, _ = service.partition(" ")
    port = place.rpartition(":")[2]
    server = f"ipvsadm -a -t {place} -r 10.0.0.101:{0 if port == '0' else 21} -m"
    cluster.retype(f"ipvsadm -A -t {service} -s rr", server)
    (made,) = of_steps(cluster).rounds
    assert made.observed == made.expected == ["rs2"] * 12
    assert asked == {("127.0.0.1", 21 if port == "0" else cluster.port)}


def test_a_named_service_that_cannot_be_asked(cluster: LoopbackCluster, tmp_path: Path) -> None:
    cluster.lab = lab_in(tmp_path, LAB.replace("{kind: http, port: 80}", "{kind: http, port: 8080}"))
    cluster.weights = {"10.0.0.100": 1}
    name = f"127.0.0.1:{cluster.port}"
    with pytest.raises(StateError, match=f"'{name}' of director cannot be asked") as caught:
        every.now(Testbed(cluster), service=name)
    assert (caught.value.hint or "").startswith(f"{name}: the servers of {name} have no service")
    # Without a name, the reason is part of the result.
    assert [each.service for each in every.now(Testbed(cluster)).left_out] == [name]


def test_virtual_machines_ask_where_there_is_sctp(
    cluster: LoopbackCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert every.askers(cluster) == ["client"]
    monkeypatch.setattr(cluster, "is_enterable", lambda node: False)
    assert every.askers(cluster) == [] and every.without_client(cluster) is not None
    with pytest.raises(UsageError, match="client is a virtual machine"):
        every.now(Testbed(cluster), client="client")
    cluster.lab = lab_in(tmp_path, LAB.replace("{kind: http, port: 80}", "{kind: sctp, port: 7}"))
    assert every.askers(cluster) == ["client"] and every.without_client(cluster) is None
