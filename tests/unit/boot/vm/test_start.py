"""The ways a guest comes up, with a stand-in for QEMU that is saved and resumed in words only."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.boot.plan import Guest
from lvslab.boot.vm import snapshot
from lvslab.boot.vm import start as warm
from lvslab.boot.vm.qemu import Machine
from lvslab.boot.vm.snapshot import Snapshot
from lvslab.boot.vm.start import Starter
from lvslab.cache import store
from lvslab.errors import BootError

if TYPE_CHECKING:
    from tests.unit.conftest import StandIn

DEADLINE = 10.0
BOOTS = ("monitor", "agent lvslab-agent 1\n", "serve")
RESUMES = ("monitor", "serve")


@pytest.fixture
def guest(guest: Guest) -> Guest:
    """The director, with so little memory that it is written in no time."""
    return replace(guest, memory=1)


@pytest.fixture(autouse=True)
def memory(
    tmp_path: Path, machines: list[Machine], stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A cache of the test's own, and where guests have memory of which a snapshot is to be made."""
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(warm, "_RUN", tmp_path / "run")
    stand_in.script("director", *BOOTS)
    stand_in.script("director", *RESUMES, resumed=True)
    return tmp_path / "run"


@pytest.fixture
def start(guest: Guest, tmp_path: Path) -> Callable[..., Starter]:
    """Begins to bring the director up."""

    def starter(*, cold: bool = False, making: set[str] | None = None) -> Starter:
        return Starter(guest, "tcg", tmp_path, cold=cold, making=set() if making is None else making)

    return starter


Start = Callable[..., Starter]


@pytest.fixture
def kept(guest: Guest, tmp_path: Path) -> Snapshot:
    """A snapshot of the director."""
    for name in ("kept-memory", "kept-state"):
        (tmp_path / name).write_text(name)
    return snapshot.keep(snapshot.key(guest, "tcg"), tmp_path / "kept-memory", tmp_path / "kept-state", {})


def up(starter: Starter) -> str:
    """The way in which it came up."""
    starter.await_ready()
    assert starter.machine.ended is None
    assert starter.machine.observe("true", DEADLINE).status == 0
    return starter.way


def free(key: str) -> bool:
    """Whether nobody is making the snapshot ``key``."""
    with store.locked_if_free(f"snapshot-{key}") as ours:
        return ours


def line(machine: Machine) -> list[str]:
    """The words of its command line."""
    return list(map(str, machine._process.args))  # type: ignore[arg-type]


def test_the_first_start_boots_and_makes_a_snapshot(
    start: Start, guest: Guest, memory: Path, stand_in: StandIn
) -> None:
    key, making = snapshot.key(guest, "tcg"), set[str]()
    starter = start(making=making)
    assert making == {key}
    assert "-incoming" not in line(starter.machine)
    assert up(starter) == "booted"
    # It was stopped for that, and runs on.
    assert stand_in.asked("director")[1::3] == ["stop", "cont"]
    found = snapshot.find(key)
    assert found is not None
    assert found.memory.read_bytes() == b"memory of director".ljust(1 << 20, b"\0")
    assert found.state.read_bytes() == b"state of director"
    (row,) = snapshot.listed()
    assert (row["kernel"], row["accelerator"], row["mib"]) == ("6.1.0", "tcg", 1)
    # Its own memory stays, of course; the state is only in the cache.
    assert [file.name for file in memory.iterdir()] == ["director"]


def test_the_second_start_resumes(start: Start, kept: Snapshot, stand_in: StandIn) -> None:
    making = set[str]()
    starter = start(making=making)
    assert "-incoming" in line(starter.machine)
    assert f"mem-path={kept.memory}" in " ".join(line(starter.machine))
    assert up(starter) == "resumed"
    assert stand_in.asked("director")[-2:] == ["migrate-incoming", "cont"]
    assert making == set()
    assert snapshot.find(kept.folder.name) == kept


def test_a_cold_start_makes_nothing_and_takes_nothing(start: Start, kept: Snapshot, memory: Path) -> None:
    starter = start(cold=True)
    assert "memory-backend" not in " ".join(line(starter.machine))
    assert up(starter) == "booted cold"
    snapshot.discard(kept)
    assert up(start(cold=True)) == "booted cold"
    assert snapshot.listed() == []
    assert not memory.exists()


def test_the_lock_is_held_until_the_snapshot_is_made(start: Start, guest: Guest) -> None:
    key = snapshot.key(guest, "tcg")
    starter = start()
    assert not free(key)
    starter.await_ready()
    assert free(key)
    resumed = start()
    assert resumed.way == "resumed"
    assert free(key)  # a snapshot that is there is no reason to keep others waiting


def test_a_guest_that_does_not_boot_lets_go_of_the_lock(
    start: Start, guest: Guest, stand_in: StandIn
) -> None:
    stand_in.script("director", "status 1")
    starter = start()
    with pytest.raises(BootError, match="ended with status 1"):
        starter.await_ready()
    assert free(snapshot.key(guest, "tcg"))
    assert snapshot.listed() == []


def test_the_second_guest_of_a_snapshot_boots_beside_the_first(
    guest: Guest, tmp_path: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same thread starts both: it must not wait for what it does only later."""

    @contextmanager
    def at_once(key: str) -> Iterator[None]:
        with store.locked_if_free(f"snapshot-{key}") as ours:
            assert ours, "it would wait for itself"
            yield

    monkeypatch.setattr(snapshot, "making", at_once)
    stand_in.script("other", *BOOTS)
    making = set[str]()
    first = Starter(guest, "tcg", tmp_path, cold=False, making=making)
    second = Starter(replace(guest, name="other"), "tcg", tmp_path, cold=False, making=making)
    assert (first.way, second.way) == ("booted", "booted cold")
    assert (up(second), up(first)) == ("booted cold", "booted")
    assert len(snapshot.listed()) == 1


def test_who_waits_for_a_snapshot_that_another_lab_makes_resumes_it(
    start: Start, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, waits, making = snapshot.key(guest, "tcg"), threading.Event(), snapshot.making

    @contextmanager
    def wait(wanted: str) -> Iterator[None]:
        waits.set()
        with making(wanted):
            yield

    monkeypatch.setattr(snapshot, "making", wait)
    with ThreadPoolExecutor(1) as pool:
        with making(key):
            coming = pool.submit(start)
            assert waits.wait(DEADLINE)
            for name in ("memory", "state"):
                (tmp_path / name).write_text(name)
            snapshot.keep(key, tmp_path / "memory", tmp_path / "state", {})
            assert not coming.done()
        starter = coming.result(DEADLINE)
    assert free(key)  # a third one need not wait until this one is up
    assert up(starter) == "resumed"


def test_who_waits_for_a_snapshot_that_is_never_made_makes_it(
    start: Start, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, waits, making = snapshot.key(guest, "tcg"), threading.Event(), snapshot.making

    @contextmanager
    def wait(wanted: str) -> Iterator[None]:
        waits.set()
        with making(wanted):
            yield

    monkeypatch.setattr(snapshot, "making", wait)
    with ThreadPoolExecutor(1) as pool:
        with making(key):
            coming = pool.submit(start)
            assert waits.wait(DEADLINE)
        assert up(coming.result(DEADLINE)) == "booted"


# --- snapshots that are no good ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (["monitor refuses=migrate-incoming", "serve"], "migrate-incoming: not today"),
        (["monitor fails=migrate-incoming", "serve"], "migrate-incoming failed"),
        (["monitor refuses=cont", "serve"], "cont: not today"),
        (["stderr Unknown savevm section\n", "status 1"], "QEMU"),
        (["monitor", "order", "console BUG: unable to handle page fault\n", "status 0"], "BUG: unable"),
    ],
    ids=["refused", "failed", "does not run on", "QEMU ends", "the kernel panics"],
)
def test_a_snapshot_that_cannot_be_resumed_is_thrown_away_and_the_guest_boots(
    script: list[str],
    words: str,
    start: Start,
    kept: Snapshot,
    stand_in: StandIn,
    machines: list[Machine],
    caplog: pytest.LogCaptureFixture,
) -> None:
    stand_in.script("director", *script, resumed=True)
    assert up(start()) == "booted cold"
    assert snapshot.find(kept.folder.name) is None
    assert snapshot.listed() == []
    failed, booted = machines
    assert failed.ended is not None
    assert "memory-backend" not in " ".join(line(booted))
    assert words in caplog.text
    # The next start makes a new one.
    assert up(start()) == "booted"


def test_a_snapshot_that_was_replaced_while_it_was_resumed(
    start: Start, kept: Snapshot, tmp_path: Path, machines: list[Machine]
) -> None:
    """Memory and state might be of two guests then."""
    starter = start()
    newer = snapshot.keep(kept.folder.name, tmp_path / "kept-memory", tmp_path / "kept-state", {})
    assert newer != kept
    assert up(starter) == "booted cold"
    assert len(machines) == 2


def test_an_altered_snapshot_is_not_even_started(start: Start, kept: Snapshot) -> None:
    with kept.memory.open("ab") as file:
        file.write(b"!")
    starter = start()
    assert starter.way == "booted"
    assert "-incoming" not in line(starter.machine)


# --- snapshots that cannot be made ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["stop", "migrate-set-capabilities", "migrate"])
def test_a_guest_that_cannot_be_saved_is_up_all_the_same(
    command: str, start: Start, stand_in: StandIn, memory: Path
) -> None:
    stand_in.script("director", f"monitor refuses={command}", *BOOTS[1:])
    assert up(start()) == "booted cold"
    # However far that went, it runs.
    assert stand_in.asked("director")[-1] == "cont"
    assert snapshot.listed() == []
    assert [file.name for file in memory.iterdir()] == ["director"]


def test_a_full_disk_is_no_reason_to_have_no_lab(
    start: Start, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert up(start()) == "booted cold"
    assert stand_in.asked("director")[-1] == "cont"
    assert not list((tmp_path / "cache/snapshots").glob("*/*"))
    assert up(start()) == "booted"


def test_a_guest_that_does_not_run_on_after_its_snapshot(start: Start, stand_in: StandIn) -> None:
    stand_in.script("director", "monitor refuses=cont", *BOOTS[1:])
    with pytest.raises(BootError, match=r"director does not run on .*: cont: not today"):
        start().await_ready()
