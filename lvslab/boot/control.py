"""Requests to running labs, over one abstract Unix socket for each lab.

An abstract socket is gone with the last process that holds it, so a lab that was killed leaves no name
behind. It belongs to the machine's network namespace. A request and its answer are one line of JSON each;
descriptors (a connection to a node, a console, namespaces) travel with the answer.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lvslab import errors
from lvslab.closing import Closing
from lvslab.errors import BootError, CheckFailed, LvsLabError, StateError, UsageError

_PREFIX = "lvslab/"
_DESCRIPTORS = 253  # SCM_MAX_FD of include/net/scm.h; a capture has one for each interface


def reserve(name: str) -> socket.socket:
    """Take the lab name ``name`` for as long as the socket is held. Raises StateError if it is taken."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{_PREFIX}{name}")
    except OSError as refused:
        listener.close()
        if refused.errno != errno.EADDRINUSE:
            raise
        raise StateError(
            f"the lab '{name}' is up already",
            f"look at it with ./run lab.status --name {name}, or end it with ./run lab.down --name {name}",
        ) from None
    return listener


def running() -> list[str]:
    """Return the names of the labs that are up on this machine, sorted."""
    return sorted(_holders())


def _holders() -> dict[str, str]:
    """Return the inode of the socket that holds the name of each lab."""
    mark = f"@{_PREFIX}"
    fields = (line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    # State 01 (SS_UNCONNECTED) tells the socket that holds the name from the connections to it, which have
    # the name too.
    holders = ((row[7], row[6]) for row in fields if len(row) == 8 and row[5] == "01")
    return {name.removeprefix(mark): inode for name, inode in holders if name.startswith(mark)}


def starter(name: str) -> int | None:
    """Return the process that prepares the start of the lab ``name``, and holds the name.

    None if it has gone meanwhile. Processes of other users cannot be examined without root.
    """
    socket_of = f"socket:[{_holders().get(name)}]"
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda process: int(process.name)):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) == socket_of:
                        return int(process.name)
    return None


class Starting(StateError):
    """The start of the lab ``name`` is being prepared, by ``process`` if that is known."""

    def __init__(self, name: str, process: int | None) -> None:
        self.process = process
        which = "its lab.up" if process is None else f"process {process}, which starts it,"
        super().__init__(f"the lab '{name}' is just starting", f"wait for {which} to end")


class Control(Closing):
    """A connection to the supervisor of the lab ``name``, for one request at a time.

    The supervisor has ``patience`` seconds to answer. ``starter`` is the process that started the lab, which
    may have ended. Raises Starting where the supervisor has no plan yet, StateError where the lab is not up.
    """

    def __init__(self, name: str, patience: float = 60.0) -> None:
        self.name = name
        self._turn = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience)
        try:
            self._socket.connect(f"\0{_PREFIX}{name}")
        except OSError as refused:
            self._socket.close()
            raise _not_up(name, refused) from None
        # That of listen(2): the process that has started the lab.
        self.starter = _peer(self._socket)[0]
        if _peer_user(self._socket) != 0:
            self._socket.close()
            raise UsageError(f"the name '{name}' is taken by a process that is not root's: it is not a lab")

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable at the lab's end, unless a request is open."""
        return self._socket.fileno()

    def ask(self, what: str, **details: Any) -> tuple[Any, list[int]]:
        """Send a request; return its answer, and the descriptors that came with it.

        Raises the error that the supervisor answers with, or BootError where it died meanwhile.
        """
        try:
            with self._turn:
                self._socket.sendall(json.dumps({"ask": what, **details}).encode() + b"\n")
                line, descriptors = _receive(self._socket)
        except OSError:
            line, descriptors = b"", []
        if not line:
            raise BootError(f"the lab '{self.name}' ended while it was asked for {what}")
        answer = json.loads(line)
        if "error" in answer:
            raise error_from_json(answer["error"])
        return answer["ok"], descriptors

    def observe(self, node: str, command: str, seconds: float | None = None) -> str:
        """Return what ``command`` (one whole line of shell) prints on ``node``, without a login.

        A virtual machine's agent runs it, which costs a tenth of a command over SSH and does not need the
        node's network. A node must answer within ``seconds``, and one that is known to hang is an error at
        once; None is 30 s. Raises BootError, and CheckFailed where the command fails.
        """
        answer, _ = self.ask("observe", node=node, command=command, seconds=seconds)
        output = str(answer["output"])
        if answer["status"] != 0:
            message = f"on {node}, `{command}` ended with status {answer['status']}"
            raise CheckFailed(message, output.strip() or None)
        return output

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for at most ``seconds``; return whether the lab or this connection has ended."""
        if self._socket.fileno() < 0:
            return True
        waiting = select.poll()
        # Without a request only the end of the stream can come.
        waiting.register(self._socket, select.POLLIN)
        return bool(waiting.poll(max(0.0, seconds) * 1000))

    def hang_up(self) -> None:
        """End the connection, also for a thread that waits in ``wait_for_end``."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def end(self) -> None:
        """End the lab, and return when the last of its processes is gone. Raises BootError after 10 s."""
        _, (process,) = self.ask("end")
        try:
            waiting = select.poll()
            waiting.register(process, select.POLLIN)
            # A process identifier of process 1 is readable when all processes of its namespace are gone.
            if not waiting.poll(10_000):
                raise BootError(
                    f"the lab '{self.name}' does not end", "its supervisor is still there after 10 s"
                )
        finally:
            os.close(process)


@contextlib.contextmanager
def process(pid: int) -> Iterator[int]:
    """Open a descriptor that is readable when the process ``pid`` has ended. Raises ProcessLookupError."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def serve(connection: socket.socket, handler: Handler) -> None:
    """Answer the requests of one connection until its other side closes it. Others than root are refused."""
    if _peer_user(connection) != 0:
        connection.close()
        return
    with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for line in connection.makefile("rb"):
            descriptors: list[int] = []
            try:
                reply: dict[str, Any] = {"ok": handler(json.loads(line), descriptors)}
            except LvsLabError as error:
                reply = {"error": error_to_json(error)}
            except Exception as error:  # a fault of ours must reach the other side, not end the lab
                reply = {"error": {"kind": "LvsLabError", "message": f"fault in the supervisor: {error!r}"}}
            try:
                socket.send_fds(connection, [json.dumps(reply).encode() + b"\n"], descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
                handler.answered()


class Handler:
    """The supervisor's side of a connection: takes a request, appends descriptors, returns the answer."""

    def __call__(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        raise NotImplementedError

    def answered(self) -> None:
        """Called when an answer has been sent."""


def error_to_json(error: LvsLabError) -> dict[str, Any]:
    """Return an error as it travels between processes."""
    return {"kind": errors.family(error).__name__, "message": error.message, "hint": error.hint}


def error_from_json(found: Mapping[str, Any]) -> LvsLabError:
    """Return the error that ``error_to_json`` was given."""
    error = LvsLabError(found["message"], found.get("hint"))
    # By class alone: a subclass may want more to be made from than travels between processes.
    error.__class__ = errors.named(found["kind"]) or LvsLabError
    return error


def other_version(name: str) -> StateError:
    """Make the error for a lab that a version of lvslab with other records booted."""
    return StateError(
        f"the lab '{name}' was booted by another version of lvslab",
        f"use that one, or end the lab with ./run lab.down --name {name}",
    )


def _peer_user(connection: socket.socket) -> int:
    """Return the user id of the other side."""
    return _peer(connection)[1]


def _peer(connection: socket.socket) -> tuple[int, int]:
    """Return the process and the user of the other side (struct ucred: pid, uid, gid)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, user, _ = struct.unpack("3i", credentials)
    return int(process), int(user)


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    data, descriptors = b"", list[int]()
    while not data.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(connection, 1 << 16, _DESCRIPTORS)
        if not part:
            return b"", descriptors
        data += part
        for descriptor in more:
            os.set_inheritable(descriptor, False)
        descriptors += more
    return data, descriptors


def _not_up(name: str, refused: OSError) -> LvsLabError:
    if refused.errno != errno.ECONNREFUSED:
        return UsageError(f"cannot talk to the lab '{name}': {refused.strerror}")
    up = running()
    if name in up:
        return Starting(name, starter(name))
    hint = f"running: {', '.join(up)} (choose with --name)" if up else "start it with ./run lab.up"
    return StateError(f"the lab '{name}' is not up", hint)
