"""The host's side of the guest agent: orders over the second serial port, one line each (see
build/guest/agent)."""

from __future__ import annotations

import select
import socket
import time
from itertools import count

from lvslab.errors import BootError

_GREETING = b"lvslab-agent 1"


class AgentSilent(Exception):
    """The agent did not say what was waited for in time; ``closed`` where it never will, since the guest
    ended."""

    def __init__(self, closed: bool) -> None:
        super().__init__("the guest ended" if closed else "the guest is silent")
        self.closed = closed


class Agent:
    """One guest's agent. Not for several threads at once."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = b""
        self._numbers = count(1)

    def await_greeting(self, seconds: float) -> None:
        """Return when the agent says that it is ready. Raises AgentSilent."""
        deadline = time.monotonic() + seconds
        while self._line(deadline) != _GREETING:
            pass

    def run(self, command: str, seconds: float = 10.0) -> list[str]:
        """Run a shell command in the guest; the lines it printed. Raises AgentSilent, BootError where it
        fails."""
        number = f"{next(self._numbers)}".encode()
        try:
            self._stream.sendall(number + b" " + command.encode() + b"\n")
        except OSError:
            raise AgentSilent(closed=True) from None
        deadline, lines = time.monotonic() + seconds, list[str]()
        while True:
            line = self._line(deadline)
            if line.startswith(number + b": "):
                lines.append(line.removeprefix(number + b": ").decode(errors="replace"))
            elif line.startswith(number + b" = "):
                if (status := int(line.split()[-1])) != 0:
                    said = "\n  ".join(lines) or "it printed nothing"
                    raise BootError(f"the guest could not be set up (status {status}): {command}", said)
                return lines

    def close(self) -> None:
        """Let go of the serial port."""
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
