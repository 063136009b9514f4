from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lvslab.check import load
from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.listing import Counters
from lvslab.check.ipvs.table import Destination, Service
from lvslab.check.load import Load, Share
from lvslab.check.services import marks
from lvslab.check.traffic import wrk
from lvslab.cli.text import lab
from lvslab.errors import CheckFailed, StateError, UsageError
from tests.unit.fake_cluster import LAB, FakeCluster, lab_in

SERVICE = Service(
    "tcp",
    "192.0.2.50",
    80,
    destinations=(
        Destination("10.0.0.100", 80, "masquerading", 1),
        Destination("10.0.0.101", 80, "masquerading", 3),
    ),
)
ONE, TWO = "10.0.0.100:80", "10.0.0.101:80"


def reading(**connections: int) -> Reading:
    by_server = {
        (str(SERVICE), {"one": ONE, "two": TWO}[server]): Counters(count, 0, 0, 0, 0)
        for server, count in connections.items()
    }
    return Reading((SERVICE,), (), {}, by_server, {}, 1, "")


@pytest.mark.parametrize(
    ("seconds", "connections", "says"),
    [
        (0, 8, "--seconds is 0"),
        (61, 8, "--seconds is 61"),
        (-5, 8, "--seconds is -5"),
        (5, 0, "--connections is 0"),
        (5, 1001, "--connections is 1001"),
    ],
)
def test_a_load_has_bounds(seconds: int, connections: int, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        load.check_bounds(seconds, connections)
    assert "it takes a whole number from 1 to" in str(refused.value)


def test_bounds_are_within_themselves() -> None:
    load.check_bounds(load.SECONDS, load.CONNECTIONS)
    load.check_bounds(1, 1)
    load.check_bounds(load.MOST_SECONDS, load.MOST_CONNECTIONS)


def test_load_comes_from_clients_of_the_services_family(tmp_path: Path) -> None:
    text = LAB.replace("127.0.0.0/24", '[127.0.0.0/24, "fd00::/64"]')
    six = '  client-2:\n    role: client\n    interfaces: {eth0: {network: outer, address: "fd00::9"}}\n'
    cluster = FakeCluster(lab=lab_in(tmp_path, text + six))
    both = ["client", "client-2"]
    assert load.of_family(cluster, both, "127.0.0.1") == ["client"]
    assert load.of_family(cluster, both, "fd00::1") == ["client-2"]
    assert load.of_family(cluster, ["client"], "fd00::1") == ["client"]


def test_connections_are_what_the_counters_have_gained() -> None:
    before, after = reading(one=5), reading(one=8, two=9)
    assert load.connections_of(SERVICE, before, after) == {ONE: 3, TWO: 9}
    assert load.connections_of(SERVICE, before, reading(one=5)) == {ONE: 0, TWO: 0}


def test_shares_stand_beside_those_of_the_weights() -> None:
    assert [*load.shares(SERVICE, {ONE: 3, TWO: 9}, {"10.0.0.100": "rs1"})] == [
        Share("rs1", ONE, 1, 3, 0.25, 0.25),
        Share("10.0.0.101", TWO, 3, 9, 0.75, 0.75),
    ]


def test_shares_of_nothing() -> None:
    idle = Service("tcp", "192.0.2.50", 80, destinations=(Destination("10.0.0.100", 80, weight=0),))
    assert [*load.shares(idle, {ONE: 0}, {})] == [Share("10.0.0.100", ONE, 0, 0, 0.0, 0.0)]


def test_what_is_shown() -> None:
    errors = dict.fromkeys(wrk.ERRORS, 0)
    shares = [*load.shares(SERVICE, {ONE: 3, TWO: 9}, {"10.0.0.100": "rs1"}, {ONE: 3})]
    found = Load(
        name="lab",
        director="director",
        service="tcp 192.0.2.50:80",
        scheduler="wlc",
        clients=["client", "client-2"],
        connections=8,
        seconds=5.01,
        requests=12,
        requests_per_second=2.4,
        bytes_per_second=1234.5,
        median=0.0015,
        slowest=0.02,
        errors=errors,
        servers=shares,
        given=12,
    )
    text = lab.load(found)
    assert "through director, for 5.0 s, from client, client-2: 8 connections at a time each" in text
    assert "answers      12, 2.4 a second" in text
    assert "1.5 ms (median), 20.0 ms at most" in text
    assert "errors       none" in text
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["rs1", "1", "3", "3", "25.0%", "25.0%"],
        ["10.0.0.101", "3", "9", "-", "75.0%", "75.0%"],
    ]
    assert "unanswered   0 of 12 connections\n" in text
    open_at_the_end = lab.load(Load(**{**vars(found), "unanswered": 16}))
    assert (
        "16 of 12 connections; up to 16 are open at any time, so they may have been under way at the end\n"
        in open_at_the_end
    )
    assert "17 of 12 connections\n" in lab.load(Load(**{**vars(found), "unanswered": 17}))
    one, two = (
        replace(share, connections=16, answered=answered)
        for share, answered in zip(found.servers, (9, 0), strict=True)
    )
    silent = lab.load(replace(found, unanswered=16, servers=[one, two]))
    assert f"unanswered   16 of 12 connections; {two.server} answered none of its 16\n" in silent
    nothing = lab.load(replace(found, requests=0, service="firewall mark 80"))
    assert "  an answer    -\n" in nothing
    said = "./run lab.round --name lab --director director --service 'firewall mark 80' shows who should"
    assert nothing.splitlines()[-1].startswith(said)
    with_errors = lab.load(Load(**{**vars(found), "errors": {**errors, "read": 2, "timeout": 1}}))
    assert "errors       read 2, timeout 1" in with_errors
    document = found.as_json()
    assert document["servers"][0] == vars(shares[0])
    assert document["errors"] == errors


@pytest.mark.parametrize(
    ("rules", "name", "says"),
    [
        ("", "", "has no virtual service"),
        (
            "-A -t 127.0.0.1:25\n-a -t 127.0.0.1:25 -r 10.0.0.100:25 -m",
            "",
            "no service in lab.yaml in common",
        ),
        ("-A -t 127.0.0.1:80\n-a -t 127.0.0.1:80 -r 10.0.0.100:80 -m", "10.0.0.9", "there is 127.0.0.1:80"),
    ],
)
def test_no_service_to_load(rules: str, name: str, says: str) -> None:
    running = FakeCluster(answers={"ipvsadm -Sn": rules})
    with pytest.raises((StateError, UsageError), match=says) as refused:
        load._wanted(running, "director", ["client"], name)
    assert isinstance(refused.value, UsageError) == bool(name)


def test_the_first_service_that_can_be_loaded() -> None:
    mail = "-A -t 127.0.0.1:25\n-a -t 127.0.0.1:25 -r 10.0.0.100:25 -m\n"
    web = "-A -t 127.0.0.1:81\n-a -t 127.0.0.1:81 -r 10.0.0.100:80 -m\n"
    running = FakeCluster(answers={"ipvsadm -Sn": mail + web})
    service, target, clients = load._wanted(running, "director", ["client"], "")
    assert (str(service), target.url, clients) == ("127.0.0.1:81", "http://127.0.0.1:81/", ["client"])


def test_clients_that_do_not_get_the_mark_make_no_load(tmp_path: Path) -> None:
    other = "  client-2:\n    role: client\n    interfaces: {eth0: {network: outer, address: 127.0.0.8}}\n"
    rule = "-A PREROUTING -s 127.0.0.8 -p tcp --dport 80 -j MARK --set-mark 80"
    answers = {
        "ipvsadm -Sn": "-A -f 80\n-a -f 80 -r 10.0.0.100:80 -m",
        marks.command(4): f"*mangle\n:PREROUTING ACCEPT [0:0]\n{rule}\nCOMMIT\n-- nft\n",
        **{f"ip route get 127.0.0.{end} 2>&1; :": f"127.0.0.{end} dev eth0 src 127.0.0.1" for end in (8, 9)},
    }
    running = FakeCluster(lab=lab_in(tmp_path, LAB + other), answers=answers)
    service, target, clients = load._wanted(running, "director", ["client", "client-2"], "")
    assert (service.mark, target.url, clients) == (80, "http://127.0.0.1:80/", ["client-2"])


def test_answers_are_counted_in_the_servers_logs() -> None:
    running = FakeCluster(requests={"rs1": ["a load-1", "b", "c load-1"]})
    names = {"10.0.0.100": "rs1"}
    assert load._answered(running, SERVICE, names, "load-1") == {ONE: 2}


def test_a_generator_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_GRACE", 0.05)
    waits = [sys.executable, "-c", "import signal; signal.pause()"]
    with subprocess.Popen(waits, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(CheckFailed, match="was to run for 0 s, and does not end"):
            load.await_result(process, 0)
        process.kill()
