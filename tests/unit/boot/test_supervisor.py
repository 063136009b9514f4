"""The supervisor looks a node up and asks it; what nodes do is for the tests of their kinds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot import events
from lvslab.boot.events import Logged, Ready
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Guest, Host, Plan
from lvslab.boot.states import State
from lvslab.boot.status import LabStatus, Notes, Summary
from lvslab.boot.supervisor import Lifeline, Supervisor
from lvslab.errors import StateError, UsageError


@pytest.fixture
def supervisor(guest: Guest, tmp_path: Path) -> Iterator[Supervisor]:
    """Of a lab with a director and a client that has not been booted."""
    hosts, guests = (Host("client", (), ()),), (guest,)
    nodes: dict[str, dict[str, Any]] = {"director": {"role": "director"}, "client": {"role": "client"}}
    plan = Plan("a", "web", tmp_path, (), hosts, guests, {}, b"", "", tmp_path, cold=True, nodes=nodes)
    ours, theirs = socket.socketpair()
    with ours, theirs, ExitStack() as ended:
        lifeline = Lifeline(theirs)
        ended.callback(lifeline._lines.close)
        made = Supervisor(plan, lifeline)
        ended.callback(made._keeps_time.close)
        yield made


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"ask": "connect", "node": "direktor"}, "no node 'direktor'\n  its nodes: director, client"),
        ({"ask": "console", "node": "client"}, "client has no serial console\n  .*have: director$"),
        (
            {"ask": "namespaces", "node": "director"},
            "director is a virtual machine, and lvslab makes .*\n  hosts of this lab: client; ",
        ),
        ({"ask": "copy", "node": "director"}, "director has no memory to copy\n  .*have: none$"),
        ({"ask": "service", "node": "client", "action": "stop"}, "client has no service\n  .*have: none$"),
        ({"ask": "dance"}, "does not know what to do with"),
    ],
)
def test_what_cannot_be_asked_for(supervisor: Supervisor, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        supervisor(request_, [])


@pytest.mark.parametrize("node", ["director", "client"])
@pytest.mark.parametrize("what", ["connect", "observe", "stop node"])
def test_nodes_that_are_not_up_yet(supervisor: Supervisor, node: str, what: str) -> None:
    with pytest.raises(StateError, match=f"{node} is just coming up"):
        supervisor({"ask": what, "node": node, "command": "true", "seconds": None}, [])


def test_a_node_without_a_login(supervisor: Supervisor, host: Namespaces) -> None:
    supervisor._hosts["client"].place = host
    asked = {"ask": "observe", "node": "client", "command": "echo here; exit 3", "seconds": None}
    assert supervisor(asked, []) == {"status": 3, "output": "here\n"}
    descriptors: list[int] = []
    supervisor({"ask": "namespaces", "node": "client"}, descriptors)
    found = [os.fstat(descriptor).st_ino for descriptor in descriptors]
    assert found == [os.fstat(host.network).st_ino, os.fstat(host.mounts).st_ino]
    for descriptor in descriptors:
        os.close(descriptor)


def test_features_of_nodes(supervisor: Supervisor) -> None:
    assert supervisor({"ask": "features"}, []) == {"director": ["serial console"], "client": ["namespaces"]}


def test_status_and_notes(supervisor: Supervisor, host: Namespaces) -> None:
    def status() -> LabStatus:
        return LabStatus.read(supervisor({"ask": "status"}, []))

    assert {name: node.state for name, node in status().nodes.items()} == {
        "director": State.BOOTING,
        "client": State.BOOTING,
    }
    assert status().notes == Notes()
    supervisor._hosts["client"].place = host
    assert status().nodes["client"].state is State.UP
    summary = Summary(7, 7, 0, 1)
    supervisor({"ask": "note", "notes": Notes(steps=summary).as_json()}, [])
    supervisor({"ask": "note", "notes": Notes(phases={"network": 1.0}).as_json()}, [])
    assert status().notes == Notes(steps=summary, phases={"network": 1.0})


def test_unknown_notes_change_nothing(supervisor: Supervisor) -> None:
    with pytest.raises(UsageError, match="does not know such notes"):
        supervisor({"ask": "note", "notes": {"another": 1}}, [])
    assert LabStatus.read(supervisor({"ask": "status"}, [])).notes == Notes()


def test_nothing_is_told_after_the_last_message_that_is_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lifeline = Lifeline(theirs)
        lifeline.tell(Ready(1.0))
        # More than the stream holds: with nobody who reads it, a blocking send would never end.
        for _ in range(2000):
            lifeline.tell(Logged("lvslab.run", "x" * 1000))
        lifeline._lines.close()
        theirs.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as told:
            assert [events.from_line(line) for line in told] == [Ready(1.0)]
