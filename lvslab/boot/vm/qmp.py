"""A client of QEMU's machine protocol (docs/interop/qmp-spec.rst) over a connected socket."""

from __future__ import annotations

import json
import select
import socket
import time
from collections import deque
from itertools import count
from typing import Any


class QmpError(Exception):
    """QEMU refused a command, or does not answer."""


class Qmp:
    """A connection to one QEMU's monitor. Not for several threads at once."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = b""
        self._events = deque[dict[str, Any]]()
        self._ready = False
        self._numbers = count(1)

    def execute(self, command: str, *, seconds: float = 10.0, **arguments: Any) -> Any:
        """Run a command and return its answer. Raises QmpError."""
        deadline = time.monotonic() + seconds
        if not self._ready:
            self._message(deadline)  # the greeting
            self._ready = True
            self.execute("qmp_capabilities", seconds=seconds)
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        number = next(self._numbers)
        order = {"execute": command, "arguments": words, "id": number}
        try:
            self._stream.sendall(json.dumps(order).encode() + b"\n")
        except OSError as broken:
            raise QmpError(f"{command}: {broken}") from None
        while True:
            message = self._message(deadline)
            if "event" in message:
                self._events.append(message)
            elif message.get("id", number) != number:
                continue  # a late answer to a command that was given up
            elif "error" in message:
                raise QmpError(f"{command}: {message['error']['desc']}")
            elif "return" in message:
                return message["return"]

    def await_event(self, name: str, seconds: float) -> dict[str, Any]:
        """Return the data of the next event ``name``, and drop others. Raises QmpError."""
        deadline = time.monotonic() + seconds
        while True:
            message = self._events.popleft() if self._events else self._message(deadline)
            if message.get("event") == name:
                return dict(message.get("data", {}))

    def close(self) -> None:
        self._stream.close()

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._stream], [], [], max(0.0, deadline - time.monotonic()))
            try:
                data = self._stream.recv(65536) if readable else b""
            except OSError:
                data = b""
            if not data:
                raise QmpError("QEMU closed its monitor" if readable else "QEMU does not answer in time")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))
