from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from lvslab import paths
from lvslab.cli import program
from lvslab.cli.text import kernel
from lvslab.errors import BuildError, CheckFailed, UsageError
from lvslab.kernel import supplied
from lvslab.matrix import bisect, cell
from lvslab.matrix.results import Case, Cell, Result
from lvslab.outcome import TRIALS, Outcome, worst

OWN = Cell(lab="web-nat", kernel="6.1")


def result(*verdicts: str, howto: str = "passed", error: str = "", lab: str = "web-nat") -> Result:
    """What came of a lab whose checks, called a, b and so on, came to ``verdicts``."""
    told = {"skipped": "skipped for a reason", "failed": "it\nfailed", "expected failure": "known bug x: it"}
    cases = (
        Case(name=cell.HOWTO_CASE, verdict=howto, seconds=0.1),
        *(
            Case(
                name=chr(ord("a") + number),
                verdict=verdict,
                seconds=0.1,
                message=told.get(verdict, ""),
                bug="x" if "expected" in verdict else "",
            )
            for number, verdict in enumerate(verdicts)
        ),
    )
    whole: str = "error" if error else worst(case.verdict for case in cases)
    return Result(cell=Cell(lab=lab, kernel="6.1"), verdict=whole, cases=cases, error=error, seconds=2.5)


NOT_BOOTED = cell.skipped(
    OWN, 1, "the lab cannot run here: no GUE\n  its lab.yaml has 'needs: [tunnel_gue]'"
)


@pytest.mark.parametrize(
    ("results", "options", "answer", "why"),
    [
        ([result("passed", "skipped")], {}, "good", ""),
        ([result("passed", "failed")], {}, "bad", "1 check failed"),
        # Of a lab that broke nothing is known, whatever its checks said then.
        ([result("failed"), result("failed", "error")], {}, "bad", "1 check failed"),
        ([result("failed", "failed", error="it hangs")], {}, "cannot tell", "web-nat: it hangs"),
        ([result("failed"), result(error="QEMU is not there")], {}, "bad", "1 check failed"),
        ([result("passed"), result(error="it hangs")], {}, "cannot tell", "web-nat: it hangs"),
        ([result("skipped", "skipped")], {}, "cannot tell", "every check was skipped: skipped for a reason"),
        ([NOT_BOOTED], {}, "cannot tell", "every check was skipped: the lab cannot run here: no GUE"),
        ([result("passed"), result("skipped")], {}, "good", ""),
        # The how-to is a check too, but not of a single one's matter.
        ([result(howto="failed")], {}, "bad", "1 check failed"),
        ([result(howto="failed")], {"select": "b"}, "cannot tell", "the how-to failed, so no check was run"),
        ([result("failed")], {"select": "a"}, "bad", "1 check failed"),
        (
            [result("failed")],
            {"message": "^failed|fails$"},
            "cannot tell",
            "a failed, and does not say '^failed|fails$'",
        ),
        (
            [result("passed", "failed")],
            {"message": "it.failed"},
            "cannot tell",
            "b failed, and does not say 'it.failed'",
        ),
        ([result("failed", "failed")], {"message": r"it\sfailed"}, "bad", "2 checks failed"),
        # What is known is no news, unless that is what is looked for.
        ([result("expected failure")], {}, "good", ""),
        ([result("expected failure")], {"strict": True}, "bad", "1 check failed"),
        ([result("unexpectedly passed")], {"strict": True}, "good", ""),
        ([], {}, "cannot tell", "the how-to failed, so no check was run"),
    ],
)
def test_the_answer(results: list[Result], options: dict[str, Any], answer: str, why: str) -> None:
    assert bisect.judge(results, **options) == (TRIALS.outcome(answer), why)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Cell, Path, str]]:
    """Cells that were run; each of them passes."""
    cells: list[tuple[Cell, Path, str]] = []

    def run(own: Cell, folder: Path, *, attempts: int, report: object, select: str) -> Result:
        cells.append((own, folder, select))
        assert attempts == 1
        return result("passed").model_copy(update={"cell": own})

    monkeypatch.setenv("LVSLAB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(cell, "run", run)
    monkeypatch.setattr(supplied, "usable", lambda path, **_: (f"name of {path}", f"Linux 6.1, {path}"))
    return cells


def test_labs_are_tried_one_after_the_other(tried: list[tuple[Cell, Path, str]], tmp_path: Path) -> None:
    found = bisect.run(Path("bzImage"), labs=["web-nat", "many"])
    assert [(str(own), folder.name, select) for own, folder, select in tried] == [
        ("web-nat on name of bzImage", "web-nat", ""),
        ("many on name of bzImage", "many", ""),
    ]
    assert found.answer == "good" and found.exit_code == 0
    assert found.kernel == "Linux 6.1, bzImage"
    assert [each.evidence for each in found.results] == ["web-nat", "many"]
    assert Path(found.evidence) == tried[0][1].parent
    assert Path(found.evidence).is_relative_to(tmp_path / "state")
    assert found.as_json()["results"][1]["cell"] == {
        "lab": "many",
        "kernel": "name of bzImage",
        "ipvsadm": "",
    }


def test_labs_whose_folders_have_one_name_keep_their_evidence_apart(
    tried: list[tuple[Cell, Path, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paths.labs() / "many", tmp_path / "many")

    def run(own: Cell, folder: Path, **_: object) -> Result:
        folder.mkdir(parents=True)
        return result("passed")

    monkeypatch.setattr(cell, "run", run)
    found = bisect.run(Path("bzImage"), labs=["many", str(tmp_path / "many")])
    assert [each.evidence for each in found.results] == ["many", "many-2"]


def test_a_lab_with_a_mistake_is_no_answer(tried: list[tuple[Cell, Path, str]], tmp_path: Path) -> None:
    shutil.copytree(paths.labs() / "many", tmp_path / "mine")
    (tmp_path / "mine/lab.yaml").write_text("nodes: 3\n")
    with pytest.raises(UsageError, match=r"lab\.yaml"):
        bisect.run(Path("bzImage"), labs=[str(tmp_path / "mine")])
    assert not tried


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labs": ["web-net"]}, "there is no lab 'web-net'"),
        ({"labs": ["many"], "message": "("}, r"--message is '\(', which is not a regular expression"),
        ({"labs": ["many"], "config": Path("/nowhere")}, "there is no file /nowhere"),
        ({"labs": ["many"], "jobs": 0}, "--jobs is 0"),
    ],
)
def test_a_mistake_in_the_command_line_is_no_answer(
    tried: list[tuple[Cell, Path, str]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        bisect.run(Path("bzImage"), **options)
    assert not tried


@pytest.mark.parametrize("wrong", [UsageError("it is no kernel"), BuildError("no build"), CheckFailed("x")])
def test_a_kernel_that_cannot_be_had(
    tried: list[tuple[Cell, Path, str]], monkeypatch: pytest.MonkeyPatch, wrong: Exception
) -> None:
    def usable(path: Path, **_: object) -> tuple[str, str]:
        raise wrong

    monkeypatch.setattr(supplied, "usable", usable)
    found = bisect.run(Path("bzImage"), labs=["many"])
    assert (found.answer, found.exit_code, found.why, found.evidence) == ("cannot tell", 125, str(wrong), "")


def test_a_lab_that_broke_leaves_what_came_before(
    tried: list[tuple[Cell, Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = cell.run

    def run(own: Cell, *arguments: Any, **options: Any) -> Result:
        if own.lab == "many":
            raise UsageError("the kernel has gone")
        return good(own, *arguments, **options)

    monkeypatch.setattr(cell, "run", run)
    found = bisect.run(Path("bzImage"), labs=["web-nat", "many"])
    assert (found.answer, len(found.results)) == ("cannot tell", 1)


@pytest.mark.parametrize(
    ("status", "for_bisect"),
    [(0, 0), (1, 1), (125, 125), (2, 128), (130, 130), (3, 125), (4, 125), (7, 125), (70, 125), (141, 125)],
)
def test_git_bisect_takes_nothing_else_for_an_answer(status: int, for_bisect: int) -> None:
    assert program.for_bisect(status) == for_bisect


def test_a_command_line_that_cannot_be_read_stops_git_bisect(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.LabProgram().status_of(["./run", "kernel.try", "x", "--lab", "many"]) == 128
    assert "has no option '--lab'" in capsys.readouterr().err
    assert program.LabProgram().status_of(["./run", "kernel.try"]) == 128
    assert program.LabProgram().status_of(["./run", "kernel.trie"]) == 2


def test_what_is_printed() -> None:
    results = (result("passed", "expected failure", "failed"), result("passed", lab="many"))
    found = bisect.Trial(Outcome.FAILED, "1 check failed", "Linux 6.1, bzImage", results, "/evidence")
    assert kernel.tried(found).splitlines() == [
        "Linux 6.1, bzImage",
        "  expected failure (x): web-nat: b",
        "    known bug x: it",
        "  failed: web-nat: c",
        "    it",
        "    failed",
        "web-nat: 1 failed, 1 expected failure, 2 passed; 2.5 s",
        "many: 2 passed; 2.5 s",
        "bad: 1 check failed",
        "evidence: /evidence",
    ]
