"""What the tests of real labs share: ``./run`` as a user calls it, a terminal to call it from, and a box to
look for leftovers in."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import secrets
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pytest

from lvslab import paths
from lvslab.boot import control
from lvslab.boot.services import bundles
from lvslab.check.pytest_plugin.pool import Spares
from lvslab.errors import LvsLabError
from lvslab.guest import image
from lvslab.kernel import find
from lvslab.lab.model import SERVICES
from lvslab.paths import PROJECT

RUN = PROJECT / "run"
PATIENCE = 180.0
"""Seconds after which any single command is taken to hang."""

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Return what ``condition`` returns as soon as that is true; fail the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


def children(pid: int) -> list[int]:
    """The process ids of the children of all threads of ``pid``, oldest first; none where it has gone."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_text().split())
    return sorted(found)


@dataclass(frozen=True)
class Runner:
    """Calls ``./run`` with ``environment``."""

    environment: Mapping[str, str]
    wait_until = staticmethod(wait_until)
    children = staticmethod(children)

    def __call__(
        self,
        *arguments: str,
        status: int | None = 0,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        before: tuple[str, ...] = (),
        program: tuple[str, ...] = (str(RUN),),
        seconds: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, behind the words of ``before``; it must end with ``status`` (None: with
        any) within ``seconds`` and without a traceback. ``env`` is added to the environment; ``program`` is
        what is run."""
        done = subprocess.run(
            [*before, *program, *arguments],
            env={**self.environment, **(env or {})},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
        )
        told = f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert status in (None, done.returncode), told
        assert "Traceback" not in done.stderr, told
        return done

    def execute(self, name: str, node: str, command: str, *, status: int | None = 0) -> str:
        """What ``lab.exec`` prints of ``command`` on stdout, without the last line's end."""
        done = self("lab.exec", node, "--name", name, "--command", command, status=status)
        return done.stdout.rstrip("\n")

    def box(self, kept: Path | None = None) -> Box:
        """A box of one's own; what is in the folder ``kept`` outlives it."""
        return Box(self.environment, kept)

    def terminal(self, *arguments: str) -> Terminal:
        """``./run`` with ``arguments`` in a terminal of its own."""
        return Terminal([str(RUN), *arguments], self.environment)


class Terminal:
    """A program on a pseudo terminal, and the user in front of it."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._user, self._theirs = pty.openpty()
        self.settings = termios.tcgetattr(self._theirs)
        self.screen = ""
        self._process = subprocess.Popen(
            # The terminal becomes the controlling one, so that keys make signals.
            ["setsid", "--ctty", *command],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**environment, "TERM": "xterm"},
            cwd=PROJECT,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._user)
        os.close(self._theirs)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._user, text.encode())

    def expect(self, pattern: str, seconds: float = 20.0) -> None:
        """Return when ``pattern`` is on the screen, after what was expected before; else fail."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen)):
            self._read(deadline, f"{pattern!r} did not come")
        self.screen = self.screen[found.end() :]

    def status(self, seconds: float = 20.0) -> int:
        """The exit status of the program, which must end within ``seconds``."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the program does not end; on the screen: {self.screen!r}")

    @property
    def restored(self) -> bool:
        """Whether the terminal is set as it was at first."""
        return termios.tcgetattr(self._theirs) == self.settings

    def _read(self, deadline: float, what: str) -> None:
        if not select.select([self._user], [], [], max(0.0, deadline - time.monotonic()))[0]:
            pytest.fail(f"{what}; on the screen: {self.screen!r}")
        self.screen += os.read(self._user, 4096).decode(errors="replace")


_BOX = r"""
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 box /dev/shm
mkdir -p /dev/shm/.box/kept
[ -z "$3" ] || mount --bind "$3" /dev/shm/.box/kept
for folder in /tmp /var/tmp /run; do
    layers=/dev/shm/.box$folder
    mkdir -p $layers/upper $layers/work
    chmod 1777 $layers/upper
    mount -t overlay -o lowerdir=$folder,upperdir=$layers/upper,workdir=$layers/work box $folder
done
ip link set lo up
exec "$1" -P -c "$2"
"""
# Process 1 of a box: the kernel reaps whoever ends below it, and all ends with its standard input.
_FIRST = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()
"""


def inode(path: Path) -> int:
    """Its inode, 0 where it has just gone."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def locked_inodes() -> set[int]:
    """The inodes of all files and folders that somebody on this machine holds a lock on."""
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return {int(row[-3].rpartition(":")[2]) for row in rows if "->" not in row}


class Box:
    """A machine in the machine, for one lab at a time: whatever is in it that was not there at first is of
    that lab.

    It has PID, mount and network namespaces of its own, so that nothing that others do on this machine
    disturbs, and its folders for temporary files show what was added to them. It ends, with all that is in
    it, with its context or with the process that made it. ``commands`` are those that were started in it.
    """

    EVIDENCE = "/tmp/evidence"
    CACHE = "/tmp/cache"
    KEPT = "/dev/shm/.box/kept"

    def __init__(self, environment: Mapping[str, str], kept: Path | None = None) -> None:
        self.environment = {**environment, "LVSLAB_STATE": self.EVIDENCE}
        self.commands: list[BoxedCommand] = []
        self._process = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"),
                *("--propagation", "private", "--", "sh", "-euc", _BOX, "box", sys.executable, _FIRST),
                str(kept or ""),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the box could not be made"
        (self._first,) = children(self._process.pid)
        self.root = Path(f"/proc/{self._first}/root")
        self._before = {line for kind in (self._mounts, self._interfaces) for line in kind()}
        self._hidden = set(self._hidden_in_cache())

    def __enter__(self) -> Box:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        for command in self.commands:
            command.close()

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, program: str = str(RUN)
    ) -> BoxedCommand:
        """Start ``./run`` (or another ``program``) in the box."""
        enter = ["nsenter", "--target", str(self._first), "--net", "--mount", "--pid", f"--wd={PROJECT}"]
        # A session of its own: a signal for its process group is what Ctrl-C in a terminal makes. A child of
        # a pytest in the background would else ignore it.
        words = [*enter, "setsid", "env", "--default-signal=INT", program, *arguments]
        asked = " ".join([Path(program).name, *arguments])
        self.commands.append(BoxedCommand(asked, words, {**self.environment, **(env or {})}))
        return self.commands[-1]

    def leftovers(self) -> list[str]:
        """What is in the box that was not there when it was made, a line each."""
        now = [*self._mounts(), *self._interfaces()]
        return [
            *self._processes(),
            *(line for line in now if line not in self._before),
            *self._files(),
            *(line for line in self._hidden_in_cache() if line not in self._hidden),
            *self._sockets(),
        ]

    def remaining(self, seconds: float) -> list[str]:
        """What is left when ``seconds`` have passed; returns at once when that is nothing."""
        deadline = time.monotonic() + seconds
        while (left := self.leftovers()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def await_empty(self, seconds: float = 5.0) -> None:
        """Return when nothing is left; fail the test, saying what is, after ``seconds``."""
        if left := self.remaining(seconds):
            pytest.fail(f"left behind, after {seconds:g} s:\n  " + "\n  ".join(left))

    def evidence(self) -> str:
        """What is in the logs of all labs of this box, the first one's first."""
        told = []
        for log in sorted(self.inside(self.EVIDENCE).glob("runs/*/*.log")):
            told.append(f"--- {log.parent.name}/{log.name}\n{log.read_text(errors='replace')}")
        return "\n".join(told)

    def expect_mount(self, place: str) -> None:
        """Take what is mounted at ``place`` for part of the box."""
        here = [line for line in self._mounts() if line.split()[5] == place]
        assert here, f"nothing is mounted at {place}"
        self._before.update(here)

    def inside(self, path: str) -> Path:
        """How ``path`` in the box is reached from outside."""
        return self.root / path.lstrip("/")

    def _processes(self) -> Iterator[str]:
        for folder in (self.root / "proc").iterdir():
            if folder.name.isdecimal() and folder.name != "1":
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield f"process {folder.name}: {words or (folder / 'stat').read_text()}"

    def _mounts(self) -> Iterator[str]:
        for line in Path(f"/proc/{self._first}/mountinfo").read_text().splitlines():
            yield f"mount {line}"

    def _interfaces(self) -> Iterator[str]:
        for line in Path(f"/proc/{self._first}/net/dev").read_text().splitlines()[2:]:
            yield f"interface {line.split(':')[0].strip()}"

    def _files(self) -> Iterator[str]:
        shared = self.root / "dev/shm"
        yield from (f"file /dev/shm/{path.name}" for path in shared.iterdir() if path.name != ".box")
        for folder in ("tmp", "var/tmp", "run"):
            upper = shared / ".box" / folder / "upper"
            for path in upper.iterdir():
                if f"/{folder}/{path.name}" not in (self.EVIDENCE, self.CACHE):
                    yield f"file /{folder}/{path.name}"

    def _hidden_in_cache(self) -> Iterator[str]:
        for cache in (self.inside(self.CACHE), self.inside(self.KEPT), paths.cache()):
            hidden = [
                path
                for path in cache.rglob("*")
                if path.name.startswith(".") or (path.parent.name == "partial" and path.name != "lock")
            ]
            # What is in a folder that somebody fills is of another test, at the same time.
            locked = locked_inodes() if hidden else set()
            for path in hidden:
                inside = path.relative_to(cache)
                if not any(inode(cache / place) in locked for place in (inside, *inside.parents[:-1])):
                    yield f"temporary file in the cache: {inside}"

    def _sockets(self) -> Iterator[str]:
        # State 01 (SS_UNCONNECTED): it holds the name. A connection to it has the name too, and outlasts
        # its client by a moment.
        for line in Path(f"/proc/{self._first}/net/unix").read_text().splitlines()[1:]:
            if "@lvslab/" in line and line.split()[5] == "01":
                yield f"socket {line.split()[-1]}"


@dataclass
class Ended:
    """How a command in a box ended. ``status`` is negative where a signal did it."""

    status: int
    stdout: str
    stderr: str


class BoxedCommand:
    """A command that runs in a box: ``words`` are what was asked for. ``pid`` is its process id outside, 0
    where it ended at once.
    """

    def __init__(self, words: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.words = words
        self.started = time.monotonic()
        self._ended: Ended | None = None
        self._entrance = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # nsenter forks into the PID namespace, and ends as its child does. That may have been quick.
        self.pid = 0
        if wait_until(lambda: children(self._entrance.pid) or not self.running, 5, "the command starts"):
            self.pid = next(iter(children(self._entrance.pid)), 0)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._entrance.poll() is None

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self.started

    def ends_before(self, moment: float) -> bool:
        """Wait until ``moment`` seconds after its start, or its end; whether that came first."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._entrance.wait(max(0.0, moment - self.seconds))
            return True
        return False

    def children(self, pid: int | None = None) -> list[int]:
        """The children of one of its processes, else of the command itself."""
        return children(self.pid if pid is None else pid)

    def await_line(self, line: str) -> None:
        """Return when it has printed ``line``, before anything else."""
        assert self._entrance.stdout is not None
        assert self._entrance.stdout.readline() == f"{line}\n"

    def end(self, seconds: float = PATIENCE) -> Ended:
        """How it ended, which it must do within ``seconds``."""
        if self._ended is None:
            try:
                stdout, stderr = self._entrance.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                pytest.fail(f"the command does not end within {seconds:g} s")
            self._ended = Ended(self._entrance.returncode, stdout, stderr)
        return self._ended

    def close(self) -> None:
        """Wait for the end of a command whose box has ended."""
        try:
            self.end(5)
        finally:
            if self._ended is None:
                self._entrance.kill()
                self._entrance.communicate()


@dataclass
class Names:
    """Names for labs that nobody else uses; ends those that are up under them."""

    run: Runner
    given: list[str] = field(default_factory=list)

    def __call__(self) -> str:
        self.given.append(f"t-{secrets.token_hex(4)}")
        return self.given[-1]

    def end(self) -> None:
        """End the labs that were left up, on purpose or because a test failed."""
        for name in self.given:
            if name in control.running():
                self.run("lab.down", "--name", name, status=None)


@pytest.fixture(scope="session")
def machine() -> None:
    """Skips where this machine cannot run labs; else has all that labs are made of in the cache."""
    if os.geteuid() != 0:
        pytest.skip("labs need root")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("labs need /dev/net/tun")
    for program in ("qemu-system-x86_64", "mnexec", "unshare", "nsenter", "dropbear"):
        if not shutil.which(program):
            pytest.skip(f"labs need {program}")
    try:
        image.build(find.find("debian-cloud"))
        # Few machines have SCTP; the tests of it say so themselves.
        bundles.bundles(set(SERVICES) - {"sctp"})
    except LvsLabError as lacking:
        pytest.skip(f"what labs are made of is not available: {lacking}")
    if subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("labs need namespaces, which this machine does not allow")


@pytest.fixture(scope="module")
def spares(machine: None) -> Iterator[Spares]:
    """Labs, of which the next ones come up while one is checked."""
    spares = Spares()
    yield spares
    spares.close()


@pytest.fixture(scope="session")
def run(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """``./run``, with evidence apart from the user's: only so many runs' evidence is kept."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LVSLAB_DEBUG")}
    return Runner({**environment, "LVSLAB_STATE": str(tmp_path_factory.mktemp("state"))})


@pytest.fixture
def names(run: Runner) -> Iterator[Names]:
    """Makes names for labs of one test."""
    names = Names(run)
    yield names
    names.end()


@pytest.fixture(scope="module")
def module_names(run: Runner) -> Iterator[Names]:
    """Makes names for labs of one module."""
    names = Names(run)
    yield names
    names.end()


@pytest.fixture
def box(run: Runner) -> Iterator[Box]:
    """A box for one test."""
    with run.box() as box:
        yield box
