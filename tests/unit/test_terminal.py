from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.terminal import Ending, attach

DEADLINE = 10.0


class Session:
    """``attach`` running in a thread; ``join`` gives its answer, or fails after the deadline."""

    def __init__(self, sock: socket.socket, stdin: int, stdout: int, idle: float = DEADLINE) -> None:
        self._answer: list[Ending | BaseException] = []

        def work() -> None:
            try:
                self._answer.append(attach(sock, idle=idle, stdin=stdin, stdout=stdout))
            except BaseException as error:
                self._answer.append(error)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def join(self) -> Ending | BaseException:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "attach does not end"
        return self._answer[0]


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the guest's end of a serial line."""
    ours, guest = socket.socketpair()
    guest.settimeout(DEADLINE)
    with ours, guest:
        yield ours, guest


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The user's fingers and eyes (the pty's master), and what lvslab has for stdin and stdout."""
    user, tty = pty.openpty()
    yield user, tty
    for fd in (user, tty):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        received = sock.recv(count - len(data))
        assert received, "the peer has hung up"
        data += received
    return data


def test_every_key_goes_to_the_guest_and_the_escape_ends_it(
    line: tuple[socket.socket, socket.socket],
    terminal: tuple[int, int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    ours, guest = line
    user, tty = terminal
    before = termios.tcgetattr(tty)
    session = Session(ours, tty, tty)
    guest.sendall(b"login: \r\n")
    # Raw: what the guest sends comes unchanged, and what follows (Ctrl-C, Ctrl-D, Enter) is not for us.
    assert read_exactly(user, 9) == b"login: \r\n"
    assert termios.tcgetattr(tty) != before
    os.write(user, b"a\x03\x04\r")
    assert receive_exactly(guest, 4) == b"a\x03\x04\r"
    os.write(user, b"last\x1dnot sent")
    assert session.join() == "escape"
    assert guest.recv(100) == b"last"
    assert termios.tcgetattr(tty) == before
    assert "Escape with Ctrl-]" in capfd.readouterr().err


def test_a_guest_that_hangs_up_ends_it(
    line: tuple[socket.socket, socket.socket], terminal: tuple[int, int]
) -> None:
    ours, guest = line
    user, tty = terminal
    before = termios.tcgetattr(tty)
    session = Session(ours, tty, tty)
    guest.sendall(b"halted")
    guest.close()
    assert session.join() == "closed"
    assert read_exactly(user, 6) == b"halted"
    assert termios.tcgetattr(tty) == before


def test_a_terminal_that_goes_away_ends_it(
    line: tuple[socket.socket, socket.socket], terminal: tuple[int, int]
) -> None:
    ours, guest = line
    user, tty = terminal
    session = Session(ours, tty, tty)
    guest.sendall(b"x")
    assert read_exactly(user, 1) == b"x"
    os.close(user)
    assert session.join() == "escape"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal_and_then_ends_the_process(
    line: tuple[socket.socket, socket.socket], terminal: tuple[int, int], number: signal.Signals
) -> None:
    ours, guest = line
    user, tty = terminal
    before = termios.tcgetattr(tty)
    program = """
import signal, socket, sys
from lvslab.terminal import attach
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
attach(socket.socket(fileno=int(sys.argv[1])))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(ours.fileno())],
        stdin=tty,
        stdout=tty,
        stderr=subprocess.DEVNULL,
        pass_fds=[ours.fileno()],
        cwd=Path(__file__).resolve().parents[2],
    )
    try:
        guest.sendall(b"x")
        assert read_exactly(user, 1) == b"x"
        assert termios.tcgetattr(tty) != before
        child.send_signal(number)
        assert child.wait(DEADLINE) == -number
    finally:
        child.kill()
        child.wait()
    assert termios.tcgetattr(tty) == before


def test_piped_commands_are_sent_and_the_answer_awaited_until_it_is_quiet(
    line: tuple[socket.socket, socket.socket],
    pipe: tuple[int, int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    ours, guest = line
    stdin, writer = pipe
    os.write(writer, b"un\x1dame\n")
    os.close(writer)
    guest.sendall(b"Linux\n")
    with (tmp_path / "out").open("wb") as out:
        assert attach(ours, idle=0.01, stdin=stdin, stdout=out.fileno()) == "quiet"
    assert (tmp_path / "out").read_bytes() == b"Linux\n"
    assert guest.recv(100) == b"un\x1dame\n"
    assert capfd.readouterr().err == ""
    assert ours.gettimeout() is None


def test_the_answer_to_a_file_may_end_with_the_guest(
    line: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    ours, guest = line
    (tmp_path / "in").write_bytes(b"poweroff\n")
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as out:
        session = Session(ours, stdin.fileno(), out.fileno())
        assert guest.recv(100) == b"poweroff\n"
        guest.sendall(b"Power down\n")
        guest.close()
        assert session.join() == "closed"
    assert (tmp_path / "out").read_bytes() == b"Power down\n"


def test_a_guest_that_prints_before_it_reads_is_not_waited_for(
    line: tuple[socket.socket, socket.socket], pipe: tuple[int, int], tmp_path: Path
) -> None:
    ours, guest = line
    shown, stdout = pipe
    typed = os.urandom(1 << 21)
    printed = os.urandom(1 << 20)
    (tmp_path / "in").write_bytes(typed)
    with (tmp_path / "in").open("rb") as stdin:
        session = Session(ours, stdin.fileno(), stdout)
        printer = threading.Thread(target=guest.sendall, args=(printed,), daemon=True)
        printer.start()
        assert read_exactly(shown, len(printed)) == printed
        printer.join(DEADLINE)
        assert receive_exactly(guest, len(typed)) == typed
        guest.close()
        assert session.join() == "closed"


def test_a_reader_that_leaves_is_an_error_of_its_own(
    line: tuple[socket.socket, socket.socket], pipe: tuple[int, int]
) -> None:
    ours, guest = line
    shown, stdout = pipe
    os.close(shown)
    guest.sendall(b"x")
    with open(os.devnull, "rb") as stdin, pytest.raises(BrokenPipeError):
        attach(ours, idle=DEADLINE, stdin=stdin.fileno(), stdout=stdout)
