"""What comes before and after a lab's life; the life itself is for tests/lab."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from lvslab import cluster, spec
from lvslab.boot import control
from lvslab.errors import LabFileError, MachineError, StateError, UsageError

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


def boot(folder: Path, name: str, kernel_name: str | None = None) -> None:
    with cluster.booted(folder, name=name, kernel_name=kernel_name):
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
        boot(folder, name, kernel_name="bzImage")
    assert not isinstance(caught.value, LabFileError)
    (folder / "vmlinuz").write_text("text")
    with pytest.raises(UsageError, match="vmlinuz is not a kernel"):
        boot(folder, name, kernel_name=str(folder / "vmlinuz"))


def test_files_are_read_before_anything_is_done(folder: Path, name: str, state: Path) -> None:
    (folder / "howto.md").write_text("```sh node=nobody\ntrue\n```\n")
    with pytest.raises(LabFileError, match=r"howto\.md:1: "):
        boot(folder, name)
    (folder / "lab.yaml").write_text("title: 1")
    with pytest.raises(LabFileError, match=r"lab\.yaml"):
        boot(folder, name)
    assert not state.exists()
    assert name not in control.running()


# --- evidence ----------------------------------------------------------------------------------------------


@pytest.fixture
def no_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is up on this machine."""
    monkeypatch.setattr(control, "running", lambda: [])


def test_each_run_has_a_folder_of_its_own(state: Path, no_labs: None) -> None:
    folders = [cluster._evidence("a") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() and folder.parent == state / "runs" for folder in folders)


def test_only_the_last_runs_are_kept(state: Path, no_labs: None) -> None:
    runs = state / "runs"
    for number in range(cluster.KEPT_RUNS + 5):
        (runs / f"20200101-0000{number:02}-a").mkdir(parents=True)
        (runs / f"20200101-0000{number:02}-a" / "transcript.jsonl").write_text("{}")
    (runs / "a-file").write_text("")
    newest = cluster._evidence("a")
    kept = sorted(folder.name for folder in runs.iterdir() if folder.is_dir())
    assert kept == [*(f"20200101-0000{number:02}-a" for number in range(6, 25)), newest.name]
    assert (runs / "a-file").exists()


def test_a_lab_that_is_up_keeps_its_evidence(
    state: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = state / "runs"
    for number in range(cluster.KEPT_RUNS + 5):
        (runs / f"20200101-0000{number:02}-a").mkdir(parents=True)
    oldest = runs / "20200101-000000-a"

    class Conversation:
        def __init__(self, asked: str) -> None:
            assert asked == name

        def __enter__(self) -> Conversation:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def ask(self, what: str) -> tuple[dict[str, str], list[int]]:
            return {"evidence": str(oldest)}, []

    monkeypatch.setattr(control, "running", lambda: [name])
    monkeypatch.setattr(control, "Control", Conversation)
    cluster._evidence("a")
    assert oldest.exists()
    assert len([folder for folder in runs.iterdir() if folder.is_dir()]) == cluster.KEPT_RUNS


def test_the_fixture_lab_would_be_fine_with_another_kernel(folder: Path) -> None:
    assert spec.load(folder).name == "my-lab"
