from __future__ import annotations

import io
from pathlib import Path

import pytest

from lvslab.cli.command_line import number
from lvslab.cli.text import matrix as text_of
from lvslab.errors import UsageError
from lvslab.matrix import run as matrix
from lvslab.matrix.results import Case, Cell, Result, Run

CELLS = tuple(Cell(lab=lab, kernel=kernel) for lab in ("web-nat", "/x/own") for kernel in ("2.6.18", "sid"))


def result(cell: Cell, verdict: str, *, error: str = "", flaky: bool = False) -> Result:
    case = Case(name="test_x", verdict=verdict, seconds=1.0, message="3 instead of 4\nand more")
    return Result(
        cell=cell,
        verdict=verdict,
        cases=(case,),
        error=error,
        flaky=flaky,
        seconds=2.5,
        repeat="./run again",
    )


RUN = Run(
    begun="2026-11-20T10:00:00+00:00",
    seed=7,
    cells=CELLS,
    results=(
        result(CELLS[0], "passed", flaky=True, error="QEMU was ended by SIGKILL"),
        result(CELLS[1], "failed"),
        result(CELLS[2], "expected failure"),
    ),
)


def test_what_a_run_ends_with() -> None:
    assert text_of.run(RUN, Path("/r")) == (
        "          web-nat        own\n"
        "  2.6.18  passed, flaky  expected failure\n"
        "  sid     failed         -\n"
        "\n"
        "web-nat on sid: failed\n"
        "  test_x: failed: 3 instead of 4\n"
        "  again: ./run again\n"
        "\n"
        "4 cells: 1 failed, 1 expected failure, 1 passed (1 flaky); seed 7\n"
        "results: /r\n"
        "report:  ./run matrix.report /r"
    )


def test_a_lab_that_broke_once_and_failed_then_has_failed() -> None:
    cell = CELLS[1]
    run = RUN.model_copy(update={"results": (result(cell, "failed", error="it hangs"),)})
    assert "it hangs" not in text_of.run(run, Path("/r"))
    run = RUN.model_copy(update={"results": (result(cell, "error", error="it hangs"),)})
    assert "web-nat on sid: error\n  it hangs\n" in text_of.run(run, Path("/r"))


def test_progress_without_a_terminal() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), text_of.Progress(stream) as progress:
        done = RUN.model_copy(update={"results": RUN.results[:1]})
        progress.begins(Path("/r"), done, 2, dict.fromkeys(CELLS, 30.0))
        progress.starts(CELLS[1], "host/0")
        progress.starts(CELLS[1], "host/1")
        progress.ends(RUN.results[1])
        progress.starts(CELLS[1], "host/0")
        raise KeyboardInterrupt
    assert stream.getvalue().splitlines() == [
        "4 cells, 1 done already, 2 at a time, seed 7, about 45 s",
        "results: /r",
        "web-nat on sid: its worker was lost, host/1 begins again",
        "[2/4] web-nat on sid: failed (1 failed; 2.5 s)",
        "    ./run again",
        "2 of 4 cells are done, and kept in /r; 2 to go: ./run matrix.run --resume /r",
    ]


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    with text_of.Progress(screen) as progress:
        progress.begins(Path("/r"), RUN, 2, dict.fromkeys(CELLS, 30.0))
        progress.starts(CELLS[3], "host/0")
    assert "own on sid" in screen.getvalue()
    assert "3 of 4 cells" in screen.getvalue()


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ((), 0),
        (("passed", "skipped", "expected failure"), 0),
        (("passed", "failed"), 1),
        (("unexpectedly passed",), 1),
        (("failed", "error"), 4),
    ],
)
def test_exit_status(verdicts: tuple[str, ...], status: int) -> None:
    results = tuple(result(cell, verdict) for cell, verdict in zip(CELLS, verdicts, strict=False))
    assert matrix.exit_code(RUN.model_copy(update={"results": results})) == status


def test_numbers() -> None:
    assert number("--seed", "") is None
    assert number("--seed", "42") == 42
    for text in ("x", "-1", "1.5", "٣"):
        with pytest.raises(UsageError, match="--seed takes a number"):
            number("--seed", text)
