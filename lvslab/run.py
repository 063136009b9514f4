"""The only place where lvslab starts other programs, logs them, and reports their failures."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TypedDict, Unpack

from lvslab.errors import CommandFailed, MachineError

log = logging.getLogger("lvslab.run")

Argument = str | Path
Stream = int | IO[Any] | None
"""What a child reads or writes, as in subprocess: None is our own."""

Process = subprocess.Popen[bytes]
TimeoutExpired = subprocess.TimeoutExpired
DEVNULL, PIPE, STDOUT = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT


class Place(TypedDict, total=False):
    """Place of a child, as in subprocess; but ``env`` is added to our environment."""

    cwd: Path | None
    env: Mapping[str, str] | None
    pass_fds: Sequence[int]
    executable: str | None


@contextlib.contextmanager
def spawn(
    command: Sequence[Argument],
    *,
    stdin: Stream = DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    new_session: bool = False,
    outlives: bool = False,
    **place: Unpack[Place],
) -> Iterator[Process]:
    """Start ``command`` for the block, and kill it at the block's end.

    A ``new_session`` is out of reach of the terminal's Ctrl-C. A child that ``outlives`` the block is left
    alone. Raises MachineError where the program does not exist.
    """
    log.debug("%s", pasteable(command))
    place["env"] = {**os.environ, **(place.get("env") or {})}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=new_session,
            **place,
        )
    except FileNotFoundError:
        missing_program(str(command[0]))
    except PermissionError:
        raise MachineError(f"{command[0]} may not be executed", "is it a program in PATH?") from None
    if outlives:
        yield process
        return
    try:
        yield process
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a program may end without having read it
                    stream.close()


def run(
    command: Sequence[Argument],
    *,
    check: bool = True,
    input: bytes | None = None,
    stderr: int = PIPE,
    timeout: float | None = None,
    **place: Unpack[Place],
) -> subprocess.CompletedProcess[bytes]:
    """Run ``command`` to its end and return its exit status and output (bytes).

    ``timeout`` is in seconds; ``stderr`` may be STDOUT; the rest is as in `spawn`. Raises MachineError where
    the program does not exist, CommandFailed where it fails (unless ``check`` is false) or exceeds
    ``timeout``.
    """
    stdin = DEVNULL if input is None else PIPE
    with spawn(command, stdin=stdin, stdout=PIPE, stderr=stderr, **place) as process:
        try:
            out, err = process.communicate(input, timeout)
        except TimeoutExpired as expired:
            raise CommandFailed(
                f"{command[0]} did not end within {timeout:g} s: {pasteable(command)}",
                status=-signal.SIGKILL,
                hint=last_lines(expired.stderr or b""),
            ) from None
    if check and process.returncode != 0:
        raise CommandFailed(
            f"{ended(str(command[0]), process.returncode)}: {pasteable(command)}",
            status=process.returncode,
            hint=last_lines(err or out),
        )
    return subprocess.CompletedProcess(process.args, process.returncode, out, err or b"")


def follow(command: Sequence[Argument], heard: Callable[[bytes], None], *, input: bytes = b"") -> int:
    """Run ``command``, pass each line of its output to ``heard``, and return its status.

    Standard error is merged into the output. ``input`` must fit a pipe (64 KiB). An exception ends the
    program. Raises MachineError where the program does not exist.
    """
    with spawn(command, stdin=PIPE, stdout=PIPE, stderr=STDOUT) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(input)
                process.stdin.close()
            for line in process.stdout:
                heard(line)
            return process.wait()
        finally:
            process.kill()
            # All that it started holds its end of the pipe: it is gone, and writes no more, when this ends.
            process.stdout.read()


def pasteable(command: Sequence[Argument]) -> str:
    """Format a command for pasting into a shell."""
    return shlex.join(str(word) for word in command)


def missing_program(program: str) -> NoReturn:
    """Raise MachineError: ``program`` is not installed."""
    raise MachineError(f"{program} is not installed", "./run doctor says which package has it")


def ended(program: str, status: int) -> str:
    """Describe how a program ended. ``status`` as in subprocess: a signal is a negative number."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:  # the real-time signals have no names
            name = f"signal {-status}"
        return f"{program} was ended by {name}"
    return f"{program} ended with status {status}"


def last_lines(output: bytes, count: int = 8) -> str | None:
    """Return the last ``count`` lines that are not blank, or None."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n  ".join(lines[-count:]) or None
