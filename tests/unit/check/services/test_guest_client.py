"""SCTP requests from virtual machines, by what socat says there."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.services import guest_client
from lvslab.check.services.target import NotAsked, Target, target_of
from lvslab.check.traffic.request import Failure, RequestFailed
from tests.unit.fake_cluster import LAB, FakeCluster, lab_in

GUESTS = LAB.replace("{kind: http, port: 80}", "{kind: sctp, port: 7}")
TARGET = ("sctp", "127.0.0.1", 7)


class Guests(FakeCluster):
    """A cluster whose nodes are virtual machines; ``says`` answers each request with its id."""

    says: Callable[[str], str]

    def is_enterable(self, node: str) -> bool:
        return False

    def prints(self, node: str, command: str) -> str:
        if command.startswith("printf"):
            return self.says(shlex.split(command)[2])
        return super().prints(node, command)


@pytest.fixture
def cluster(tmp_path: Path) -> Guests:
    made = Guests(lab_in(tmp_path, GUESTS))
    made.says = lambda request_id: f"rs1\n{request_id}\nstatus 0\n"
    return made


def test_requests_have_ports_and_ids_of_their_own(cluster: Guests) -> None:
    replies = guest_client.ask_in_turn(cluster, "client", *TARGET, 3)
    assert [reply.server for reply in replies] == ["rs1"] * 3
    assert {reply.source_address for reply in replies} == {"127.0.0.9"}
    assert len({reply.source_port for reply in replies}) == len({reply.request_id for reply in replies}) == 3
    assert {node for node, _ in cluster.asked} == {"client"}
    assert f"sourceport={replies[0].source_port}," in cluster.asked[0][1]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("socat[9] E connect(5, AF=2 127.0.0.1:7, 16): Connection refused\nstatus 1\n", "refused"),
        ("socat[9] E connect(5, AF=2 127.0.0.1:7, 16): Connection timed out\nstatus 1\n", "no-connection"),
        ("socat[9] E connect(5, AF=2 127.0.0.1:7, 16): Network is unreachable\nstatus 1\n", "unreachable"),
        ("socat[9] E socket(2, 1, 132): Protocol not supported\nstatus 1\n", "other"),
        ("status 0\n", "no-reply"),
        ("rs1\nstatus 0\n", "broken-off"),
    ],
)
def test_what_goes_wrong(cluster: Guests, said: str, kind: Failure) -> None:
    answers = ["rs1\nID\nstatus 0\n", said]
    cluster.says = lambda request_id: answers.pop(0).replace("ID", request_id)
    with pytest.raises(RequestFailed, match="request 2 of 4: ") as caught:
        guest_client.ask_in_turn(cluster, "client", *TARGET, 4)
    assert (caught.value.kind, len(caught.value.before)) == (kind, 1)


def test_the_command_is_shell(tmp_path: Path) -> None:
    """A socat of the test's own gets the line on its standard input, and its status is told."""
    (tmp_path / "socat").write_text('#!/bin/sh\necho "$@"; cat; exit 3\n')
    (tmp_path / "socat").chmod(0o755)
    text = guest_client.command("sctp", "[fd00::1]:7", 6001, "an-id", 5.0)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", text], env=path, capture_output=True, text=True, check=True)
    options = "sourceport=6001,connect-timeout=5"
    assert done.stdout == f"-T5 -,ignoreeof SCTP-CONNECT:[fd00::1]:7,{options}\nan-id\nstatus 3\n"


def test_routes_and_programs(cluster: Guests) -> None:
    cluster.answers = {
        "if ip route get 127.0.0.1 2> /dev/null; then :; fi": "local 127.0.0.1 dev lo src 127.0.0.1\n",
        "if ip route get 10.9.9.9 2> /dev/null; then :; fi": "",
        "command -v socat || :": "/usr/bin/socat\n",
    }
    assert guest_client.has_route(cluster, "client", "127.0.0.1")
    assert not guest_client.has_route(cluster, "client", "10.9.9.9")
    assert guest_client.can_ask(cluster, "client")


def test_what_a_virtual_machine_can_ask(cluster: Guests, tmp_path: Path) -> None:
    place = "--sctp-service 127.0.0.1:7"
    (service,) = parse_rules(f"-A {place} -s rr\n-a {place} -r 10.0.0.100:7 -m")
    cluster.answers["command -v socat || :"] = "/usr/bin/socat\n"
    assert target_of(cluster, service, "director", "client") == Target("sctp", "127.0.0.1", 7)
    cluster.answers["command -v socat || :"] = "\n"
    with pytest.raises(NotAsked, match="client has no socat"):
        target_of(cluster, service, "director", "client")
    cluster.lab = lab_in(tmp_path)
    (web,) = parse_rules("-A -t 127.0.0.1:80 -s rr\n-a -t 127.0.0.1:80 -r 10.0.0.100:80 -m")
    with pytest.raises(NotAsked, match="client is a virtual machine, and requests of kind http"):
        target_of(cluster, web, "director", "client")
