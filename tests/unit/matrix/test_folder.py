from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvslab.errors import StateError, UsageError
from lvslab.matrix import evidence
from lvslab.matrix import folder as run_folder
from lvslab.matrix.results import RESULTS, Cell, Result, Run

CELLS = tuple(Cell(lab=lab, kernel="2.6.18") for lab in ("one", "two", "three"))
RUN = Run(begun="2026-11-20T10:00:00+00:00", seed=7, cells=CELLS)


def result(cell: Cell, seconds: float = 1.0) -> Result:
    return Result(cell=cell, verdict="passed", seconds=seconds)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    (tmp_path / "from/deep").mkdir(parents=True)
    (tmp_path / "from/deep/console.log").write_text("panic")
    (tmp_path / "from/link").symlink_to("/etc/passwd")
    return evidence.packed(tmp_path / "from")


def test_results_are_kept_at_once_in_the_order_of_cells(packed: bytes) -> None:
    with run_folder.begun(None, RUN) as folder:
        assert json.loads((folder.path / RESULTS).read_text())["results"] == []
        for cell in (CELLS[2], CELLS[0]):
            folder.keep(result(cell), packed)
            assert run_folder.read(folder.path).results == folder.run.results
        assert [found.cell for found in folder.run.results] == [CELLS[0], CELLS[2]]
        place = folder.path / folder.run.of(CELLS[2]).evidence
        assert (place / "deep/console.log").read_text() == "panic"
        assert sorted(path.name for path in place.iterdir()) == ["deep", "result.json"]
        folder.end()
    found = Run.model_validate_json((folder.path / RESULTS).read_bytes())
    assert found == folder.run and found.ended


def test_the_first_result_of_a_cell_stays() -> None:
    with run_folder.begun(None, RUN) as folder:
        folder.keep(result(CELLS[0], 1.0), b"")
        folder.keep(result(CELLS[0], 2.0), b"")
        assert [found.seconds for found in folder.run.results] == [1.0]


def test_a_run_that_was_killed_goes_on() -> None:
    with run_folder.begun(None, RUN) as folder:
        folder.keep(result(CELLS[0]), b"")
        older = (folder.path / RESULTS).read_bytes()
        folder.keep(result(CELLS[1]), b"")
    # Killed between the folder of a cell and results.json, and while it filled the next folder.
    (folder.path / RESULTS).write_bytes(older)
    (folder.path / "cells/.part-x").mkdir()
    (folder.path / run_folder.WORKERS).mkdir()
    # Somebody keeps the folder in git.
    (folder.path / ".git").mkdir()
    (folder.path / ".gitignore").touch()
    with run_folder.resumed(run_folder.LATEST) as again:
        assert again.path == folder.path
        assert [found.cell for found in again.run.results] == [CELLS[0], CELLS[1]]
        assert (again.run.seed, again.run.cells) == (RUN.seed, CELLS)
        assert not list((again.path / "cells").glob(".*"))
        assert sorted(file.name for file in again.path.glob(".*")) == [".git", ".gitignore"]


def test_a_run_that_has_ended_stays_as_it_is() -> None:
    with run_folder.begun(None, RUN) as folder:
        for cell in CELLS:
            folder.keep(result(cell), b"")
        folder.end()
    before = (folder.path / RESULTS).stat()
    with run_folder.resumed(str(folder.path)) as again:
        again.end()
    after = (folder.path / RESULTS).stat()
    assert again.run == folder.run and after.st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("place", ["/proc/nothing", "/etc/passwd/below"])
def test_a_folder_that_cannot_be_made(place: str) -> None:
    with pytest.raises(UsageError, match=f"{place} cannot be made: "), run_folder.begun(Path(place), RUN):
        pass


def test_a_folder_is_written_to_by_one_run_only() -> None:
    with (
        run_folder.begun(None, RUN) as folder,
        pytest.raises(StateError, match="is writing to"),
        run_folder.resumed(str(folder.path)),
    ):
        pass


def test_a_folder_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(UsageError, match="is not an empty folder"), run_folder.begun(tmp_path, RUN):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with run_folder.begun(tmp_path / "new", RUN):
        pass
    with (
        pytest.raises(UsageError, match=r"--resume .*/new goes on"),
        run_folder.begun(tmp_path / "new", RUN),
    ):
        pass


def test_a_result_that_was_altered() -> None:
    with run_folder.begun(None, RUN) as folder:
        folder.keep(result(CELLS[0]), b"")
    (folder.path / folder.run.results[0].evidence / run_folder.RESULT).write_text("{")
    with pytest.raises(UsageError, match="has a result that cannot be read: the document: Invalid JSON"):
        run_folder.read(folder.path)


def test_no_run_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"), run_folder.resumed("latest"):
        pass
    gone = str(tmp_path / "x")
    with pytest.raises(UsageError, match="is not the folder of a run: No such"), run_folder.resumed(gone):
        pass


def test_evidence_goes_nowhere_else(tmp_path: Path) -> None:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in ("../outside", "inside"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "place").mkdir()
    evidence.unpack(out.getvalue(), tmp_path / "place")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "place"]


def test_earlier_runs() -> None:
    with run_folder.begun(None, RUN) as first:
        pass
    with run_folder.begun(None, RUN) as second:
        assert run_folder.earlier(second.path) == [first.run]
