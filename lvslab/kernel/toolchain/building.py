"""Run the programs of one build: keep their output, tell the progress, and show the first error."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lvslab.cache import store
from lvslab.errors import BuildError, CommandFailed, MachineError
from lvslab.kernel import recipe
from lvslab.kernel.toolchain import build_log
from lvslab.run import ended, follow, missing_program, run

log = logging.getLogger("lvslab.progress.building")

_OFTEN = 0.25  # seconds between two lines of progress


class Build:
    """One build of ``name``, a context manager whose steps run one after the other.

    ``stream`` is its log; where the block ends with a BuildError, a copy is kept at ``kept``, and the error
    says so. ``program`` describes the program that takes the steps.
    """

    def __init__(self, name: str, program: str, stream: BinaryIO, kept: Path) -> None:
        self._name = name
        self._program = program
        self._stream = stream
        self._kept = kept
        self._began = time.monotonic()
        self._objects = 0
        self._told = 0.0

    def __enter__(self) -> Build:
        return self

    def __exit__(self, kind: object, failed: BaseException | None, traceback: object) -> None:
        if not isinstance(failed, BuildError):
            return
        self._stream.flush()
        if text := Path(self._stream.name).read_bytes():
            store.write(self._kept, text)
            said = f"all that it said: {self._kept}"
            failed.hint = f"{failed.hint}\n  {said}" if failed.hint else said

    @property
    def seconds(self) -> float:
        """Seconds since the build began."""
        return time.monotonic() - self._began

    def take(
        self, what: str, shown: Sequence[str], command: Sequence[str] | None = None, *, input: bytes = b""
    ) -> None:
        """Run ``command``, or ``shown``, which is what the log gets, where there is none.

        Raises BuildError with the first error that it prints, MachineError where the program is missing.
        """
        began = self._stream.tell()
        self._stream.write(f"# {what}: {' '.join(shown)}\n".encode())
        self._tell(what)

        def heard(line: bytes) -> None:
            self._stream.write(line)
            self._objects += build_log.is_object(line.decode("latin-1"))
            if time.monotonic() - self._told > _OFTEN:
                self._tell(what)

        status = follow(shown if command is None else command, heard, input=input)
        self._stream.flush()
        if status != 0:
            raise self._failed(what, status, began)

    def done(self) -> None:
        """Log how long the build took."""
        log.info("%s: built in %.0f s, %d files", self._name, self.seconds, self._objects)

    def _tell(self, what: str) -> None:
        self._told = time.monotonic()
        minutes, seconds = divmod(int(self.seconds), 60)
        far = f"{self._name}: {what}, {self._objects} files, {minutes}:{seconds:02}"
        log.info("%s", far, extra={"passing": True})

    def _failed(self, what: str, status: int, began: int) -> BuildError:
        # Without the line that says what was run.
        said = Path(self._stream.name).read_bytes()[began:].partition(b"\n")[2].decode(errors="replace")
        if said.startswith(("unshare: ", "mount: ")):
            raise MachineError(
                "a build needs mounts of its own, which this machine does not let it have", said.strip()
            )
        return CommandFailed(
            f"{self._name} does not build: {what}: {ended(self._program, status)}",
            status=status,
            hint="\n  ".join(build_log.first_error(said)),
        )


@contextlib.contextmanager
def one_at_a_time(name: str, lock: str) -> Iterator[None]:
    """Hold the cache's lock ``lock``; wait, and say so, while another process builds ``name``."""
    with store.locked_if_free(lock) as ours:
        if ours:
            yield
            return
    log.info("another process is building %s; waiting for it", name)
    with store.locked(lock):
        yield


def tools() -> str:
    """Return the versions of the machine's compiler and linker, a line each.

    The linker stands for the assembler too. Raises MachineError where one is missing.
    """
    programs = [shutil.which(name, path=recipe.PATH) or missing_program(name) for name in ("gcc", "ld")]
    abouts = [(place, os.stat(place)) for place in programs]
    return store.remembered(
        "build-tools",
        [f"{place} {it.st_ino} {it.st_size} {it.st_mtime_ns}".encode() for place, it in abouts],
        lambda: "\n".join(run([place, "--version"]).stdout.decode().splitlines()[0] for place in programs),
    )


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))
