"""What comes before and after a lab's life; the life itself is for tests/lab."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot import control, plan
from lvslab.cluster import cluster, prepare
from lvslab.cluster.record import Record
from lvslab.errors import BootError, CheckFailed, LabFileError, MachineError, StateError, UsageError
from lvslab.lab import loader
from lvslab.lab.directors import USUAL, DirectorSpec

DEADLINE = 10.0
LAB = """
title: for a test
networks:
  lan: {subnet: 10.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-clod
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "state"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lab = tmp_path / "my-lab"
    lab.mkdir()
    (lab / "lab.yaml").write_text(LAB)
    (lab / "howto.md").write_text("```sh node=director\ntrue\n```\n")
    return lab


@pytest.fixture
def name() -> str:
    return f"unit-{secrets.token_hex(6)}"


def boot(folder: Path, name: str, kernel: str = "") -> None:
    with cluster.booted(folder, name=name, spec=DirectorSpec(kernel)):
        pytest.fail("it booted")


def test_labs_need_root(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for attempt in (lambda: boot(folder, name), lambda: cluster.attach(name)):
        with pytest.raises(MachineError, match="labs need root") as caught:
            attempt()
        assert caught.value.exit_code == 3


def test_a_lab_that_is_not_up(name: str) -> None:
    with pytest.raises(StateError, match=f"the lab '{name}' is not up"):
        cluster.attach(name)


def test_a_lab_that_is_up_already(folder: Path, name: str) -> None:
    with control.reserve(name), pytest.raises(StateError, match=f"the lab '{name}' is up already"):
        boot(folder, name)


def test_an_unknown_kernel_in_the_lab_file_is_shown_where_it_stands(folder: Path, name: str) -> None:
    with pytest.raises(LabFileError) as caught:
        boot(folder, name)
    assert str(caught.value) == (
        f"{folder}/lab.yaml:8: nodes.director.kernel: no kernel 'debian-clod': it is neither a file nor a "
        "known name\n  did you mean debian-cloud?"
    )
    assert name not in control.running()


def test_an_unknown_kernel_on_the_command_line_is_no_mistake_in_the_file(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no kernel 'bzImage'") as caught:
        boot(folder, name, kernel="bzImage")
    assert not isinstance(caught.value, LabFileError)
    (folder / "vmlinuz").write_text("text")
    with pytest.raises(UsageError, match="vmlinuz is not a kernel"):
        boot(folder, name, kernel=str(folder / "vmlinuz"))


def test_files_are_read_before_anything_is_done(folder: Path, name: str, state: Path) -> None:
    (folder / "howto.md").write_text("```sh node=nobody\ntrue\n```\n")
    with pytest.raises(LabFileError, match=r"howto\.md:1: "):
        boot(folder, name)
    (folder / "lab.yaml").write_text("title: 1")
    with pytest.raises(LabFileError, match=r"lab\.yaml"):
        boot(folder, name)
    assert not state.exists()
    assert name not in control.running()


def test_a_supervisor_that_ends_at_once_says_why(
    folder: Path,
    name: str,
    program: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the lab "is not up" would be true, and no help."""
    program("unshare", "#!/bin/sh\necho no room for a namespace >&2\nexit 1\n")
    planned = plan.Plan(name, "my-lab", folder, (), (), (), {}, b"", "", tmp_path, cold=False)
    monkeypatch.setattr(prepare, "plan_of", lambda *_, **_named: planned)
    with pytest.raises(BootError, match="ended before the lab was up: unshare ended with") as caught:
        boot(folder, name)
    assert caught.value.hint == "no room for a namespace"
    assert name not in control.running()


# --- logins ------------------------------------------------------------------------------------------------


class Login:
    """A connection that is one in name only."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.closed = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Supervisor:
    """Answers as the supervisor of a lab would. ``answers`` are called before a login or an observation of a
    node is answered, one each time; what they raise is the answer.
    """

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, list[Callable[[], Any]]] = field(default_factory=dict)
    logins: list[Login] = field(default_factory=list)
    closed: bool = False

    def ask(self, what: str, **details: Any) -> tuple[Any, list[int]]:
        self.asked.append((what, details))
        answers = self.answers.get(details["node"], [])
        answer = answers.pop(0)() if answers else None
        if what != "connect":
            return answer, []
        ours, theirs = socket.socketpair()
        theirs.close()
        return answer, [ours.detach()]

    observe = control.Control.observe

    def login(self, stream: socket.socket, *, node: str, **_: object) -> Login:
        stream.close()
        self.logins.append(Login(node))
        return self.logins[-1]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    found = Supervisor()
    monkeypatch.setattr(control, "Control", lambda name: found)
    monkeypatch.setattr(cluster.Connection, "open", found.login)
    for key in ("client_key", "host_public_key"):
        monkeypatch.setattr(cluster.keys, key, lambda: "a key")
    return found


@pytest.fixture
def running(supervisor: Supervisor, folder: Path) -> Iterator[cluster.Cluster]:
    """A lab that is up, as far as anybody can tell."""
    with cluster.Cluster("a", Record(loader.load(folder), (), folder, {}, USUAL)) as found:
        yield found
    assert supervisor.closed


def refuse() -> None:
    raise BootError("director does not accept SSH connections")


def test_a_connection_is_made_once_and_kept(running: cluster.Cluster, supervisor: Supervisor) -> None:
    first = running.connect("director")
    assert running.connect("director") is first
    assert running.connect("rs1") is not first
    assert [details["node"] for _, details in supervisor.asked] == ["director", "rs1"]
    running.close()
    assert all(login.closed for login in supervisor.logins)


def test_a_login_that_is_expected_has_begun_already(
    running: cluster.Cluster, supervisor: Supervisor
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        assert goes_on.wait(DEADLINE)

    supervisor.answers["director"] = [slowly]
    coming = running.connect_later("director")
    assert begun.wait(DEADLINE)  # and nobody has called connect
    assert not coming.done()
    assert running.connect_later("director") is coming
    goes_on.set()
    assert running.connect("director") is coming.result(DEADLINE)
    assert len(supervisor.asked) == 1


def test_logins_to_several_nodes_go_on_side_by_side(
    running: cluster.Cluster, supervisor: Supervisor
) -> None:
    nodes = ("director", "rs1", "rs2")
    together = threading.Barrier(len(nodes))
    supervisor.answers = {node: [lambda: together.wait(DEADLINE)] for node in nodes}
    coming = [running.connect_later(node) for node in nodes]
    assert [login.result(DEADLINE) for login in coming] == [running.connect(node) for node in nodes]


def test_several_threads_share_one_login(running: cluster.Cluster, supervisor: Supervisor) -> None:
    together = threading.Barrier(4)

    def connect() -> object:
        together.wait(DEADLINE)
        return running.connect("director")

    with ThreadPoolExecutor(4) as pool:
        found = {login.result(DEADLINE) for login in [pool.submit(connect) for _ in range(4)]}
    assert found == {*supervisor.logins}
    assert len(found) == len(supervisor.asked) == 1


@pytest.mark.parametrize("expected", [False, True])
def test_a_login_that_failed_is_tried_anew(
    expected: bool, running: cluster.Cluster, supervisor: Supervisor
) -> None:
    supervisor.answers["director"] = [refuse, refuse]
    if expected:
        running.connect_later("director")
    for _ in range(2):
        with pytest.raises(BootError, match="director does not accept SSH connections"):
            running.connect("director")
    assert running.connect("director") is supervisor.logins[0]
    assert len(supervisor.asked) == 3


def test_what_ends_with_the_lab(running: cluster.Cluster, supervisor: Supervisor) -> None:
    """Logins that were made, failed, or nobody asked for again."""
    supervisor.answers["rs1"] = [refuse]
    made, failed, unasked = (running.connect_later(node) for node in ("director", "rs1", "rs2"))
    running.connect("director")
    assert isinstance(failed.exception(DEADLINE), BootError)
    running.close()
    assert made.done()
    assert all(login.closed for login in supervisor.logins)
    assert unasked.cancelled() or unasked.result(DEADLINE) in supervisor.logins
    assert supervisor.closed


# --- looking at a node without a login ---------------------------------------------------------------------


def test_what_a_node_prints(running: cluster.Cluster, supervisor: Supervisor) -> None:
    supervisor.answers["director"] = [lambda: {"status": 0, "output": "one\ntwo\n"}]
    assert running.observe("director", "ipvsadm -Ln") == "one\ntwo\n"
    assert supervisor.asked == [("observe", {"node": "director", "command": "ipvsadm -Ln", "seconds": None})]


@pytest.mark.parametrize(("output", "hint"), [("ipvsadm: not found\n", "ipvsadm: not found"), ("\n", None)])
def test_a_command_that_fails_where_lvslab_looks(
    output: str, hint: str | None, running: cluster.Cluster, supervisor: Supervisor
) -> None:
    supervisor.answers["director"] = [lambda: {"status": 127, "output": output}]
    with pytest.raises(CheckFailed) as caught:
        running.observe("director", "ipvsadm -Ln")
    assert caught.value.message == "on director, `ipvsadm -Ln` ended with status 127"
    assert caught.value.hint == hint


def test_a_node_that_does_not_answer_where_lvslab_looks(
    running: cluster.Cluster, supervisor: Supervisor
) -> None:
    supervisor.answers["director"] = [refuse]
    with pytest.raises(BootError):
        running.observe("director", "ipvsadm -Ln")


# --- evidence ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is up on this machine."""
    monkeypatch.setattr(control, "running", lambda: [])


def test_each_run_has_a_folder_of_its_own(state: Path, no_labs: None) -> None:
    folders = [prepare.evidence_folder("a") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() and folder.parent == state / "runs" for folder in folders)


def test_only_the_last_runs_are_kept(state: Path, no_labs: None) -> None:
    runs = state / "runs"
    for number in range(prepare.KEPT_RUNS + 5):
        (runs / f"20200101-0000{number:02}-a").mkdir(parents=True)
        (runs / f"20200101-0000{number:02}-a" / "transcript.jsonl").write_text("{}")
    (runs / "a-file").write_text("")
    newest = prepare.evidence_folder("a")
    kept = sorted(folder.name for folder in runs.iterdir() if folder.is_dir())
    assert kept == [*(f"20200101-0000{number:02}-a" for number in range(6, 25)), newest.name]
    assert (runs / "a-file").exists()


def test_a_lab_that_is_up_keeps_its_evidence(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = state / "runs"
    for number in range(prepare.KEPT_RUNS + 5):
        (runs / f"20200101-0000{number:02}-a").mkdir(parents=True)
    names = ("000000-up", "000001-up", "000001-up-and-away", "000000-up-2", "000002-up-2")
    for name in (f"20190101-{each}" for each in names):
        (runs / name).mkdir()
    monkeypatch.setattr(control, "running", lambda: ["up"])
    prepare.evidence_folder("a")
    kept = sorted(folder.name for folder in runs.glob("2019*"))
    assert kept == ["20190101-000001-up", "20190101-000002-up-2"]
    assert len([folder for folder in runs.iterdir() if folder.is_dir()]) == prepare.KEPT_RUNS


def test_the_fixture_lab_would_be_fine_with_another_kernel(folder: Path) -> None:
    assert loader.load(folder).name == "my-lab"
