"""Progress of a command, on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from lvslab.boot.events import AcceleratorChosen, Event, GuestUp, PhaseBegun, PhaseEnded
from lvslab.outcome import Outcome

if TYPE_CHECKING:
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


class _Relay(logging.Handler):
    """Passes on what a logger says at level INFO, until it is closed.

    ``extra={"passing": True}`` marks a message that is soon out of date, such as how far a download is.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.INFO)
        self._logger = logging.getLogger(name)
        self._tell: Callable[[str], None] = print
        self._tell_passing: Callable[[str], None] = print

    def listen(self, tell: Callable[[str], None], tell_passing: Callable[[str], None]) -> None:
        self._tell = tell
        self._tell_passing = tell_passing
        if self._logger.isEnabledFor(logging.DEBUG):
            return  # all of it is shown anyway
        self._logger.setLevel(logging.INFO)
        self._logger.propagate = False
        self._logger.addHandler(self)

    def close(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        self._logger.setLevel(logging.NOTSET)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:
            tell = self._tell_passing if getattr(record, "passing", False) else self._tell
            tell(record.getMessage())


class Progress:
    """Shows progress on stderr: one changing line on a terminal, elsewhere a line for each phase."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._status: Status | None = None
        self._building = _Relay("lvslab.progress")

    def __enter__(self) -> Progress:
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console

            self._status = Console(file=self._stream).status("")
            self._status.start()
        self._building.listen(self._line, self.now)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._building.close()
        if self._status is not None:
            self._status.stop()

    def event(self, event: Event) -> None:
        """Show an event of ``lvslab.cluster.cluster.booted``."""
        match event:
            case PhaseBegun(phase):
                self.now(PHASES.get(phase, phase))
            case PhaseEnded(phase, seconds) if self._status is None:
                print(f"{seconds:7.2f} s  {PHASES.get(phase, phase)}", file=self._stream, flush=True)
            case GuestUp(node, way):
                self._line(f"{node}: {_WAYS.get(way, way)}")
            case AcceleratorChosen(name, reason, means):
                self._line(f"accelerator: {name} ({reason}); {means}")

    def step(self, entry: StepRecord) -> None:
        """Show a step that was carried out."""
        text = f"{entry.node}# {entry.command}"
        self.now(text) if entry.outcome is Outcome.PASSED else self._line(
            f"{text}\n    {entry.outcome}: {entry.reason}"
        )

    def kernel(self, name: str) -> None:
        """Show that the next kernel begins."""
        if name:
            self._line(f"kernel {name}")

    def verdict(self, found: StepVerdict) -> None:
        """Show a step and its verdict."""
        text = f"{found.node}# {found.command}"
        self.now(text) if found.verdict is Outcome.PASSED else self._line(
            f"{text}\n    {found.verdict}: {found.reason}"
        )

    def now(self, text: str) -> None:
        """Show ``text`` as the current activity; on a terminal only."""
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(text))

    def _line(self, text: str) -> None:
        if self._status is not None:
            self._status.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)
