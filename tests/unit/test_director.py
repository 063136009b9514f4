from __future__ import annotations

import re
from types import SimpleNamespace
from typing import cast

import pytest

from lvslab.apply.ssh import Executed
from lvslab.check import director
from lvslab.check.director import Reading
from lvslab.cluster import Cluster
from lvslab.errors import CheckFailed

RULES = """\
-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 10.0.0.100:80 -m -w 1
-a -t 192.0.2.1:80 -r 10.0.0.101:80 -m -w 2
"""
LISTING = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.1:80 wlc
  -> 10.0.0.100:80                Masq    1      0          3
  -> 10.0.0.101:80                Masq    2      1          5
"""
STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.1:80                        {conns}       54       45     3700     4500
  -> 10.0.0.100:80                       3       18       15     1200     1500
  -> 10.0.0.101:80                       6       36       30     2500     3000
"""
ENTRIES = """\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 01:58  TIME_WAIT   192.0.2.9:40000    192.0.2.1:80       10.0.0.101:80
TCP 14:59  ESTABLISHED 192.0.2.9:40001    192.0.2.1:80       10.0.0.100:80
UDP 04:59  UDP         192.0.2.9:5353     192.0.2.1:53       10.0.0.100:53
TCP 01:58  TIME_WAIT   [fd00::9]:40000    [fd00::1]:80       [fd00::100]:80
"""


class Shell:
    """A director whose commands print what they are given; ``said`` are those that it was asked."""

    def __init__(self, *, stats: list[str] | None = None, status: int = 0, stderr: bytes = b"") -> None:
        self.stats = stats or [STATS.format(conns=9)]
        self.status = status
        self.stderr = stderr
        self.asked: list[tuple[str, str]] = []
        self.steps = (
            SimpleNamespace(node="director", command="VIP=192.0.2.1"),
            SimpleNamespace(node="rs1", command="ipvsadm -A -t 192.0.2.99:80"),
            SimpleNamespace(node="director", command="ipvsadm -A -t $VIP:80 -s wlc"),
            SimpleNamespace(node="director", command="ipvsadm -a -t $VIP:80 \\\n  -r 10.0.0.100:80 -m"),
        )

    def execute(self, node: str, command: str) -> Executed:
        self.asked.append((node, command))
        if self.status:
            return Executed(RULES.encode(), self.stderr, self.status)
        stats = self.stats.pop(0) if len(self.stats) > 1 else self.stats[0]
        answers = [RULES, LISTING, stats, ENTRIES, "1\n"]
        (mark,) = set(re.findall(r"echo '(-- \w+)'", command))
        assert command.count(mark) == len(answers) - 1
        return Executed(f"{mark}\n".join(answers).encode(), b"", 0)


def read(shell: Shell) -> Reading:
    return director.read(cast(Cluster, shell), "director")


def test_a_reading_is_one_command() -> None:
    shell = Shell()
    reading = read(shell)
    ((node, command),) = shell.asked
    assert node == "director"
    # Each command only runs if the one before it did.
    assert command.split(" && ")[::2] == [
        "ipvsadm -Sn",
        "ipvsadm -Ln",
        "ipvsadm -Ln --stats --exact",
        "ipvsadm -Lnc",
        "cat /proc/sys/net/ipv4/ip_forward",
    ]
    (service,) = reading.rules
    assert [(str(server), server.weight) for server in service.destinations] == [
        ("10.0.0.100:80", 1),
        ("10.0.0.101:80", 2),
    ]
    assert reading.ip_forward == 1
    assert reading.totals["192.0.2.1:80"].connections == 9
    assert reading.by_server["192.0.2.1:80", "10.0.0.101:80"].connections == 6
    assert reading.entries == {
        "192.0.2.9:40000": "10.0.0.101:80",
        "192.0.2.9:40001": "10.0.0.100:80",
        "192.0.2.9:5353": "10.0.0.100:53",
        "[fd00::9]:40000": "[fd00::100]:80",
    }
    assert reading.listing == LISTING.rstrip()


def test_connections_of_a_service() -> None:
    reading = read(Shell())
    row = reading.connections_of(reading.rules[0])
    assert row is not None
    assert [(server.active, server.inactive) for server in row.servers] == [(0, 3), (1, 5)]
    other = director.parse_rules("ipvsadm -A -t 192.0.2.1:81")[0]
    assert reading.connections_of(other) is None


def test_two_readings_have_two_marks() -> None:
    shell = Shell()
    read(shell)
    read(shell)
    assert shell.asked[0] != shell.asked[1]


def test_an_ipvsadm_that_does_not_answer() -> None:
    shell = Shell(status=127, stderr=b"ipvsadm: not found\n")
    with pytest.raises(CheckFailed) as caught:
        read(shell)
    assert str(caught.value) == "ipvsadm on director ended with status 127\n  ipvsadm: not found"


def test_the_table_of_the_steps_is_that_of_one_node_in_the_order_typed() -> None:
    (service,) = director.table_of_steps(cast(Cluster, Shell()), "director")
    assert (str(service), service.scheduler) == ("192.0.2.1:80", "wlc")
    assert [str(server) for server in service.destinations] == ["10.0.0.100:80"]


class Busy(Shell):
    """A director whose counters move in its first readings; each takes half a second of its own clock."""

    def __init__(self, moving: int) -> None:
        super().__init__(stats=[STATS.format(conns=number) for number in range(moving)])
        self.now = 100.0

    def execute(self, node: str, command: str) -> Executed:
        self.now += 0.5
        return super().execute(node, command)

    def monotonic(self) -> float:
        return self.now


def test_settled_waits_for_a_whole_period_after_the_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Busy(moving=4)
    monkeypatch.setattr(director, "time", shell)
    reading = director.settled(cast(Cluster, shell), "director", 20)
    assert reading.totals["192.0.2.1:80"].connections == 3
    # The last change was read after four readings.
    assert shell.now - (100.0 + 4 * 0.5) > director.ESTIMATION_PERIOD


def test_counters_that_never_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Busy(moving=1000)
    monkeypatch.setattr(director, "time", shell)
    with pytest.raises(CheckFailed, match="the counters of director do not stand still"):
        director.settled(cast(Cluster, shell), "director", 20)
    assert 120 <= shell.now <= 121
