"""The one gateway through which lvslab starts other programs and waits for them.

Every command is logged so that it can be pasted into a shell; a missing program, an exit status and a
signal are told apart; a failure is reported once, here, with the last lines of what the program said.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lvslab.errors import CommandFailed, MachineError

log = logging.getLogger("lvslab.run")

Argument = str | Path


def run(
    command: Sequence[Argument],
    *,
    check: bool = True,
    input: bytes | None = None,
    timeout: float | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    executable: str | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``command`` to its end and return its exit status and what it printed (bytes).

    ``timeout`` is in seconds; ``env`` is added to the environment;
    ``executable`` is the file to run where it is not ``command[0]``. Raises MachineError where the program
    does not exist, CommandFailed where it ends badly (unless ``check`` is false) or not in time.
    """
    log.debug("%s", pasteable(command))
    try:
        done = subprocess.run(
            list(command),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            pass_fds=pass_fds,
            executable=executable,
            check=False,
        )
    except FileNotFoundError:
        missing_program(str(command[0]))
    except PermissionError:
        raise MachineError(f"{command[0]} may not be executed", "is it a program in PATH?") from None
    except subprocess.TimeoutExpired as expired:
        raise CommandFailed(
            f"{command[0]} did not end within {timeout:g} s: {pasteable(command)}",
            status=-signal.SIGKILL,
            hint=last_lines(expired.stderr or b""),
        ) from None
    if check and done.returncode != 0:
        raise CommandFailed(
            f"{ended(str(command[0]), done.returncode)}: {pasteable(command)}",
            status=done.returncode,
            hint=last_lines(done.stderr or done.stdout),
        )
    return done


def follow(command: Sequence[Argument], heard: Callable[[bytes], None], *, input: bytes = b"") -> int:
    """Run ``command`` to its end, hand every line that it prints (stderr too) to ``heard``, and return how
    it ended.

    ``input`` must fit a pipe (64 KiB). Whatever ends this ends the program. Raises MachineError where there
    is none.
    """
    log.debug("%s", pasteable(command))
    try:
        child = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except FileNotFoundError:
        missing_program(str(command[0]))
    try:
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # a program may end without having read it
            child.stdin.write(input)
            child.stdin.close()
        for line in child.stdout:
            heard(line)
        return child.wait()
    finally:
        child.kill()  # does nothing to one that has ended
        child.wait()
        # All that it started holds its end of the pipe: it is gone, and writes no more, when this returns.
        if child.stdout is not None and not child.stdout.closed:
            child.stdout.read()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def pasteable(command: Sequence[Argument]) -> str:
    """A command as one would type it into a shell."""
    return shlex.join(str(word) for word in command)


def missing_program(program: str) -> NoReturn:
    """Raise the MachineError that says that ``program`` is not installed."""
    raise MachineError(f"{program} is not installed", "./run doctor says which package has it")


def ended(program: str, status: int) -> str:
    """How a program ended, in words. ``status`` as in subprocess: a signal is a negative number."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:  # the real-time signals have no names
            name = f"signal {-status}"
        return f"{program} was ended by {name}"
    return f"{program} ended with status {status}"


def ended_by_signal(words: str) -> bool:
    """Whether ``words``, in which ``ended`` may have had a say, tell of a program that a signal ended."""
    return bool(re.search(r" was ended by (SIG|signal )", words))


def last_lines(output: bytes, count: int = 8) -> str | None:
    """The last ``count`` lines that say anything, or None."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n  ".join(lines[-count:]) or None
