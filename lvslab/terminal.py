"""Connects the user's terminal with a stream of bytes, such as a guest's serial console."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Literal

from lvslab.signals import Signalled, raising

_CHUNK = 1 << 16
# Ends of a session that would else leave the user's terminal raw.
_DEADLY = (signal.SIGTERM, signal.SIGHUP)

Ending = Literal["escape", "closed", "quiet"]


def attach(
    sock: socket.socket, escape: bytes = b"\x1d", *, idle: float = 1.0, stdin: int = 0, stdout: int = 1
) -> Ending:
    """Copy bytes between the user and ``sock``, and return what ended the session.

    Where ``stdin`` (a file descriptor) is a terminal it becomes raw, so that every key goes to the other
    side, and the key ``escape`` (one control character) ends the session: "escape". The terminal is always
    restored; SIGTERM and SIGHUP take their usual effect after that. Where ``stdin`` is not a terminal, all
    of it is sent, and the session ends ("quiet") when after its end nothing moves for ``idle`` seconds. It
    is "closed" where the peer hangs up first. Leaves ``sock`` open. Raises BrokenPipeError where ``stdout``
    has no reader.
    """
    if not os.isatty(stdin):
        return _relay(sock, None, idle, stdin, stdout)
    print(f"Escape with Ctrl-{chr(escape[0] + 0x40)}", file=sys.stderr, flush=True)
    try:
        with raising(*_DEADLY), _raw(stdin):
            ending = _relay(sock, escape, None, stdin, stdout)
    except Signalled as caught:
        # The terminal and the handlers are as they were, so this ends us as it would have at first.
        signal.raise_signal(caught.number)
        return "closed"
    print(file=sys.stderr)
    return ending


def _relay(sock: socket.socket, escape: bytes | None, idle: float | None, stdin: int, stdout: int) -> Ending:
    """Copy. ``escape`` None: bytes are all alike. ``idle`` None: the session ends with stdin."""
    unsent = bytearray()
    reading = True
    timeout_before = sock.gettimeout()
    # A guest that does not read must not keep us from reading what it prints, or both would wait for ever.
    sock.setblocking(False)
    try:
        while True:
            waiting = select.poll()  # it alone takes a terminal, a pipe and a regular file
            waiting.register(sock, select.POLLIN | (select.POLLOUT if unsent else 0))
            if reading and len(unsent) < _CHUNK:
                waiting.register(stdin, select.POLLIN)
            ready = {fd for fd, _ in waiting.poll(None if reading or idle is None else idle * 1000)}
            if not ready:
                return "quiet"
            if stdin in ready:
                data = _typed(stdin)
                before, escaped, _ = data.partition(escape) if escape else (data, b"", b"")
                unsent += before
                reading = bool(data)
                if escaped or (not reading and idle is None):
                    _send(sock, unsent)
                    return "escape"
            if sock.fileno() in ready:
                # Reading first: what a peer said before it hung up is worth more than what we had for it.
                received = _received(sock)
                if received == b"":
                    return "closed"
                _write(stdout, received or b"")
                _send(sock, unsent)
    finally:
        sock.settimeout(timeout_before)


def _received(sock: socket.socket) -> bytes | None:
    """Return the bytes that came: b"" after the peer has hung up, None if there are none yet."""
    try:
        return sock.recv(_CHUNK)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def _send(sock: socket.socket, unsent: bytearray) -> None:
    """Send as much as fits now. `_received` notices a peer that has hung up."""
    with contextlib.suppress(BlockingIOError, ConnectionError):
        if unsent:
            del unsent[: sock.send(unsent)]


def _typed(stdin: int) -> bytes:
    try:
        return os.read(stdin, _CHUNK)
    except OSError:
        # A terminal whose other side has gone says EIO.
        return b""


def _write(stdout: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(stdout, rest) :]


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSANOW)
        yield
    finally:
        # A terminal that has gone needs no restoring; one that takes no output must not hold us up.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSANOW, before)
