"""Which labs type the how-to and which begin with what another one typed; labs are only told of."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lvslab.boot.status import Summary
from lvslab.check.pytest_plugin import pool
from lvslab.check.pytest_plugin.pool import Spares, Wanted
from lvslab.errors import BootError, MachineError, StepFailed
from lvslab.lab.directors import USUAL, DirectorSpec
from tests.unit.fake_cluster import FakeCluster

FRESH = Wanted(Path("lab"), USUAL, applied=True)
BARE = Wanted(Path("lab"), USUAL, applied=False)


class Labs:
    """Stands for ``booted``; what goes wrong is set beforehand, what was done is written down."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.copyable = True
        self.raising: dict[str, Exception] = {}
        self.go = threading.Event()
        self.go.set()

    def __call__(self, what: str) -> None:
        self.done.append(what)
        if what in self.raising:
            raise self.raising[what]

    @contextmanager
    def booted(self, folder: Path, *, copyable: bool, begin_with: Any, **_: Any) -> Iterator[Running]:
        self("begin" if begin_with else "boot copyable" if copyable else "boot")
        yield Running(self, ("guest",) if copyable and self.copyable else (), begin_with)


class Running(FakeCluster):
    """A running lab that writes down among its ``labs`` what is done with it."""

    def __init__(self, labs: Labs, copyable: tuple[str, ...], applied: Any) -> None:
        super().__init__(copyable=copyable, applied=applied)
        self._labs = labs

    def apply(self, *_: object, without: Sequence[str] = ()) -> Summary:
        assert self._labs.go.wait(10)
        self._labs("apply")
        return Summary(0, 0, 0, 0)

    def copy(self, summary: Summary) -> SimpleNamespace:
        self._labs("copy")
        return SimpleNamespace(close=lambda: self._labs("close"))


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> Labs:
    labs = Labs()
    monkeypatch.setattr(pool, "booted", labs.booted)
    return labs


def in_turn(wanted: list[Wanted]) -> None:
    """What the fixtures do for so many tests."""
    given = Spares()
    try:
        for number, kind in enumerate(wanted):
            own = given.take(kind, wanted[number + 1 :])
            try:
                own.testbed()
                given.prepare(wanted[number + 1 :])
            finally:
                given.end(own)
    finally:
        given.close()


def test_the_first_types_and_all_others_begin_there(labs: Labs) -> None:
    in_turn([FRESH] * 4)
    assert labs.done == ["boot copyable", "apply", "copy", "begin", "begin", "begin", "close"]


def test_nothing_is_copied_for_nobody(labs: Labs) -> None:
    in_turn([FRESH])
    assert labs.done == ["boot", "apply"]


def test_bare_labs_are_booted(labs: Labs) -> None:
    in_turn([BARE] * 3)
    assert labs.done == ["boot"] * 3


def test_another_kind_begins_elsewhere(labs: Labs) -> None:
    other = Wanted(Path("lab"), DirectorSpec("another kernel"), applied=True)
    in_turn([FRESH, other])
    assert sorted(labs.done) == ["apply", "apply", "boot", "boot"]


def test_whoever_comes_while_the_first_types_waits(labs: Labs) -> None:
    given = Spares()
    labs.go.clear()
    given.prepare([FRESH, FRESH])
    labs.go.set()
    first, second = given.take(FRESH, [FRESH]), given.take(FRESH, [])
    first.testbed()
    second.testbed()
    assert labs.done == ["boot copyable", "apply", "copy", "begin"]
    given.end(first)
    given.end(second)
    given.close()


def test_where_steps_are_typed_on_hosts_each_lab_types_them(labs: Labs) -> None:
    labs.copyable = False
    in_turn([FRESH] * 2)
    assert labs.done == ["boot copyable", "apply", "boot", "apply"]


def test_a_machine_that_cannot_copy_guests(labs: Labs, caplog: pytest.LogCaptureFixture) -> None:
    labs.raising["copy"] = MachineError("director cannot be copied: no memory")
    in_turn([FRESH] * 2)
    assert labs.done == ["boot copyable", "apply", "copy", "boot", "apply"]
    assert "no memory" in caplog.text


def test_a_copy_that_does_not_come_up(labs: Labs, caplog: pytest.LogCaptureFixture) -> None:
    labs.raising["begin"] = BootError("QEMU refuses")
    in_turn([FRESH] * 2)
    assert labs.done == ["boot copyable", "apply", "copy", "begin", "boot", "apply", "close"]
    assert "QEMU refuses" in caplog.text


def test_a_step_that_fails_is_told_to_every_test(labs: Labs) -> None:
    labs.raising["apply"] = StepFailed("step 1 failed", "")
    given = Spares()
    for number in range(3):
        own = given.take(FRESH, [FRESH] * (2 - number))
        with pytest.raises(StepFailed):
            own.testbed()
        given.end(own)
    given.close()
    assert labs.done == ["boot copyable", "apply", "boot", "apply", "boot", "apply"]
