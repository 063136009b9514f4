"""Commands on labs that are up, where none is; those that are, are for tests/lab."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lvslab.boot import control
from lvslab.cluster import registry
from lvslab.errors import MachineError, StateError, UsageError
from lvslab.paths import PROJECT

RUNNING = control.running


@pytest.mark.parametrize("name", ["a", "0", "web-nat", "web-nat-2", "a" * 32, "a--b"])
def test_names(name: str) -> None:
    assert registry.check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a b", "a/b", "a\n", "ä", "a" * 33, "a.b"])
def test_what_cannot_be_a_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for attempt in (registry.check_name, registry.status, lambda name: registry.down([name])):
        with pytest.raises(UsageError, match="cannot be a lab's name") as caught:
            attempt(name)
        assert caught.value.exit_code == 2


def test_the_one_lab_that_is_up_need_not_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "running", lambda: ["a"])
    assert registry.only("") == "a"
    assert registry.only("b") == "b"
    monkeypatch.setattr(control, "running", lambda: [])
    with pytest.raises(StateError, match=r"^no lab is up\n  start one with \./run lab\.up$"):
        registry.only("")
    monkeypatch.setattr(control, "running", lambda: ["a", "b"])
    with pytest.raises(StateError, match=r"several labs are up: a, b\n.*--name"):
        registry.only("")


def test_the_labs_there_are(labs: Path) -> None:
    (row,) = registry.listed()
    assert Path(row.pop("folder")).name == "web-nat"
    assert row == {"lab": "web-nat", "title": "for a test", "nodes": 1, "up": [], "starting": []}


def test_a_lab_whose_start_is_being_prepared(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed with the process that starts it, and gone with that process."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(control, "running", RUNNING)
    name = f"unit-{secrets.token_hex(6)}"
    hold = f"from lvslab.boot import control; held = control.reserve({name!r}); print(flush=True); input()"
    program = [sys.executable, "-c", hold]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as starter:
        assert starter.stdout is not None and starter.stdout.readline() == b"\n"
        (row,) = (row for row in registry.listed() if row["lab"] == name)
        assert row == {
            "lab": name,
            "title": "just starting",
            "nodes": 0,
            "up": [],
            "starting": [{"name": name, "process": starter.pid}],
            "folder": "",
        }
        with pytest.raises(StateError, match="is just starting") as caught:
            registry.status(name)
        assert caught.value.hint == f"wait for process {starter.pid}, which starts it, to end"
        starter.kill()
    assert all(row["lab"] != name for row in registry.listed())


def test_nothing_is_done_to_labs_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for attempt in (lambda: registry.status("a"), lambda: registry.down(["a"]), lambda: registry.down([])):
        with pytest.raises(MachineError, match="labs need root"):
            attempt()


def test_a_lab_that_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    name = f"unit-{secrets.token_hex(6)}"
    for attempt in (lambda: registry.status(name), lambda: registry.down([name])):
        with pytest.raises(StateError, match=f"the lab '{name}' is not up"):
            attempt()
    assert registry.down([]) == []


def test_a_status_of_another_version() -> None:
    conversation: Any = SimpleNamespace(name="a", ask=lambda _: ({"lab": "web-nat", "nodes": {}}, []))
    with pytest.raises(StateError, match="the lab 'a' was booted by another version of lvslab"):
        registry.status_of(conversation)
