"""Starts a lab's supervisor in namespaces of its own, and receives its events."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import select
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lvslab import paths
from lvslab.boot import control, events
from lvslab.closing import Closing
from lvslab.errors import BootError, MachineError
from lvslab.paths import PROJECT
from lvslab.run import TimeoutExpired, ended, last_lines, spawn

if TYPE_CHECKING:
    from lvslab.boot.plan import Plan

log = logging.getLogger("lvslab.launch")

_UNSHARE = (
    "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--",
)  # fmt: skip


class Launch(Closing):
    """A supervisor that was started and waits for its plan, since both take a moment.

    Unless ``keep`` is called, the lab ends with this object's context, or process. ``listener`` holds the
    lab's name and is handed over by ``boot``; the descriptors of ``copies`` are those that a plan may name.
    """

    def __init__(
        self, name: str, listener: socket.socket, copies: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        self._name = name
        self._listener = listener
        self._plan: Plan | None = None
        self._kept = False
        self._messages = os.memfd_create("messages")
        self._stream, theirs = socket.socketpair()
        supervisor = [sys.executable, "-P", "-m", "lvslab.boot.supervisor"]
        copied = [descriptor for pair in (copies or {}).values() for descriptor in pair]
        # The supervisor's working folder is another, and the cache may be given relative to ours.
        environment = {"PYTHONPATH": str(PROJECT), "LVSLAB_CACHE": str(paths.cache())}
        if log.isEnabledFor(logging.DEBUG):
            environment["LVSLAB_DEBUG"] = "1"
        with theirs:
            try:
                with spawn(
                    [*_UNSHARE, *supervisor, str(theirs.fileno())],
                    stdout=self._messages,
                    stderr=self._messages,
                    pass_fds=(theirs.fileno(), *copied),
                    env=environment,
                    # Out of reach of the terminal's Ctrl-C: the lab ends when its starter says so, or ends.
                    new_session=True,
                    outlives=True,
                    cwd=Path("/"),
                ) as process:
                    self._process = process
            except MachineError:
                os.close(self._messages)
                raise

    def close(self) -> None:
        """End the lab, unless it is kept."""
        if not self._kept:
            self.end()
        os.close(self._messages)

    def boot(self, plan: Plan) -> None:
        """Send the supervisor its plan."""
        self._plan = plan
        # Only the supervisor holds the lab's name from now on, so that it goes with the lab; unshare would
        # hold what it inherits for a moment longer. Requests queue from now on. Before, they are refused,
        # as the supervisor would not answer until it has a plan.
        with self._listener as listener, contextlib.suppress(OSError):  # ``events`` says why it has ended
            listener.listen(64)
            socket.send_fds(self._stream, [b"\n"], [listener.fileno()])
            self._stream.sendall(pickle.dumps(plan))

    def events(self) -> Iterator[events.Event]:
        """Yield the supervisor's events, ``Ready`` as the last one. Raises the error that ended the boot."""
        # A supervisor that is killed before it has read its plan makes a reset of the stream's end.
        with contextlib.suppress(ConnectionResetError), self._stream.makefile("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # killed while it spoke
                    break
                match events.from_line(line):
                    case events.Failed(error):
                        raise control.error_from_json(error)
                    case events.Logged(logger, message):
                        logging.getLogger(logger).debug("%s", message)
                    case event:
                        yield event
                        if isinstance(event, events.Ready):
                            return
        how = ended("unshare", self._process.wait())
        raise BootError(
            f"the supervisor of the lab '{self._name}' ended before the lab was up: {how}",
            last_lines(self._said()),
        )

    def keep(self) -> None:
        """Let the lab outlive this process. Raises BootError where it has ended meanwhile."""
        try:
            self._stream.sendall(b"keep\n")
        except OSError:
            raise BootError(f"the lab '{self._name}' ended while it was brought up") from None
        self._stream.close()
        self._kept = True

    def end(self) -> None:
        """End the lab, and return when all of it is gone."""
        self._stream.close()
        if self._plan is None:
            # Without a plan it ends by itself. unshare, killed while it makes process 1, would leave that
            # behind for a moment.
            with contextlib.suppress(TimeoutExpired):
                self._process.wait(10)
        for first in self._children():
            # Process 1 is waited for, not unshare: it is gone only when all of its namespace is.
            with contextlib.suppress(ProcessLookupError), control.process(first) as process:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [])
        self._process.kill()
        self._process.wait()

    def _said(self) -> bytes:
        """Return what the supervisor printed, before it had its plan and after that."""
        early, late = os.pread(self._messages, 1 << 20, 0), self._plan and self._plan.messages
        return early + (late.read_bytes() if late and late.exists() else b"")

    def _children(self) -> list[int]:
        pid = self._process.pid
        try:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []
