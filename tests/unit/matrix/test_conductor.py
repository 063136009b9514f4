"""The conductor with a cluster of threads: a run's folder, jobs, results and evidence are real."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future as Done
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed import KilledWorker

from lvslab.cluster.prepare import Prepared
from lvslab.errors import BuildError, FeatureLacking, LvsLabError, MachineError, UsageError
from lvslab.matrix import evidence, folder, reading, worker
from lvslab.matrix.conductor import WORKER_DEATHS, Conductor, Listener, worker_count
from lvslab.matrix.folder import RunFolder
from lvslab.matrix.job import Job
from lvslab.matrix.results import Case, Cell, Result, Run

CELLS = tuple(Cell(lab=lab, kernel="debian-6.1") for lab in ("web-nat", "many", "ftp"))
Reply = Mapping[str, Any] | BaseException


class Answered:
    """A future as the conductor knows it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.status = "pending"
        self.released = False
        self._done: Done[Reply] = Done()

    def set(self, reply: Reply, status: str) -> None:
        self.status = status
        self._done.set_result(reply)

    def add_done_callback(self, function: Callable[[Answered], object]) -> None:
        self._done.add_done_callback(lambda _: function(self))

    def exception(self) -> BaseException | None:
        reply = self._done.result()
        return reply if isinstance(reply, BaseException) else None

    def result(self) -> Reply:
        return self._done.result()

    def release(self) -> None:
        self.released = True


@dataclass
class Workers:
    """Workers that are threads. ``answers`` says by lab what they reply, one turn after the other, where it
    is not simply that all is well."""

    count: int = 2
    answers: dict[str, list[Reply | str]] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    sent: list[tuple[str, list[str] | None, bool]] = field(default_factory=list)
    most_at_once: int = 0
    refusal: str | BaseException = ""
    evidence: bytes = b""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._at_once = 0

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1, "Dask leaves workers out unless it is asked for all of them"
        return {"workers": {f"tcp://127.0.0.1:{number}": {} for number in range(self.count)}}

    def subscribe_topic(self, topic: str, handler: Callable[[Any], object]) -> None:
        assert topic == worker.TOPIC
        self._handler = handler

    def submit(self, function: Callable[..., Any], run: str, text: str, **options: Any) -> Answered:
        assert function is worker.work and options["pure"] is False
        job = Job.model_validate_json(text)
        future = Answered(options["key"])
        with self._lock:
            self.sent.append((job.cell.lab, options["workers"], options["allow_other_workers"]))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            planned = self.answers.get(job.cell.lab, [])
            reply = planned.pop(0) if planned else well(job.cell, self.evidence)
        threading.Thread(target=self._work, args=(run, job.cell, future, reply)).start()
        return future

    def _work(self, run: str, cell: Cell, future: Answered, reply: Reply | str) -> None:
        self._handler((0.0, {"run": run, "cell": cell.key, "worker": "here/0"}))
        self._handler((0.0, {"run": "another", "cell": cell.key, "worker": "there/0"}))
        with self._lock:
            self._at_once -= 1
        if isinstance(reply, str):
            future.set({}, reply)
        else:
            future.set(reply, "error" if isinstance(reply, BaseException) else "finished")

    def run(self, function: Callable[..., Any], checksum: str, content: bytes, *, workers: list[str]) -> Any:
        assert function is worker.receive
        if isinstance(self.refusal, BaseException):
            raise self.refusal
        self.kept[checksum] = content
        return {workers[0]: self.refusal}


def well(cell: Cell, evidence: bytes = b"") -> Reply:
    """The reply of a worker on which all checks of ``cell`` have passed."""
    case = Case(name="test_table", verdict="passed", seconds=0.5)
    result = Result(cell=cell, verdict="passed", cases=(case,), worker="here/0")
    return {"result": result.model_dump_json(), "evidence": evidence}


class Heard(Listener):
    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.ended: list[Result] = []
        self.said: list[str] = []

    def starts(self, cell: Cell, worker: str) -> None:
        self.started.append((cell.lab, worker))

    def ends(self, result: Result) -> None:
        self.ended.append(result)

    def says(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[RunFolder]:
    with folder.begun(tmp_path / "run", Run(begun=folder.now(), seed=7, cells=CELLS)) as kept:
        yield kept


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("kernel", "image")}
    for path in found.values():
        path.write_text(path.name)
    return found


def conduct(
    workers: Workers,
    kept: RunFolder,
    files: Mapping[str, Path],
    todo: Sequence[Cell] = CELLS,
    broken: Mapping[str, LvsLabError] | None = None,
) -> Heard:
    """Have ``todo`` tried; ``broken`` are labs for which no job can be made."""

    def make(cell: Cell, seed: int) -> tuple[Job, Mapping[str, Path]]:
        if broken and cell.lab in broken:
            raise broken[cell.lab]
        return Job(
            cell=cell, seed=seed, prepared=Prepared({}, {}, {}), files={}, keys={}, checksums={"lab": "1"}
        ), files

    heard = Heard()
    Conductor(workers, kept, heard, make).conduct(todo)
    return heard


def verdicts(kept: RunFolder) -> dict[str, str]:
    """What is in the folder, as a command that reads it later finds it."""
    found = folder.read(kept.path)
    assert found.results == reading.read(kept.path).run.results
    return {result.cell.lab: result.verdict for result in found.results}


def test_every_cell_is_tried_and_kept(kept: RunFolder, files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/transcript.jsonl").write_text("{}\n")
    workers = Workers(count=2, evidence=evidence.packed(tmp_path / "evidence"))
    assert worker_count(workers) == 2
    heard = conduct(workers, kept, files)
    assert verdicts(kept) == {"web-nat": "passed", "many": "passed", "ftp": "passed"}
    assert [lab for lab, *_ in workers.sent] == ["web-nat", "many", "ftp"], "in the order that was given"
    assert workers.most_at_once <= 2, "a cell that is sent has a worker"
    assert sorted(heard.started) == [("ftp", "here/0"), ("many", "here/0"), ("web-nat", "here/0")]
    assert {result.cell for result in heard.ended} == set(CELLS)
    for result in kept.run.results:
        place = kept.path / result.evidence
        assert (place / "transcript.jsonl").read_text() == "{}\n"
        assert Result.model_validate_json((place / folder.RESULT).read_bytes()) == result


def test_only_what_is_to_do_is_tried(kept: RunFolder, files: dict[str, Path]) -> None:
    workers = Workers()
    conduct(workers, kept, files, CELLS[:1])
    assert workers.sent == [("web-nat", None, False)]
    assert verdicts(kept) == {"web-nat": "passed"}


def test_a_cell_that_too_many_workers_were_lost_with_is_an_error(
    kept: RunFolder, files: dict[str, Path]
) -> None:
    workers = Workers(answers={"many": [KilledWorker("many", None, WORKER_DEATHS)]})
    heard = conduct(workers, kept, files)
    assert verdicts(kept) == {"web-nat": "passed", "many": "error", "ftp": "passed"}
    lost = kept.run.of(CELLS[1])
    assert lost.error == "6 workers were lost while they tried it"
    assert lost.repeat == "./run matrix.run --kernels debian-6.1 --labs many --seed 7"
    assert lost.seed and lost in heard.ended


def test_a_worker_without_the_files_is_sent_them_and_tries_again(
    kept: RunFolder, files: dict[str, Path]
) -> None:
    lacks = {"lacks": ["kernel", "image"], "cache": "there", "worker": "tcp://there:1"}
    workers = Workers(answers={"web-nat": [lacks], "many": [lacks]}, count=1)
    heard = conduct(workers, kept, files)
    assert verdicts(kept) == {"web-nat": "passed", "many": "passed", "ftp": "passed"}
    # It is that worker's turn again, unless it is lost; the others have the files in that cache then.
    assert workers.sent == [
        ("web-nat", None, False),
        ("web-nat", ["tcp://there:1"], True),
        ("many", None, False),
        ("many", ["tcp://there:1"], True),
        ("ftp", None, False),
    ]
    assert workers.kept == {"kernel": b"kernel", "image": b"image"}
    assert heard.said == ["sending 0 KiB to tcp://there:1"] * 2, "each file is sent once"
    assert heard.started.count(("web-nat", "here/0")) == 2


def test_a_worker_that_is_lost_while_it_is_sent_files(kept: RunFolder, files: dict[str, Path]) -> None:
    lacks = {"lacks": ["kernel"], "cache": "there", "worker": "tcp://there:1"}
    workers = Workers(answers={"web-nat": [lacks]}, refusal=OSError("it is gone"))
    conduct(workers, kept, files, CELLS[:1])
    assert verdicts(kept) == {"web-nat": "passed"}, "another one tries the cell"


@pytest.mark.parametrize(
    ("workers", "kind", "message"),
    [
        (
            Workers(answers={"many": [{"refused": "there/0 has another lvslab"}]}),
            UsageError,
            "another lvslab",
        ),
        (Workers(answers={"many": ["cancelled"]}), MachineError, "the Dask cluster was lost"),
        (Workers(answers={"many": [ImportError("no lvslab")]}), MachineError, "has no lvslab: no lvslab"),
        (
            Workers(
                answers={"many": [{"lacks": ["kernel"], "cache": "there", "worker": "w"}]},
                refusal="disk full",
            ),
            MachineError,
            "the worker w could not keep a file: disk full",
        ),
        (
            Workers(answers={"many": [{"lacks": ["kernel"], "cache": "there", "worker": "w"}] * 9}),
            MachineError,
            "the worker w does not keep the files that it is sent",
        ),
    ],
)
def test_what_ends_a_run_keeps_what_is_done(
    kept: RunFolder, files: dict[str, Path], workers: Workers, kind: type[LvsLabError], message: str
) -> None:
    conduct(workers, kept, files, CELLS[:1])
    with pytest.raises(kind, match=message):
        conduct(workers, kept, files, CELLS[1:])
    assert verdicts(kept)["web-nat"] == "passed"
    assert "many" not in verdicts(kept)
    assert not json.loads((kept.path / "results.json").read_text())["ended"]


def test_a_cell_that_cannot_be_made_is_an_error_and_a_mistake_ends_the_run(
    kept: RunFolder, files: dict[str, Path]
) -> None:
    conduct(Workers(), kept, files, CELLS[:2], {"many": BuildError("no such package", "apt-get update")})
    assert verdicts(kept) == {"web-nat": "passed", "many": "error"}
    assert kept.run.of(CELLS[1]).error == "no such package\n  apt-get update"
    with pytest.raises(UsageError, match="no kernel"):
        conduct(Workers(), kept, files, CELLS[2:], {"ftp": UsageError("no kernel 'x'")})


def test_a_cell_whose_kernel_lacks_what_the_lab_needs_is_skipped(
    kept: RunFolder, files: dict[str, Path]
) -> None:
    workers = Workers()
    conduct(workers, kept, files, CELLS[:2], {"many": FeatureLacking("no IPv6", "it needs it")})
    assert verdicts(kept) == {"web-nat": "passed", "many": "skipped"}
    (case,) = kept.run.of(CELLS[1]).cases
    assert (case.name, case.verdict, case.message) == ("lab.yaml", "skipped", "no IPv6\n  it needs it")


def test_the_first_result_of_a_cell_counts(kept: RunFolder, files: dict[str, Path]) -> None:
    conduct(Workers(), kept, files, CELLS[:1])
    conduct(Workers(answers={"web-nat": [OSError("late")]}), kept, files, CELLS[:1])
    assert verdicts(kept) == {"web-nat": "passed"}
