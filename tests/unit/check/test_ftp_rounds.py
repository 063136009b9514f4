"""Control connections of FTP through a cluster whose director is told what to answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lvslab.check import ftp_rounds
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.http import Here
from tests.unit.fake_cluster import COMMANDS, LAB, LoopbackCluster, lab_in, loopback_cluster

FTP_LAB = LAB.replace("{kind: http, port: 80}", "{kind: ftp, port: 80}")


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Testbed]:
    monkeypatch.setattr(Testbed, "enter", lambda testbed, node: Here())
    with loopback_cluster(lab_in(tmp_path, FTP_LAB)) as made:
        made.retype("ipvsadm -A -t 127.0.0.1:PORT -s rr", *COMMANDS[1:])
        yield Testbed(made)


def answer(monkeypatch: pytest.MonkeyPatch, cluster: LoopbackCluster, servers: Sequence[str]) -> None:
    """Let sessions be with ``servers``, in turn, and be counted by the director."""
    turns, addresses = iter(servers), {"rs1": "10.0.0.100", "rs2": "10.0.0.101"}

    class Session:
        def __init__(self, *_: object) -> None:
            self.server = next(turns)

        def quit(self) -> None:
            cluster.inactive[addresses[self.server]] += 1

        def close(self) -> None:
            """Do nothing: there is no connection."""

    monkeypatch.setattr(ftp_rounds, "Session", Session)


@pytest.mark.parametrize("servers", [("rs2", "rs1", "rs2"), ("rs1", "rs2", "rs1")])
def test_control_connections_are_compared_with_the_model(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch, servers: tuple[str, ...]
) -> None:
    cluster: Any = testbed.cluster
    answer(monkeypatch, cluster, servers)
    taken = ftp_rounds.turns(testbed, 3)
    assert (taken.forecast, taken.observed) == (("rs2", "rs1", "rs2"), servers)


def test_only_mininet_hosts_are_entered_for_their_addresses(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered = list[str]()

    def enter(lab: Testbed, node: str) -> Here:
        entered.append(node)
        return Here()

    monkeypatch.setattr(Testbed, "enter", enter)
    monkeypatch.setattr(testbed.cluster, "is_enterable", lambda node: node == "rs2")
    assert ftp_rounds._names(testbed)["10.0.0.100"] == "rs1"
    assert entered == ["rs2"]
