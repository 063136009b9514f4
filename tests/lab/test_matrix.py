"""Matrices that run: on one machine and on a cluster of workers, undisturbed, interrupted, and with a worker
or a lab lost in the middle. Each runs in a box, where whatever is left can be seen.

LVSLAB_KILL_ROUNDS says how many runs lose a worker (default 1), LVSLAB_KILL_SEED chooses the moments.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab import paths
from lvslab.kernel import store

if TYPE_CHECKING:
    from tests.lab.conftest import Box, BoxedCommand, Ended, Runner

KERNEL = "debian-cloud"
ROUNDS = int(os.environ.get("LVSLAB_KILL_ROUNDS", "1"))
SEED = int(os.environ.get("LVSLAB_KILL_SEED", secrets.randbits(32)))
LABS = ("one", "two", "three")
TEST = """
from lvslab.check import verdict
from lvslab.check.seed import random_for


def test_sequence(lab, measured):
    measured("dice", str(random_for("of this check").randrange(1 << 30)))
    taken = lab.round(count=6)
    verdict.sequence_matches(taken.forecast, taken.observed)


def test_own_lab(fresh_lab):
    verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)
"""


@pytest.fixture(scope="module")
def kept(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this module's own, for all its boxes."""
    folder = tmp_path_factory.mktemp("cache")
    for place in paths.cache().iterdir():
        # Not what this machine remembers of others' labs, nor locks that they may hold.
        if place.name not in ("locks", "received", "remembered"):
            (folder / place.name).symlink_to(place)
    return folder


@contextmanager
def box_with(run: Runner, kept: Path) -> Iterator[Box]:
    """A box whose cache is ``kept``."""
    with run.box(kept) as box:
        box.environment["LVSLAB_CACHE"] = box.KEPT
        # The labs are files of this machine: what Python compiles of their tests would be new in the box.
        box.environment["PYTHONDONTWRITEBYTECODE"] = "1"
        yield box


@pytest.fixture
def box(run: Runner, kept: Path) -> Iterator[Box]:
    with box_with(run, kept) as box:
        yield box


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Labs like web-nat with two checks each, as --labs takes them."""
    folder = tmp_path_factory.mktemp("labs")
    for name in LABS:
        place = folder / name
        shutil.copytree(
            paths.labs() / "web-nat", place, ignore=shutil.ignore_patterns("*.py", "__pycache__")
        )
        (place / "test_it.py").write_text(TEST)
    return ",".join(str(folder / name) for name in LABS)


def matrix(box: Box, *words: str) -> BoxedCommand:
    return box.start("matrix.run", "--json", *words)


def run_of(ended: Ended, status: int = 0) -> dict[str, Any]:
    assert ended.status == status, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def report_of(run: dict[str, Any]) -> dict[str, Any]:
    """All that must be the same whoever tried a cell, and how often."""
    return {
        result["cell"]["lab"]: (
            result["verdict"],
            [(case["name"], case["verdict"]) for case in result["cases"]],
            result["seed"],
            result["repeat"],
            result["checksums"],
            result["measured"],
        )
        for result in run["results"]
    }


def processes(box: Box, text: str) -> list[int]:
    """The process ids, as this machine has them, of those in the box whose command line has ``text``."""
    found = []
    pending = [pid for command in box.commands for pid in command.children(command.pid)]
    while pending:
        pid = pending.pop()
        pending += box.commands[0].children(pid)
        try:
            if text in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode():
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def whole_json(file: Path) -> bool:
    """Whether the file is there, with all of a JSON object."""
    return file.exists() and file.read_text().rstrip().endswith("}")


def await_empty(box: Box) -> None:
    """Return when nothing is left in the box; the cache is shared with all others of this machine."""

    def left() -> list[str]:
        return [line for line in box.leftovers() if not line.startswith("temporary file in the cache")]

    deadline = time.monotonic() + 10
    while (lines := left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert lines == []


def workers(box: Box) -> list[int]:
    return processes(box, "multiprocessing.spawn")


@pytest.fixture(scope="module")
def undisturbed(run: Runner, kept: Path, labs: str) -> tuple[dict[str, Any], float]:
    """A run of the small labs that nobody disturbed, and the seconds that it took."""
    with box_with(run, kept) as box:
        command = matrix(box, "--kernels", KERNEL, "--labs", labs, "--workers", "2", "--seed", "5")
        found = run_of(command.end())
        seconds = command.seconds
        await_empty(box)
    return found, seconds


@pytest.mark.slow
def test_a_small_matrix(box: Box) -> None:
    installed = store.installed()
    kernels = [KERNEL, *([installed[0].manifest.version] if installed else [])]
    words = ("--kernels", ",".join(kernels), "--labs", "web-nat", "--workers", "2", "--seed", "7")
    run = run_of(matrix(box, *words, "--output", f"{box.EVIDENCE}/out").end())
    folder = box.inside(f"{box.EVIDENCE}/out")
    assert run == json.loads((folder / "results.json").read_text())
    assert [result["cell"]["kernel"] for result in run["results"]] == kernels
    assert run["seed"] == 7 and run["ended"] and run["machine"]["qemu"]
    for result in run["results"]:
        assert result["verdict"] == "passed", result
        assert result["attempts"] == 1 and not result["flaky"]
        assert result["cases"][0]["name"] == "howto.md" and len(result["cases"]) >= 13
        place = folder / result["evidence"]
        assert json.loads((place / "result.json").read_text()) == result
        assert {"transcript.jsonl", "console-director.log", "versions.json", "junit.xml", "pytest.log"} <= {
            file.name for file in place.iterdir()
        }
    left = [path.name for path in folder.iterdir()]
    assert sorted(left) == ["cells", "results.json"], "the workers' own files are gone"
    await_empty(box)


def test_a_cell_alone_has_the_same_dice(box: Box, undisturbed: tuple[dict[str, Any], float]) -> None:
    whole, _ = undisturbed
    one = whole["results"][1]
    repeat = one["repeat"].split()
    assert repeat[:2] == ["./run", "matrix.run"]
    again = run_of(matrix(box, *repeat[2:]).end())
    assert report_of(again) == {one["cell"]["lab"]: report_of(whole)[one["cell"]["lab"]]}
    assert len({result["measured"]["dice"] for result in whole["results"]}) == len(LABS)


@pytest.mark.slow
def test_a_worker_is_killed(box: Box, labs: str, undisturbed: tuple[dict[str, Any], float]) -> None:
    words = ("--kernels", KERNEL, "--labs", labs, "--workers", "2", "--seed", "5")
    wanted, whole = report_of(undisturbed[0]), undisturbed[1]
    dice = random.Random(SEED)
    for number in range(ROUNDS):
        moment = dice.uniform(1.5, whole)
        command = matrix(box, *words)
        if not command.ends_before(moment) and (found := workers(box)):
            os.kill(dice.choice(found), signal.SIGKILL)
        run = run_of(command.end())
        told = f"seed {SEED}, round {number}, at {moment:.2f} s of {whole:.2f} s"
        assert report_of(run) == wanted, told
        assert len(run["results"]) == len(LABS), told
        assert not any(result["flaky"] for result in run["results"]), told
        await_empty(box)


@pytest.mark.slow
def test_a_worker_is_killed_while_it_starts(
    run: Runner, box: Box, labs: str, undisturbed: tuple[dict[str, Any], float]
) -> None:
    command = matrix(box, "--kernels", KERNEL, "--labs", labs, "--workers", "2", "--seed", "5")
    os.kill(run.wait_until(lambda: workers(box), 30, "a worker starts")[0], signal.SIGKILL)
    assert report_of(run_of(command.end())) == report_of(undisturbed[0])
    await_empty(box)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(run: Runner, box: Box, labs: str, number: signal.Signals) -> None:
    out = f"{box.EVIDENCE}/{number.name}"
    words = ("--kernels", KERNEL, "--labs", labs, "--workers", "1", "--output", out)
    command = matrix(box, *words)
    cells = box.inside(out) / "cells"
    run.wait_until(lambda: [*cells.glob("[!.]*/result.json")], 60, "the first cell is done")
    run.wait_until(lambda: processes(box, "-m pytest"), 60, "the next one is checked")
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # as a terminal does: pytest and the workers get it too
    else:
        os.kill(command.pid, number)
    ended = command.end()
    assert ended.status == (130 if number == signal.SIGINT else -number), ended.stderr
    if number == signal.SIGINT:
        assert f"./run matrix.run --resume {out}" in ended.stderr
        assert "1 of 3 cells are done" in ended.stderr
    await_empty(box)
    (kept,) = (json.loads(file.read_text()) for file in cells.glob("[!.]*/result.json"))
    assert kept["verdict"] == "passed"
    again = run_of(matrix(box, "--resume", out).end())
    assert len(again["results"]) == len(LABS)
    assert kept in again["results"], "what was done is not done again"
    assert {result["verdict"] for result in again["results"]} == {"passed"}
    await_empty(box)


@pytest.mark.slow
def test_a_lab_that_breaks_is_tried_once_more(run: Runner, box: Box, labs: str) -> None:
    out = f"{box.EVIDENCE}/flaky"
    command = matrix(box, "--kernels", KERNEL, "--labs", labs.split(",")[0], "--output", out)
    run.wait_until(lambda: processes(box, "-m pytest"), 60, "the checks begin")
    os.kill(processes(box, "qemu-system-x86_64")[0], signal.SIGKILL)
    (result,) = run_of(command.end())["results"]
    assert (result["verdict"], result["flaky"], result["attempts"]) == ("passed", True, 2)
    assert "was ended by SIGKILL" in result["error"]
    first = box.inside(out) / result["evidence"] / "first-attempt"
    assert (first / "transcript.jsonl").exists()
    await_empty(box)


@pytest.mark.slow
def test_a_worker_gets_what_it_lacks(run: Runner, box: Box, labs: str) -> None:
    box.inside(box.EVIDENCE).mkdir()
    dask = str(Path(sys.executable).with_name("dask"))
    at = f"{box.EVIDENCE}/scheduler.json"
    local = ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", at)
    scratch = {"DASK_TEMPORARY_DIRECTORY": f"{box.EVIDENCE}/dask"}
    scheduler = box.start("scheduler", "--port", "0", *local, program=dask, env=scratch)
    # Dask makes the file, and then writes to it.
    run.wait_until(lambda: whole_json(box.inside(at)), 30, "the scheduler listens")
    address = json.loads(box.inside(at).read_text())["address"]
    own = {"LVSLAB_CACHE": box.CACHE, "LVSLAB_STATE": f"{box.EVIDENCE}/worker", "LVSLAB_ACCELERATOR": "tcg"}
    options = ("--nthreads", "1", "--no-nanny", "--local-directory", f"{box.EVIDENCE}/dask")
    worker = box.start("worker", *options, *local, program=dask, env=own | scratch)
    words = ("--kernels", KERNEL, "--labs", labs.split(",")[0], "--scheduler", address)
    ended = matrix(box, *words).end()
    (result,) = run_of(ended)["results"]
    assert result["verdict"] == "passed", result
    cache = box.inside(box.CACHE)
    received = {file.name: file.stat().st_mtime_ns for file in (cache / "received").iterdir()}
    assert {result["checksums"]["kernel"], result["checksums"]["image"]} < set(received)
    assert len(received) == ended.stderr.count("sending ") == 3, "kernel, image and web server"
    made = {path.name for path in cache.iterdir() if path.is_dir() and any(path.iterdir())}
    assert not made & {"images", "kernels", "servers", "packages", "keys"}, (
        "nothing is built or fetched there"
    )
    again = matrix(box, *words).end()
    assert report_of(run_of(again)).keys() == {result["cell"]["lab"]}
    assert "sending " not in again.stderr
    assert {file.name: file.stat().st_mtime_ns for file in (cache / "received").iterdir()} == received
    for command in (worker, scheduler):
        os.kill(command.pid, signal.SIGTERM)
        command.end()
    await_empty(box)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (("--scheduler", "127.0.0.1:x"), "127.0.0.1:x is not the address of a scheduler"),
    ],
)
def test_a_cluster_that_is_not_there(run: Runner, labs: str, words: tuple[str, ...], message: str) -> None:
    done = run("matrix.run", "--kernels", KERNEL, "--labs", labs, *words, status=None)
    assert done.returncode in (2, 3)
    assert f"error: {message}" in done.stderr
