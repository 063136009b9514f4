"""Text of ``matrix.run`` for people: live progress and the results."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lvslab.cli.text.layout import columns
from lvslab.cli.text.progress import Display
from lvslab.matrix.conductor import Listener
from lvslab.matrix.folder import resume_command
from lvslab.matrix.results import OUTCOMES, Cell, Result, Run
from lvslab.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

_STYLES: Mapping[Outcome, str] = {
    Outcome.ERROR: "bold magenta",
    Outcome.FAILED: "bold red",
    Outcome.UNEXPECTEDLY_PASSED: "bold yellow",
    Outcome.EXPECTED_FAILURE: "yellow",
    Outcome.PASSED: "green",
    Outcome.SKIPPED: "dim",
}


class Progress(Display, Listener):
    """Progress of a run on stderr: a live table on a terminal, otherwise a line for each cell."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        super().__init__(stream)
        self._running: dict[Cell, tuple[str, float]] = {}
        self._expected: Mapping[Cell, float] = {}
        self._done: dict[Cell, Result] = {}
        self._cells, self._workers, self._folder = 0, 1, Path()

    def __exit__(self, *ended: object) -> None:
        super().__exit__(*ended)
        if ended[0] is not None and (left := self._cells - len(self._done)) > 0:
            done = f"{len(self._done)} of {self._cells} cells are done, and kept in {self._folder}"
            self.line(f"{done}; {left} to go: {resume_command(self._folder)}")

    def _changing(self, console: Console) -> Live:
        from rich.live import Live

        return Live(get_renderable=self._picture, console=console, transient=True)

    def begins(self, folder: Path, run: Run, workers: int, expected: Mapping[Cell, float]) -> None:
        self._folder, self._cells, self._workers = folder, len(run.cells), max(workers, 1)
        self._expected = expected
        self._done = {result.cell: result for result in run.results}
        done = f", {len(self._done)} done already" if self._done else ""
        seconds = sum(expected[cell] for cell in run.cells if cell not in self._done) / self._workers
        about = f"{len(run.cells)} cells{done}, {workers} at a time, seed {run.seed}, about {_time(seconds)}"
        self.says(f"{about}\nresults: {folder}")

    def starts(self, cell: Cell, worker: str) -> None:
        if cell in self._done:
            return
        if cell in self._running:
            self.says(f"{cell}: its worker was lost, {worker} begins again")
        self._running[cell] = (worker, time.monotonic())

    def ends(self, result: Result) -> None:
        self._running.pop(result.cell, None)
        self._done[result.cell] = result
        self.line(f"[{len(self._done)}/{self._cells}] {summary(result)}", _STYLES[result.verdict])
        if result.verdict.bad:
            self.says(f"    {result.repeat}")

    def says(self, text: str) -> None:
        self.line(text)

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table.grid(padding=(0, 2))
        for cell, (worker, begun) in self._running.items():
            table.add_row(Text(f"  {cell}"), Text(_time(now - begun)), Text(worker, style="dim"))
        total = sum(self._expected.values())
        left = sum(seconds for cell, seconds in self._expected.items() if cell not in self._done)
        left -= sum(min(now - begun, self._expected[cell]) for cell, (_, begun) in self._running.items())
        verdicts = [result.verdict for result in self._done.values()]
        state = Text(f"{len(self._done)} of {self._cells} cells, ")
        state.append(f"about {_time(max(left, 0) / self._workers)} left")
        for verdict in OUTCOMES:
            if verdict in verdicts:
                state.append(f"  {verdicts.count(verdict)} {verdict}", _STYLES[verdict])
        bar: Any = ProgressBar(total=max(total, 1), completed=max(total - left, 0), width=40)
        return Group(table, bar, state) if self._cells else Group(Text("preparing"))


def run(found: Run, folder: Path) -> str:
    """Final output of ``matrix.run``."""
    labs = list(dict.fromkeys(cell.lab for cell in found.cells))
    results = {result.cell: result for result in found.results}
    rows = [("", *map(_short, labs))]
    for kernel, ipvsadm in dict.fromkeys((cell.kernel, cell.ipvsadm) for cell in found.cells):
        here = (results.get(Cell(lab=lab, kernel=kernel, ipvsadm=ipvsadm)) for lab in labs)
        words = (f"{each.verdict}{', flaky' if each.flaky else ''}" if each else "-" for each in here)
        rows.append((_short(f"{kernel} with {ipvsadm}" if ipvsadm else kernel), *words))
    parts = [columns(rows)]
    if bad := [result for result in found.results if result.verdict.bad]:
        parts.append("\n\n".join(_explained(result) for result in bad))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.counts.items() if count)
    flaky = sum(result.flaky for result in found.results)
    parts.append(
        f"{len(found.cells)} cells: {counts}{f' ({flaky} flaky)' if flaky else ''}; seed {found.seed}\n"
        f"results: {folder}\n"
        f"report:  ./run matrix.report {shlex.quote(str(folder))}"
    )
    return "\n\n".join(parts)


def summary(result: Result) -> str:
    """Result of a cell in one line."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result.counts.items() if count)
    flaky = ", flaky: it was the lab that broke first" if result.flaky else ""
    return f"{result.cell}: {result.verdict} ({counts or 'no checks'}; {result.seconds:.1f} s{flaky})"


def _explained(result: Result) -> str:
    bad = [
        f"{case.name}: {case.verdict}: {_first_line(case.message)}"
        for case in result.cases
        if case.verdict.bad
    ]
    lines = [_first_line(result.error)] if result.error and result.verdict is Outcome.ERROR else []
    lines += bad[:5] + ([f"and {len(bad) - 5} more"] if len(bad) > 5 else [])
    return "\n  ".join([f"{result.cell}: {result.verdict}", *lines, f"again: {result.repeat}"])


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _short(name: str) -> str:
    """Last part of a path; other names unchanged."""
    return Path(name).name if "/" in name else name


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
