"""Signals that end a command as exceptions, so that what it has open is closed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Signalled(BaseException):
    """A signal that `raising` has caught; its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def raising(*signals: signal.Signals) -> Iterator[None]:
    """Make ``signals`` exceptions (Signalled) in the block; those that are ignored stay so. In other threads
    than the main one, which gets no signals, nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def throw(number: int, frame: FrameType | None) -> None:
        # One is enough: a second one must not interrupt what the first has begun.
        for caught in before:
            signal.signal(caught, signal.SIG_IGN)
        raise Signalled(number)

    before = {number: signal.getsignal(number) for number in signals}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, throw)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def until_told() -> Iterator[None]:
    """A block without an end of its own: Ctrl-C, and what else asks a process to end, ends it quietly."""
    with contextlib.suppress(Signalled), raising(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield
