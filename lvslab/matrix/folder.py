"""Folder of a run, which keeps each result, however the run ends.

``results.json`` is the present state of the `Run`. ``cells/KEY/`` has a cell's evidence, and its result in
``result.json``. Such a folder appears complete or not at all; when a run is resumed, these folders count.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from lvslab import paths
from lvslab.cache import folders, store
from lvslab.errors import StateError, UsageError
from lvslab.matrix import reading
from lvslab.matrix.evidence import unpack
from lvslab.matrix.results import RESULTS, Result, Run

CELLS = "cells"
RESULT = "result.json"
LATEST = "latest"
WORKERS = ".workers"
"""Subfolder for files of the worker processes on this machine."""
_PART = ".part-"
"""Prefix of the names of incomplete files and folders."""
_EARLIER = 5
"""Number of earlier runs from which durations are estimated."""


class RunFolder:
    """The folder ``path`` of ``run``, locked against other writers."""

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run

    def keep(self, result: Result, evidence: bytes) -> None:
        """Write the result of a cell and its evidence, unless there is a result already."""
        if any(result.cell == there.cell for there in self.run.results):
            return
        result = result.model_copy(update={"evidence": f"{CELLS}/{result.cell.key}"})
        place = self.path / result.evidence
        place.parent.mkdir(exist_ok=True)
        hidden = Path(tempfile.mkdtemp(dir=place.parent, prefix=_PART))
        hidden.chmod(0o755)
        if evidence:
            unpack(evidence, hidden)
        _write(hidden / RESULT, result)
        hidden.rename(place)
        self._rewrite(results=_in_order(self.run, (*self.run.results, result)))

    @property
    def complete(self) -> bool:
        """True if the run has ended, with a result for each cell."""
        return bool(self.run.ended) and len(self.run.results) == len(self.run.cells)

    def end(self) -> None:
        """Record the end of the run. A run that was complete before keeps its time."""
        if not self.complete:
            self._rewrite(ended=now())

    def _rewrite(self, **changes: object) -> None:
        self.run = self.run.model_copy(update=changes)
        _write(self.path / RESULTS, self.run)


@contextlib.contextmanager
def begun(path: Path | None, run: Run) -> Iterator[RunFolder]:
    """Make a folder for ``run``: ``path``, or a new one beside those of other runs.

    Raises UsageError if ``path`` is not empty.
    """
    if path is None:
        path = _new()
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        there = (path / RESULTS).exists()
        hint = f"{resume_command(path)} goes on with the run there" if there else ""
        raise UsageError(f"{path} is not an empty folder", hint)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as refused:
        message = f"{path} cannot be made: {refused.strerror}"
        raise UsageError(message, "--output takes a new folder") from None
    with _held(path):
        folder = RunFolder(path.resolve(), run)
        folder._rewrite()
        yield folder


@contextlib.contextmanager
def resumed(word: str) -> Iterator[RunFolder]:
    """Open the folder that ``word`` stands for, to continue the run in it.

    Raises UsageError if there is no run, StateError if it is still running.
    """
    path = place(word)
    with _held(path):
        run = read(path)
        for part in (path / WORKERS, *path.glob(f"{_PART}*"), *(path / CELLS).glob(f"{_PART}*")):
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        folder = RunFolder(path.resolve(), run)
        if not folder.complete:
            folder._rewrite(ended="")
        yield folder


def place(word: str) -> Path:
    """Folder that ``word`` stands for: that of the last run for "latest". Raises UsageError."""
    if word != LATEST:
        return Path(word)
    if not (found := _all_runs()):
        raise UsageError(f"there is no run in {_runs()} to go on with")
    return found[-1]


def read(path: Path) -> Run:
    """Read the run in the folder ``path``, with all results in its subfolders. Raises UsageError."""
    run = reading.read(path).run
    files = sorted((path / CELLS).glob(f"[!.]*/{RESULT}"))
    try:
        found = [Result.model_validate_json(file.read_bytes()) for file in files]
    except ValidationError as error:
        why = reading.first_error(error)
        raise UsageError(f"{path / CELLS} has a result that cannot be read: {why}") from None
    return run.model_copy(update={"results": _in_order(run, found)})


def earlier(path: Path) -> list[Run]:
    """Last runs other than the one in ``path``, the latest at the end."""
    found = []
    for folder in [folder for folder in _all_runs() if folder.resolve() != path][-_EARLIER:]:
        with contextlib.suppress(UsageError):  # of another version of lvslab
            found.append(read(folder))
    return found


def resume_command(path: Path) -> str:
    """Command line that continues the run in the folder ``path``."""
    return shlex.join(("./run", "matrix.run", "--resume", str(path)))


def now() -> str:
    """Present time in ISO 8601, with the zone."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _runs() -> Path:
    return paths.state() / "matrices"


def _all_runs() -> list[Path]:
    """Folders of all runs, the latest at the end."""
    files = sorted(_runs().glob(f"*/{RESULTS}"), key=lambda file: file.stat().st_mtime_ns)
    return [file.parent for file in files]


def _new() -> Path:
    base = _runs() / time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        path = base.with_name(f"{base.name}-{number}") if number else base
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise StateError(f"there are a thousand runs in {_runs()} that began in this second")


def _in_order(run: Run, results: Iterable[Result]) -> tuple[Result, ...]:
    """Sort the ``results`` of ``run`` by its cells; leave others out."""
    found = {result.cell: result for result in results}
    return tuple(found[cell] for cell in dict.fromkeys(run.cells) if cell in found)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Lock the folder against other writers. The kernel releases the lock, however the process ends."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(folders.held(path))
        except BlockingIOError:
            raise StateError(f"a run is writing to {path} at the moment", "wait for its end") from None
        except OSError as error:
            raise UsageError(f"{path} is not the folder of a run: {error.strerror}") from None
        yield


def _write(path: Path, data: Result | Run) -> None:
    """Replace the content of ``path`` by ``data`` atomically."""
    text = data.model_dump_json(indent=1) + "\n"
    store.write(path.with_name(_PART + path.name), text.encode()).replace(path)
