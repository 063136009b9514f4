"""The host's side of the guest agent (``guest/root/agent``), over the second serial port."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count

_GREETING = b"lvslab-agent 1"
_PART = 400
"""Bytes that a guest gets at once. The serial driver of Linux 2.4 has room for 512 (TTY_FLIPBUF_SIZE), and
drops more than that (``receive_chars``, drivers/char/serial.c)."""


class AgentSilent(Exception):
    """The agent did not answer in time, or the guest ended (``closed``)."""

    def __init__(self, closed: bool) -> None:
        super().__init__("the guest ended" if closed else "the guest is silent")
        self.closed = closed


@dataclass(frozen=True)
class Done:
    """Exit status of an order, and the lines of its output (stdout and stderr)."""

    status: int
    lines: tuple[str, ...]


class Agent:
    """The agent of one guest. It takes one order at a time; ``run`` waits for its turn."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = b""
        self._numbers = count(1)
        self._turn = threading.Lock()

    def await_greeting(self, seconds: float) -> None:
        """Block until the agent says that it is ready. Raises AgentSilent."""
        deadline = time.monotonic() + seconds
        while self._line(deadline) != _GREETING:
            pass

    def run(self, command: str, seconds: float = 10.0, *, turn: float | None = None) -> Done:
        """Run a shell command in the guest, in the shell that all orders share.

        The command must be whole: the shell would not survive a syntax error. Raises AgentSilent, also where
        the orders before it take longer than ``turn`` seconds.
        """
        if not self._turn.acquire(timeout=-1 if turn is None else turn):
            raise AgentSilent(closed=False)
        try:
            return self._ordered(command, seconds)
        finally:
            self._turn.release()

    def _ordered(self, command: str, seconds: float) -> Done:
        number, text = f"{next(self._numbers)}".encode(), command.encode()
        deadline, lines = time.monotonic() + seconds, list[str]()
        if len(text) > _PART:
            for begin in range(0, len(text), _PART):
                self._say(number + b"+ ." + text[begin : begin + _PART] + b".")
                while self._line(deadline) != number + b"+":
                    pass
            text = b""
        self._say(number + b" " + text)
        while True:
            line = self._line(deadline)
            if line.startswith(number + b": "):
                lines.append(line.removeprefix(number + b": ").decode(errors="replace"))
            elif line.startswith(number + b" = "):
                return Done(int(line.split()[-1]), tuple(lines))

    def _say(self, line: bytes) -> None:
        try:
            self._stream.sendall(line + b"\n")
        except OSError:
            raise AgentSilent(closed=True) from None

    def quiet(self) -> AbstractContextManager[bool]:
        """Keep orders waiting until the block ends; begin when none is under way."""
        return self._turn

    def close(self) -> None:
        self._stream.close()

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._stream], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise AgentSilent(closed=False)
            try:
                data = self._stream.recv(4096)
            except OSError:
                data = b""
            if not data:
                raise AgentSilent(closed=True)
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")
