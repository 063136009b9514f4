"""A lab as its supervisor holds it, asked for over a real socket; its folder has been edited meanwhile."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lvslab import paths
from lvslab.apply import howto
from lvslab.boot import control, plan
from lvslab.boot.supervisor import Lifeline, Supervisor
from lvslab.cluster import cluster, record, registry
from lvslab.cluster.record import Record
from lvslab.errors import LabFileError, StateError, UsageError
from lvslab.lab import loader
from lvslab.lab.directors import DirectorSpec


@pytest.fixture
def booted(labs: Path) -> Record:
    """The record of web-nat, whose files then are wrong."""
    folder = labs / "web-nat"
    lab = loader.load(folder)
    steps = howto.load(folder / "howto.md", lab.nodes)
    versions, spec = {"kernel": "6.1.0"}, DirectorSpec("debian", "qemu", "1.31")
    (folder / "howto.md").write_text("```sh node=direktor\ntrue\n```\n")
    with pytest.raises(LabFileError):
        howto.load(folder / "howto.md", lab.nodes)
    (folder / "lab.yaml").write_text("title: another\n")
    with pytest.raises(LabFileError):
        loader.load(folder)
    return Record(lab, steps, folder / "evidence", versions, spec)


@pytest.fixture
def name(labs: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a lab that root has up."""
    name = f"unit-{secrets.token_hex(6)}"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(control, "_peer_user", lambda _: 0)
    monkeypatch.setattr(control, "running", lambda: [name])
    return name


@pytest.fixture
def serve(name: str, tmp_path: Path) -> Iterator[Callable[[Record, bytes], None]]:
    """Has a supervisor hold a record of a lab."""
    ours, theirs = socket.socketpair()
    with control.reserve(name) as listener, ours, theirs, ExitStack() as ended:

        def begin(booted: Record, packed: bytes, *, ready: bool = True) -> None:
            lab = booted.lab
            hosts = (plan.Host("director", (), ()),)
            planned = plan.Plan(name, lab.name, lab.folder, (), hosts, (), {}, b"", "", tmp_path, cold=False)
            planned = replace(planned, nodes={"director": {}}, record=packed)
            lifeline = Lifeline(theirs)
            ended.callback(lifeline._lines.close)
            supervisor = Supervisor(planned, lifeline)
            supervisor._ready = ready
            ended.callback(supervisor._keeps_time.close)
            listener.listen()
            accepting = threading.Thread(target=accept, args=(supervisor,))
            accepting.start()
            ended.callback(accepting.join, 10)

        def accept(supervisor: Supervisor) -> None:
            with suppress(OSError):
                while True:
                    control.serve(listener.accept()[0], supervisor)

        yield begin
        listener.shutdown(socket.SHUT_RDWR)


def test_a_lab_is_as_it_was_booted(
    name: str, booted: Record, serve: Callable[[Record, bytes], None]
) -> None:
    serve(booted, booted.packed())
    with cluster.attach(name) as found:
        assert found.record == booted
        assert (found.lab, found.steps) == (booted.lab, booted.steps)
        assert (found.evidence, found.versions, found.spec) == (
            booted.evidence, booted.versions, booted.spec,
        )  # fmt: skip


def test_it_is_listed_as_it_was_booted(
    name: str, booted: Record, serve: Callable[[Record, bytes], None]
) -> None:
    serve(booted, booted.packed())
    folder = str(booted.lab.folder)
    row = {"lab": "web-nat", "title": "for a test", "nodes": 1, "folder": folder}
    assert registry.listed() == [{**row, "up": [name], "starting": []}]


def test_a_lab_whose_nodes_are_not_up_yet(name: str, booted: Record, serve: Callable[..., None]) -> None:
    serve(booted, booted.packed(), ready=False)
    (row,) = registry.listed()
    assert (row["lab"], row["up"]) == ("web-nat", [])
    assert row["starting"] == [{"name": name, "process": os.getpid()}]


def test_a_record_with_other_fields(
    name: str, booted: Record, serve: Callable[[Record, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(record, "_shape", lambda: b"fields of another version\n")
        packed = booted.packed()
    serve(booted, packed)
    is_of_another_version(name, booted)


@pytest.mark.parametrize("was", [b"lvslab.lab.xodel", b"lvslab.lab.rules"])
def test_a_record_whose_classes_were_elsewhere(
    name: str, booted: Record, serve: Callable[[Record, bytes], None], was: bytes
) -> None:
    module = b"lvslab.lab.model"
    assert len(was) == len(module)
    shape = record._shape()
    serve(booted, shape + booted.packed().removeprefix(shape).replace(module, was))
    is_of_another_version(name, booted)


def is_of_another_version(name: str, booted: Record) -> None:
    with pytest.raises(StateError, match="was booted by another version of lvslab") as caught:
        cluster.attach(name)
    assert caught.value.hint is not None and f"lab.down --name {name}" in caught.value.hint
    (row,) = registry.listed()
    assert (row["up"], row["title"]) == ([name], f"in {booted.lab.folder}")


@pytest.mark.parametrize("found", [{}, {"kernel": "6.1", "lab": "web-nat"}])
def test_a_status_with_other_fields_is_listed(
    name: str,
    booted: Record,
    serve: Callable[[Record, bytes], None],
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, str],
) -> None:
    def answer(self: Supervisor, request: dict[str, str], _: list[int]) -> dict[str, str]:
        if request["ask"] == "status":
            return found
        raise UsageError(f"the supervisor does not know what to do with {request}")

    monkeypatch.setattr(paths, "labs", lambda: booted.lab.folder.parent / "none")
    monkeypatch.setattr(Supervisor, "__call__", answer)
    serve(booted, b"")
    assert registry.listed() == [
        {
            "lab": found.get("lab", name),
            "title": "booted by another version of lvslab",
            "nodes": 0,
            "up": [name],
            "starting": [],
            "folder": "",
        }
    ]


def test_a_supervisor_without_records(
    name: str, booted: Record, serve: Callable[[Record, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Supervisor.__call__

    def older(self: Supervisor, request: dict[str, object], descriptors: list[int]) -> object:
        if request == {"ask": "record"}:
            raise UsageError(f"the supervisor does not know what to do with {request}")
        return known(self, request, descriptors)

    monkeypatch.setattr(Supervisor, "__call__", older)
    serve(booted, booted.packed())
    is_of_another_version(name, booted)
