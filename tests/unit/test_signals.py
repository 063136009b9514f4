from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from lvslab.signals import Signalled, raising, until_told


@pytest.fixture(autouse=True)
def not_ignored() -> Iterator[None]:
    """All is as in a terminal: nohup, say, has what it starts ignore SIGHUP."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_block_ends_quietly_when_told_to(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended = False
    with until_told():
        try:
            signal.raise_signal(number)
            pytest.fail("it went on")
        finally:
            # A second one does not interrupt what the first has begun.
            signal.raise_signal(number)
            ended = True
    assert ended
    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        went_on = False
        with until_told():
            signal.raise_signal(signal.SIGHUP)
            went_on = True
        assert went_on
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_errors_are_not_hushed_up() -> None:
    with pytest.raises(ValueError, match="a mistake"), until_told():
        raise ValueError("a mistake")


def test_only_the_signals_that_are_asked_for() -> None:
    with pytest.raises(Signalled) as caught, raising(signal.SIGTERM):
        assert signal.getsignal(signal.SIGHUP) != signal.getsignal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM


def test_threads_get_no_signals() -> None:
    handlers = []

    def body() -> None:
        with raising(signal.SIGTERM):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
