"""A lab's status: from its supervisor as JSON, and the document of ``lab.status --json``."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from lvslab.boot.states import State
from lvslab.boot.status import LabStatus, NodeStatus, Notes, Summary
from lvslab.lab.directors import DirectorSpec

DIRECTOR = NodeStatus(
    "guest",
    State.HANGS,
    "it hangs: no sign of life",
    way="resumed",
    answered=0.5,
    set_up=0.75,
    role="director",
    addresses={"eth0": "10.0.0.1"},
    all_addresses={"eth0": ["10.0.0.1", "fd00::1"]},
)
SERVER = NodeStatus(
    "host", State.UP, "up", service="stopped", role="real-server", addresses={"eth0": "10.0.0.2"}
)
NOTES = Notes(Summary(7, 7, 0, 1), None, {"rs1": {"expected": 4, "observed": 4}}, {"network": 0.25})


def status(notes: Notes) -> LabStatus:
    return LabStatus(
        lab="web-nat",
        name="mine",
        folder="/labs/web-nat",
        evidence="/runs/mine",
        started=1000.5,
        ready=True,
        nodes={"director": DIRECTOR, "rs1": SERVER},
        accelerator="tcg",
        versions={"kernel": "6.1.0"},
        spec=DirectorSpec("debian"),
        notes=notes,
    )


@pytest.mark.parametrize("notes", [Notes(), NOTES, Notes(typed_in="/runs/other")])
def test_what_a_supervisor_says_is_what_is_read(notes: Notes) -> None:
    found = LabStatus.read(json.loads(json.dumps(asdict(status(notes)))))
    assert found == status(notes)
    assert found.nodes["director"].state is State.HANGS


def test_nodes_are_found_by_all_their_addresses() -> None:
    # The server's status is one of a supervisor that knows of one address for each card.
    assert status(NOTES).names == {"10.0.0.1": "director", "fd00::1": "director", "10.0.0.2": "rs1"}


def test_the_document() -> None:
    document = status(NOTES).as_json()
    assert list(document.pop("nodes").values()) == [
        {
            "kind": "guest",
            "state": "it hangs: no sign of life",
            "way": "resumed",
            "answered": 0.5,
            "set_up": 0.75,
            "role": "director",
            "addresses": {"eth0": "10.0.0.1"},
            "all_addresses": {"eth0": ["10.0.0.1", "fd00::1"]},
        },
        {
            "kind": "host",
            "state": "up",
            "service": "stopped",
            "role": "real-server",
            "addresses": {"eth0": "10.0.0.2"},
            "all_addresses": {},
        },
    ]
    assert document == {
        "lab": "web-nat",
        "name": "mine",
        "folder": "/labs/web-nat",
        "evidence": "/runs/mine",
        "started": 1000.5,
        "ready": True,
        "accelerator": "tcg",
        "versions": {"kernel": "6.1.0"},
        "kernel_name": "debian",
        "director_kind": "qemu",
        "ipvsadm": None,
        "steps": {"total": 7, "taken": 7, "failed": 0, "expected_failures": 1},
        "distribution": {"rs1": {"expected": 4, "observed": 4}},
        "phases": {"network": 0.25},
    }
    assert "steps" not in status(Notes()).as_json()
