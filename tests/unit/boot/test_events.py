"""Messages of a supervisor travel as lines of JSON."""

from __future__ import annotations

import json

import pytest

from lvslab.boot.events import (
    AcceleratorChosen,
    Failed,
    GuestUp,
    Logged,
    Message,
    PhaseBegun,
    PhaseEnded,
    Ready,
    from_line,
    to_line,
)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (PhaseBegun("network"), {"event": "PhaseBegun", "phase": "network"}),
        (PhaseEnded("network", 1.5), {"event": "PhaseEnded", "phase": "network", "seconds": 1.5}),
        (GuestUp("d", "resumed", 0.5), {"event": "GuestUp", "node": "d", "way": "resumed", "seconds": 0.5}),
        (
            AcceleratorChosen("tcg", "no KVM", "slow"),
            {"event": "AcceleratorChosen", "name": "tcg", "reason": "no KVM", "means": "slow"},
        ),
        (Ready(2.0), {"event": "Ready", "seconds": 2.0}),
        (Failed({"kind": "BootError"}), {"event": "Failed", "error": {"kind": "BootError"}}),
        (Logged("lvslab.run", "ip\n"), {"event": "Logged", "logger": "lvslab.run", "message": "ip\n"}),
    ],
)
def test_a_message_as_a_line(message: Message, line: object) -> None:
    written = to_line(message)
    assert json.loads(written) == line
    assert written.index(b"\n") == len(written) - 1
    assert from_line(written) == message
