"""A guest's serial console, which is written to the evidence and can be attached to."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

_REMEMBERED = 16384
_PANIC = ("Kernel panic", "BUG:", "Oops:", "general protection fault", "Unable to mount root")


class Console:
    """Reads all that comes over ``stream``, in a thread, until the guest ends."""

    def __init__(self, stream: socket.socket, log: Path) -> None:
        self._stream = stream
        self._log = log.open("ab", buffering=0)
        self._tail = b""
        self._viewers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name=f"console {log.stem}", daemon=True)
        self._thread.start()

    def attach(self) -> socket.socket:
        """Open a stream that is connected with the console, and begins with its last bytes."""
        ours, theirs = socket.socketpair()
        with self._lock:
            with contextlib.suppress(BlockingIOError):
                ours.send(self._tail, socket.MSG_DONTWAIT)
            self._viewers.append(ours)
        threading.Thread(target=self._type, args=(ours,), name="console viewer", daemon=True).start()
        return theirs

    def ended(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the guest to close its console; return whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def last_lines(self, count: int = 12) -> list[str]:
        """Return the last lines of the console that are not empty."""
        with self._lock:
            text = self._tail.decode(errors="replace")
        return [line.rstrip() for line in text.replace("\r", "").split("\n") if line.strip()][-count:]

    def panic(self) -> str | None:
        """Return the line that says why the kernel gave up, if there is one."""
        lines = self.last_lines(count=500)
        return next((line for line in lines if any(mark in line for mark in _PANIC)), None)

    def _read(self) -> None:
        with self._log:
            while data := self._receive():
                self._log.write(data)
                with self._lock:
                    self._tail = (self._tail + data)[-_REMEMBERED:]
                    for viewer in list(self._viewers):
                        self._show(viewer, data)
        with self._lock:
            for viewer in self._viewers:
                # Wakes the thread that waits for what is typed, which closes it.
                viewer.shutdown(socket.SHUT_RDWR)
            self._viewers.clear()
        self._stream.close()

    def _receive(self) -> bytes:
        try:
            return self._stream.recv(4096)
        except OSError:
            return b""

    def _show(self, viewer: socket.socket, data: bytes) -> None:
        try:
            viewer.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # a viewer that does not read loses output, and never holds up the guest
        except OSError:
            self._viewers.remove(viewer)

    def _type(self, viewer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := viewer.recv(4096):
                self._stream.sendall(data)
        with self._lock:
            if viewer in self._viewers:
                self._viewers.remove(viewer)
        viewer.close()
