"""SSH over a connected socket: single commands, and shells for several of them.

The socket is given, so it may be a TCP connection to a guest, or one end of a socketpair with a
``dropbear -i`` at the other end.

Importing paramiko takes 0.2 s, so it is imported by the first connection, not by this module.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import logging
import os
import select
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lvslab.apply.shell import CHUNK, CommandTimeout, ConnectionLost, Shell, hang_up, left, receive
from lvslab.closing import Closing
from lvslab.errors import BootError

if TYPE_CHECKING:
    import paramiko

log = logging.getLogger("lvslab.ssh")

SIGNALLED = 255
"""Exit status of OpenSSH's client if a signal ended the remote command."""
_OPEN_ATTEMPTS = 5

# The guest's processor may be emulated, so these are what costs it least among what both paramiko and
# dropbear offer. Left to itself, paramiko 5 would pick the post-quantum exchange where dropbear has it.
_KEY_EXCHANGE = ("curve25519-sha256@libssh.org",)
_CIPHERS = ("aes128-ctr", "aes256-ctr")
_DIGESTS = ("hmac-sha2-256", "hmac-sha1")
_HOST_KEYS = ("ssh-ed25519",)


@dataclass(frozen=True)
class Executed:
    """Output of a command, and its exit status (255 if a signal ended it)."""

    stdout: bytes
    stderr: bytes
    status: int


class Sink(Protocol):
    """Destination of a command's output, such as a binary file."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


class Connection(Closing):
    """An SSH connection to one node, made by ``Connection.open``. Leaving it closes the socket.

    It takes one command at a time: use two connections for two commands side by side. If a command ends
    while the session of another is opened, dropbear closes that session; if the other command has been sent
    already, dropbear ends with everything on the connection ("Failed assertion: !channel->sent_close",
    common-channel.c, 2022.83).
    """

    def __init__(self, transport: paramiko.Transport, node: str, timeout: float) -> None:
        self._transport = transport
        self._node = node
        self._timeout = timeout
        self._turn = threading.Lock()

    @classmethod
    def open(
        cls,
        sock: socket.socket,
        *,
        key: Path,
        host_key: Path | str,
        user: str = "root",
        timeout: float = 10.0,
        node: str = "the node",
    ) -> Connection:
        """Log in over ``sock``, which belongs to the connection and is closed on errors.

        ``key`` is the file of an ed25519 private key in OpenSSH's format. ``host_key`` is the node's public
        key, ``ssh-ed25519 AAAA...``: that text, or the file that holds it. ``timeout`` is in seconds, for
        each of: key exchange, log-in, opening a channel. ``node`` is a name for messages. Raises BootError
        if no SSH server answers, if the host key is another one, or if ``key`` is refused.
        """
        import paramiko

        _quieten()
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport: paramiko.Transport | None = None
        try:
            expected = _public_key(host_key)
            identity = paramiko.Ed25519Key.from_private_key_file(str(key))
            transport = paramiko.Transport(sock)
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = timeout
            options = transport.get_security_options()
            options.kex, options.ciphers = _KEY_EXCHANGE, _CIPHERS
            options.digests, options.key_types = _DIGESTS, _HOST_KEYS
            began = time.monotonic()
            transport.start_client(timeout=timeout)
            if transport.get_remote_server_key().asbytes() != expected:
                raise BootError(
                    f"{node} shows another host key than the one that it was given",
                    "something else answers in its place: end this lab, and start it again",
                )
            transport.auth_publickey(user, identity)
            log.debug("%s: logged in after %.3f s", node, time.monotonic() - began)
        except BaseException as error:
            if transport is not None:
                transport.close()
            sock.close()
            if isinstance(error, paramiko.AuthenticationException):
                raise BootError(f"{node} refuses to log {user} in with the key {key}: {error}") from error
            if isinstance(error, paramiko.SSHException | OSError | EOFError):
                raise BootError(f"no SSH connection to {node} within {timeout:g} s: {error}") from error
            raise
        return cls(transport, node, timeout)

    def close(self) -> None:
        """End the connection with all shells and commands on it; may be called twice."""
        self._transport.close()

    def execute(self, command: str, *, timeout: float | None = None) -> Executed:
        """Run ``command`` in a shell of its own with an empty stdin.

        ``timeout`` is in seconds, None for no limit. Raises CommandTimeout, ConnectionLost.
        """
        stdout, stderr = io.BytesIO(), io.BytesIO()
        status = self.stream(command, stdout=stdout, stderr=stderr, timeout=timeout)
        return Executed(stdout.getvalue(), stderr.getvalue(), status)

    def stream(
        self,
        command: str,
        *,
        stdout: Sink,
        stderr: Sink,
        stdin: int | None = None,
        timeout: float | None = None,
    ) -> int:
        """Run ``command`` in a shell of its own, copy its output, return its exit status.

        ``stdin`` is a file descriptor that feeds the command until its end of file; None is an empty stdin.
        ``timeout`` is in seconds, None for no limit. The status is 255 where a signal ended the command.
        Raises CommandTimeout, ConnectionLost, and what writing to ``stdout`` and ``stderr`` raises.
        """
        doing = f"on {self._node}: {command}"
        failures: list[Exception] = []
        with self._turn:
            deadline = None if timeout is None else time.monotonic() + timeout
            channel = self._channel(command)
            wake, waker = os.pipe()

            def copy_errors() -> None:
                try:
                    while data := receive(channel.recv_stderr):
                        stderr.write(data)
                        stderr.flush()
                except Exception as error:  # raised again below, in the caller's thread
                    failures.append(error)
                    hang_up(channel)

            copier = threading.Thread(target=copy_errors, daemon=True)
            feeder = threading.Thread(target=_feed, args=(channel, stdin, wake), daemon=True)
            try:
                copier.start()
                feeder.start()
                while True:
                    channel.settimeout(left(deadline))
                    if not (data := receive(channel.recv)):
                        break
                    stdout.write(data)
                    stdout.flush()
                copier.join(left(deadline))
                ended = not copier.is_alive() and channel.status_event.wait(left(deadline))
            except TimeoutError:
                ended = False
            finally:
                hang_up(channel)
                os.close(waker)
                copier.join()
                feeder.join()
                os.close(wake)
            if failures:
                raise failures[0]
            if not ended:
                raise CommandTimeout(f"{doing}\n  did not end within {timeout:g} s", "", timeout or 0.0)
            return self._status(channel, doing)

    def shell(self, program: str = "sh") -> Shell:
        """Start ``program``, a POSIX shell without a terminal, to run many commands in.

        Raises ConnectionLost (a BootError).
        """
        # The marker comes by descriptor 9, even if a command has closed or redirected stdout.
        with self._turn:
            return Shell(self._channel(f"exec {program} 9>&1 2>&1"), self._node, self._status)

    def _channel(self, command: str) -> paramiko.Channel:
        import paramiko

        # A shell that was left may end just now, and then dropbear closes each session that has been opened
        # and has no command yet (check_close in common-channel.c, seen in 2022.83). The command has not been
        # run: it would have been acknowledged before the close. So it is safe to ask again.
        for attempt in range(1, _OPEN_ATTEMPTS + 1):
            try:
                channel = self._transport.open_session(timeout=self._timeout)
                channel.exec_command(command)
                return channel
            except (paramiko.SSHException, OSError, EOFError) as error:
                if attempt == _OPEN_ATTEMPTS or not self._transport.is_active():
                    raise ConnectionLost(f"{self._node} takes no command any more: {error}") from error
                log.debug("%s: closed before the command: %s", self._node, error)
        raise AssertionError("unreachable")

    def _status(self, channel: paramiko.Channel, doing: str, output: str = "") -> int:
        """Exit status of a ``channel`` that ended by itself or with the connection."""
        status = channel.recv_exit_status()
        if status >= 0:
            return status
        # paramiko ends the channels first and its thread a moment later: give the thread that moment.
        self._transport.join(0.2)
        if self._transport.is_active():
            return SIGNALLED
        raise ConnectionLost(f"{doing}\n  the connection broke before it ended", output)


def _feed(channel: paramiko.Channel, stdin: int | None, wake: int) -> None:
    """Copy ``stdin`` into ``channel`` to its end, or until ``wake``'s other end is closed."""
    # The command may end without reading all of it.
    with contextlib.suppress(OSError, EOFError):
        if stdin is None:
            channel.shutdown_write()
            return
        poll = select.poll()
        poll.register(stdin, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while wake not in dict(poll.poll()):
            if not (data := os.read(stdin, CHUNK)):
                channel.shutdown_write()
                return
            channel.sendall(data)


def _public_key(given: Path | str) -> bytes:
    """Bytes of a public key, given as its text or its file. Raises BootError."""
    text = given.read_text() if isinstance(given, Path) else given
    words = text.split()
    if len(words) < 2 or words[0] != "ssh-ed25519":
        raise BootError(f"not an ed25519 public key: {text[:80]!r}")
    try:
        return base64.b64decode(words[1], validate=True)
    except binascii.Error as error:
        raise BootError(f"not a public key: {text[:80]!r}") from error


def _quieten() -> None:
    """Silence paramiko's log unless ours is at DEBUG: our errors say the same."""
    level = logging.NOTSET if log.isEnabledFor(logging.DEBUG) else logging.CRITICAL + 1
    logging.getLogger("paramiko").setLevel(level)
