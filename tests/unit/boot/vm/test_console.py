from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvslab.boot.vm.console import Console

DEADLINE = 10.0


@dataclass
class Line:
    """A console and the guest's end of its serial line."""

    console: Console
    guest: socket.socket
    log: Path

    def say(self, text: bytes) -> None:
        """Print ``text`` in the guest, and return when the console has read all of it."""
        before = self.log.stat().st_size
        self.guest.sendall(text)
        deadline = time.monotonic() + DEADLINE
        while self.log.stat().st_size < before + len(text):
            assert time.monotonic() < deadline, "the console does not read"
        # The log is written first: what is remembered is complete when the lock is free again.
        last = text.decode(errors="replace").replace("\r", "").rstrip("\n").split("\n")[-1].rstrip()
        while last not in "\n".join(self.console.last_lines()):
            assert time.monotonic() < deadline, "the console does not remember"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    ours, guest = socket.socketpair()
    guest.settimeout(DEADLINE)
    console = Console(ours, tmp_path / "console.log")
    with ours, guest:
        yield Line(console, guest, tmp_path / "console.log")
        guest.close()
        assert console.ended(DEADLINE)


def received(viewer: socket.socket, count: int) -> bytes:
    viewer.settimeout(DEADLINE)
    data = b""
    while len(data) < count:
        part = viewer.recv(count - len(data))
        assert part, "the console has hung up"
        data += part
    return data


def test_everything_goes_to_the_log(line: Line) -> None:
    line.say(b"Linux version 6.1\r\n")
    line.say(b"\xff\x00 binary\n")
    assert line.log.read_bytes() == b"Linux version 6.1\r\n\xff\x00 binary\n"


def test_a_log_is_continued(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    ours, guest = socket.socketpair()
    with ours, guest:
        console = Console(ours, tmp_path / "log")
        guest.sendall(b"after\n")
        guest.close()
        assert console.ended(DEADLINE)
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


def test_the_last_lines_are_those_that_say_something(line: Line) -> None:
    line.say(b"one\r\n\r\n  \ntwo  \nthr")
    assert line.console.last_lines() == ["one", "two", "thr"]
    line.say(b"ee\n")
    assert line.console.last_lines() == ["one", "two", "three"]
    assert line.console.last_lines(1) == ["three"]
    line.say(b"".join(b"%d\n" % number for number in range(100, 200)))
    assert line.console.last_lines() == [str(number) for number in range(188, 200)]


@pytest.mark.parametrize(
    "said",
    [
        "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        "[    1.2] BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "Oops: 0000 [#1] SMP PTI",
        "general protection fault: 0000",
    ],
)
def test_a_panic_is_found(line: Line, said: str) -> None:
    line.say(b"booting\n")
    assert line.console.panic() is None
    head, tail = said[:9].encode(), said[9:].encode()
    line.guest.sendall(head)
    line.say(tail + b"\r\nCall Trace:\n" + b" frame\n" * 50)
    assert line.console.panic() == said


def test_whoever_attaches_sees_what_was_last_and_what_comes(line: Line) -> None:
    line.say(b"login: ")
    with line.console.attach() as first, line.console.attach() as second:
        assert received(first, 7) == received(second, 7) == b"login: "
        line.say(b"root\n")
        assert received(first, 5) == received(second, 5) == b"root\n"


def test_what_is_typed_goes_to_the_guest(line: Line) -> None:
    with line.console.attach() as first, line.console.attach() as second:
        first.sendall(b"ls\n\x03")
        assert received(line.guest, 4) == b"ls\n\x03"
        second.sendall(b"pwd\n")
        assert received(line.guest, 4) == b"pwd\n"
        first.close()
        line.say(b"/root\n")
        assert received(second, 6) == b"/root\n"


def test_a_viewer_that_does_not_read_holds_up_nobody(line: Line) -> None:
    with line.console.attach() as lazy:
        for number in range(300):
            line.guest.sendall(b"%04d" % number + b"x" * 4000 + b"\n")
        line.say(b"done\n")
        assert line.console.last_lines(1) == ["done"]
        lazy.close()
    line.say(b"still here\n")


def test_whoever_attaches_late_sees_the_end_and_not_the_beginning(line: Line) -> None:
    for number in range(300):
        line.guest.sendall(b"%04d" % number + b"x" * 4091 + b"\n")
    line.say(b"login: ")
    with line.console.attach() as viewer:
        viewer.settimeout(0)
        shown = viewer.recv(1 << 24)
    assert shown.endswith(b"login: ")


def test_viewers_hear_of_the_guests_end(line: Line) -> None:
    with line.console.attach() as viewer:
        line.guest.sendall(b"Power down\n")
        line.guest.close()
        assert received(viewer, 11) == b"Power down\n"
        assert viewer.recv(100) == b""
    assert line.console.ended(DEADLINE)
    assert line.console.last_lines() == ["Power down"]


def test_no_thread_is_left_when_the_guest_has_ended(line: Line) -> None:
    before = set(threading.enumerate())
    with line.console.attach() as viewer:
        (typing,) = set(threading.enumerate()) - before
        line.guest.close()
        assert viewer.recv(100) == b""
        typing.join(DEADLINE)
        assert not typing.is_alive()


def test_a_guest_that_goes_on_is_not_ended(line: Line) -> None:
    assert line.console.ended(0.01) is False
