"""A shell on a node that runs commands one after the other.

Importing paramiko takes 0.2 s. A channel exists only after that, so it is not imported here.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvslab.apply.marker import MarkerReader, wrap
from lvslab.closing import Closing
from lvslab.errors import BootError, StepFailed

if TYPE_CHECKING:
    import paramiko

CHUNK = 1 << 16
"""Bytes that are read from a channel at a time."""
_FAREWELL = 1.0
"""Seconds that a shell may take to end after its input has ended."""


class CommandTimeout(StepFailed):
    """A command did not end within ``seconds``. ``output`` is what it had printed."""

    def __init__(self, message: str, output: str, seconds: float, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.output = output
        self.seconds = seconds


class ConnectionLost(BootError):
    """The connection broke during a command. ``output`` is what it had printed."""

    def __init__(self, message: str, output: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.output = output


@dataclass(frozen=True)
class ShellResult:
    """Result of a command in a shell.

    ``output`` holds stdout and stderr interleaved, ``status`` the exit status, ``seconds`` the duration on
    our clock. If ``ended``, the shell itself ended with the command; ``status`` is then that of the shell
    (255 if a signal ended it).
    """

    output: str
    status: int
    seconds: float
    ended: bool = False


class Shell(Closing):
    """A shell on a node that runs commands one after the other. Made by ``Connection.shell``."""

    # printf and return are builtins wherever sh is dash, bash or busybox. The two halves of the marker are
    # joined by the shell, so that no trace of the command line (set -x, set -v, ps) holds the marker itself.
    # Returning the status keeps $? for the next command.
    _PRELUDE = 'lvslab_ended() { printf "%s%s %s\\n" "$1" "$2" "$3" >&9; return "$3"; }\n'

    def __init__(
        self,
        channel: paramiko.Channel,
        node: str,
        status_of: Callable[[paramiko.Channel, str, str], int],
    ) -> None:
        self._channel = channel
        self._node = node
        self._status_of = status_of
        self._unsent = self._PRELUDE
        self._rest = b""
        self._gone = ""

    def close(self) -> None:
        """End the shell; may be called twice."""
        if not self._gone:
            # If it ended while the next session is opened, dropbear would close that one (see _channel).
            self._gone = "has been closed"
            with contextlib.suppress(OSError, EOFError):
                self._channel.shutdown_write()
                self._channel.status_event.wait(_FAREWELL)
        hang_up(self._channel)

    def run(self, command: str, timeout: float) -> ShellResult:
        """Run ``command``, any number of lines, for at most ``timeout`` seconds.

        Variables, functions, the folder and ``$?`` are as the previous commands left them. A syntax error is
        reported as an exit status. Output that is not UTF-8 is decoded with replacement characters, and
        output beyond 1 MiB is replaced by a note. Raises CommandTimeout (the command goes on in the node,
        the shell is given up), ConnectionLost, and StepFailed if the shell has gone already.
        """
        if self._gone:
            raise StepFailed(f"the shell on {self._node} {self._gone}", f"so this was not run: {command}")
        if "\0" in command:
            raise StepFailed(f"a command for {self._node} has a NUL character in it, which no shell takes")
        first, second = secrets.token_hex(8), secrets.token_hex(8)
        reader = MarkerReader(first + second, self._rest)
        began = time.monotonic()
        deadline = began + timeout
        status: int | None = None
        try:
            try:
                self._channel.settimeout(left(deadline))
                self._channel.sendall((self._unsent + wrap(command, first, second)).encode())
            except TimeoutError:
                raise
            except (OSError, EOFError):
                pass  # the next read notices that the shell has gone, and gets its status
            self._unsent = ""
            while status is None:
                self._channel.settimeout(left(deadline))
                if not (data := receive(self._channel.recv)):
                    break
                status = reader.feed(data)
            ended = status is None
            if ended and not self._channel.status_event.wait(left(deadline)):
                raise TimeoutError
        except TimeoutError:
            self._gone = f"was given up when a command did not end within {timeout:g} s"
            hang_up(self._channel)
            raise CommandTimeout(
                f"on {self._node}: {command}\n  did not end within {timeout:g} s", reader.text(), timeout
            ) from None
        seconds = time.monotonic() - began
        self._rest = reader.rest
        if status is None:
            self._gone = "is gone with its connection"
            status = self._status_of(self._channel, f"on {self._node}: {command}", reader.text())
            self._gone = f"ended with status {status}"
        return ShellResult(reader.text(), status, seconds, ended)


# paramiko says EOFError wherever it sends something on a connection that has broken and whose thread has not
# noticed yet. It sends when it reads, too: that there is room for more.


def receive(read: Callable[[int], bytes]) -> bytes:
    """Read bytes by a channel's recv or recv_stderr; none if it has ended or broken."""
    try:
        return read(CHUNK)
    except EOFError:
        return b""


def hang_up(channel: paramiko.Channel) -> None:
    """Close ``channel``, also if its connection has broken."""
    with contextlib.suppress(EOFError):
        channel.close()


def left(deadline: float | None) -> float | None:
    """Seconds until ``deadline`` (on the monotonic clock). Raises TimeoutError if it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
