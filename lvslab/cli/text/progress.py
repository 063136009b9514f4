"""Progress of a command, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Self, TextIO

from lvslab.boot.events import AcceleratorChosen, Event, GuestUp, PhaseBegun, PhaseEnded
from lvslab.cli.text.layout import interactive
from lvslab.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.status import Status

    from lvslab.apply.transcript import StepRecord
    from lvslab.apply.verdicts import StepVerdict

PHASES = {
    "prepare": "preparing kernel and image",
    "KVM tried": "trying whether KVM can boot a guest",
    "guests started": "starting the directors",
    "network": "building networks and hosts",
    "services": "starting the servers",
    "guests up": "waiting for the directors",
    "steps": "typing the how-to's steps",
    "first round": "sending a first round of requests",
}
"""Text of each phase of a boot while it lasts."""

_WAYS = {
    "resumed": "resumed from a memory snapshot",
    "copied": "resumed as it was after the how-to's steps",
    "booted": "booted, and a memory snapshot made for the next time",
    "booted cold": "booted",
}


class Display:
    """Lines on a stream, above a part that changes if the stream is a terminal."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._live: Live | Status | None = None

    def __enter__(self) -> Self:
        if interactive(self._stream):
            from rich.console import Console

            self._live = self._changing(Console(file=self._stream))
            self._live.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _changing(self, console: Console) -> Live | Status:
        raise NotImplementedError

    def line(self, text: str, style: str = "") -> None:
        """Print lines that stay."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, style=style)
        else:
            print(text, file=self._stream, flush=True)


class _Relay(logging.Handler):
    """Shows what a command logs about its progress.

    ``extra={"passing": True}`` marks a message that is soon out of date, such as how far a download is.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        show = self._progress.now if getattr(record, "passing", False) else self._progress.line
        show(record.getMessage())


class Progress(Display):
    """Shows progress on stderr: one changing line on a terminal, elsewhere a line for each phase."""

    _logger = logging.getLogger("lvslab.progress")

    def __enter__(self) -> Self:
        self._relay = _Relay(self)
        if not self._logger.isEnabledFor(logging.DEBUG):  # else all of it is shown anyway
            self._logger.setLevel(logging.INFO)
            self._logger.propagate = False
            self._logger.addHandler(self._relay)
        return super().__enter__()

    def __exit__(self, *ended: object) -> None:
        self._logger.removeHandler(self._relay)
        self._logger.propagate = True
        self._logger.setLevel(logging.NOTSET)
        super().__exit__(*ended)

    def _changing(self, console: Console) -> Status:
        self._status = console.status("")
        return self._status

    def event(self, event: Event) -> None:
        """Show an event of ``lvslab.cluster.cluster.booted``."""
        match event:
            case PhaseBegun(phase):
                self.now(PHASES.get(phase, phase))
            case PhaseEnded(phase, seconds) if self._live is None:
                self.line(f"{seconds:7.2f} s  {PHASES.get(phase, phase)}")
            case GuestUp(node, way):
                self.line(f"{node}: {_WAYS.get(way, way)}")
            case AcceleratorChosen(name, reason, means):
                self.line(f"accelerator: {name} ({reason}); {means}")

    def kernel(self, name: str) -> None:
        """Show that the next kernel begins."""
        if name:
            self.line(f"kernel {name}")

    def step(self, entry: StepRecord) -> None:
        """Show a step that was carried out."""
        self._show(entry, entry.outcome)

    def verdict(self, found: StepVerdict) -> None:
        """Show a step and its verdict."""
        self._show(found, found.verdict)

    def _show(self, step: StepRecord | StepVerdict, outcome: Outcome) -> None:
        text = f"{step.node}# {step.command}"
        if outcome is Outcome.PASSED:
            self.now(text)
        else:
            self.line(f"{text}\n    {outcome}: {step.reason}")

    def now(self, text: str) -> None:
        """Show ``text`` as the current activity; on a terminal only."""
        if self._live is not None:
            from rich.markup import escape

            self._status.update(escape(text))
