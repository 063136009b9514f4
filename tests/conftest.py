"""What all tests share: how signals are taken, and network namespaces of a test's own."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from lvslab.boot.net import namespaces, packets
from lvslab.boot.net.namespaces import CLONE_NEWNET, CLONE_NEWNS, Namespaces


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that are marked slow, or with ``--slow`` all others."""
    chosen, others = [], []
    for item in items:
        is_slow = item.get_closest_marker("slow") is not None
        (chosen if is_slow == config.getoption("--slow") else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen


def pytest_configure() -> None:
    """Handle SIGINT and SIGQUIT as a command in the foreground does.

    A shell has its background commands ignore both. What is ignored is inherited, and processes that tests
    interrupt would never end.
    """
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture
def host() -> Iterator[Namespaces]:
    """Network and mount namespaces that only two descriptors hold."""
    made: list[Namespaces | OSError] = []

    def make() -> None:
        try:
            namespaces.unshare(CLONE_NEWNET | CLONE_NEWNS)
            made.append(Namespaces(namespaces.own("net"), namespaces.own("mnt")))
        except OSError as refused:
            made.append(refused)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (found,) = made
    if isinstance(found, OSError):
        pytest.skip(f"this machine does not allow namespaces: {found}")
    yield found
    os.close(found.network)
    os.close(found.mounts)


@pytest.fixture(scope="session")
def stamps() -> Iterator[None]:
    """Have the kernel stamp packets with their time of arrival, as a supervisor does."""
    with packets.keep_time() as stamped:
        stamped.bind(("127.0.0.1", 0))
        deadline, late = time.monotonic() + 10, True
        while late:
            assert time.monotonic() < deadline, "the kernel does not note when packets come"
            stamped.sendto(b"now", stamped.getsockname())
            sent = time.time_ns()
            ((_, _, value),) = stamped.recvmsg(16, 64)[1]
            seconds, nanoseconds = struct.unpack("=qq", value)
            late = seconds * 10**9 + nanoseconds > sent
        yield
