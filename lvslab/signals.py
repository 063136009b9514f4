"""Signals that end a command as exceptions, so that what it has open is closed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Signalled(BaseException):
    """A signal that `raising` has caught, with its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def raising(*signals: signal.Signals) -> Iterator[None]:
    """Raise Signalled in the block for each of ``signals``; those that are ignored stay ignored.

    In other threads than the main one, which gets no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def throw(number: int, frame: FrameType | None) -> None:
        # One is enough: a second one must not interrupt what the first has begun.
        for caught in before:
            signal.signal(caught, signal.SIG_IGN)
        raise Signalled(number)

    before = {each: old for each in signals if (old := signal.getsignal(each)) is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, throw)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def until_told() -> Iterator[None]:
    """Run the block until SIGINT, SIGTERM or SIGHUP, then leave it silently."""
    with contextlib.suppress(Signalled), raising(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield
