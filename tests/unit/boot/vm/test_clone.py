"""Copies of guests: sealed, without a name, and the guest goes on whatever becomes of them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lvslab.apply import clones
from lvslab.apply.clones import Applied
from lvslab.boot import plan
from lvslab.boot.status import Summary
from lvslab.boot.vm import clone
from lvslab.boot.vm.agent import Agent
from lvslab.boot.vm.qemu import Memory
from lvslab.boot.vm.qmp import QmpError
from lvslab.errors import MachineError


class Guest:
    """Stands for a running machine."""

    def __init__(self, error: Exception | None = None) -> None:
        self.guest = SimpleNamespace(name="director.one")
        self.agent = self
        self.error = error
        self.log: list[str] = []

    @contextmanager
    def quiet(self) -> Iterator[None]:
        self.log.append("quiet")
        yield
        self.log.append("no longer quiet")

    def save(self, state: Path) -> None:
        self.log.append("save")
        state.write_bytes(b"state")
        if self.error is not None:
            raise self.error

    def go_on(self) -> None:
        self.log.append("go on")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    file = tmp_path / "director.one"
    with file.open("wb") as writer:
        writer.seek(1 << 20)
        writer.write(b"memory")
        writer.truncate(1 << 21)
    return file


def test_a_copy_is_whole_and_nobody_can_change_it(memory: Path, tmp_path: Path) -> None:
    guest: Any = Guest()
    pair = clone.take(guest, memory)
    try:
        assert guest.log == ["quiet", "save", "go on", "no longer quiet"]
        files = clone.inherited(pair)
        assert files.memory.read_bytes() == memory.read_bytes()
        assert files.state.read_bytes() == b"state"
        assert os.fstat(pair[0]).st_blocks * 512 <= 1 << 17
        assert list(tmp_path.iterdir()) == [memory]
        for descriptor in pair:
            assert not os.get_inheritable(descriptor)
            with pytest.raises(PermissionError):
                os.pwrite(descriptor, b"other", 0)
            with pytest.raises(PermissionError):
                os.truncate(descriptor, 0)
    finally:
        clones.close({"director": pair})


@pytest.mark.parametrize("error", [QmpError("no"), OSError("no")])
def test_a_guest_that_cannot_be_saved_goes_on(memory: Path, tmp_path: Path, error: Exception) -> None:
    guest: Any = Guest(error)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MachineError, match=r"director\.one cannot be copied: no"):
        clone.take(guest, memory)
    assert guest.log == ["quiet", "save", "go on"]
    assert list(tmp_path.iterdir()) == [memory]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lab_can_begin_with_the_very_same_guests_and_steps_only(tmp_path: Path) -> None:
    guest: Any = "guest"
    step: Any = "step"
    other: Any = "other"
    found = Applied((guest,), (step,), {}, tmp_path / "run", b"typed\n", Summary(1, 1, 0, 0))
    assert found.fits([guest], [step])
    assert not found.fits([other], [step])
    assert not found.fits([guest], [step, other])
    assert not found.fits([], [])


def test_the_evidence_says_where_the_steps_were_typed(tmp_path: Path) -> None:
    found = Applied((), (), {}, tmp_path / "run", b"typed\n", Summary(2, 2, 0, 1))
    found.record(tmp_path / "transcript.jsonl")
    assert (tmp_path / "transcript.jsonl").read_bytes() == b"typed\n"
    assert f'"typed_in": "{tmp_path}/run"' in (tmp_path / "typed-in.json").read_text()
    assert found.notes.as_json()["steps"] == {"total": 2, "taken": 2, "failed": 0, "expected_failures": 1}


def test_an_order_waits_until_the_copy_is_made() -> None:
    ours, guest = socket.socketpair()
    with ours, guest:
        agent = Agent(ours)
        asking = threading.Thread(target=agent.run, args=("true",))
        with agent.quiet():
            asking.start()
            guest.settimeout(0.05)
            with pytest.raises(TimeoutError):
                guest.recv(100)
        guest.settimeout(10)
        assert guest.recv(100) == b"1 true\n"
        guest.sendall(b"1 = 0\n")
        asking.join(10)
        assert not asking.is_alive()


def test_which_memory_waits_for_its_state(tmp_path: Path) -> None:
    assert not Memory(tmp_path, shared=True).incoming
    assert Memory(tmp_path, shared=False).incoming
    assert Memory(tmp_path, shared=True, filled=True).incoming


def test_a_copy_gets_only_what_must_differ() -> None:
    order = plan.guest_renewal(seconds=7, seed="ab" * 32)
    assert "date -u -s @7;" in order
    assert "reseed " + "ab" * 32 in order
    assert not any(word in order for word in ("hostname", "address", "manage", "route"))


def test_the_tap_of_each_director_has_a_mac_of_its_own() -> None:
    ends = [plan._management(number) for number in (0, 1, 300)]
    macs = [mac for end in ends for mac in (end.mac, end.mac_here)]
    assert len(set(macs)) == 6
