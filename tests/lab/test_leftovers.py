"""Nothing is left behind, however a lab ends, and no memory snapshot is ever wrong. Each lab runs in a box,
where whatever is left can be seen.

LVSLAB_KILL_ROUNDS says how many labs are ended on their way up while their director resumes, and as many
while it boots (default 5 and 5: each way to end a lab once); for every five, two more are ended while a
snapshot is made. LVSLAB_KILL_SEED chooses the moments. 50 and 50::

    LVSLAB_KILL_ROUNDS=50 .venv/bin/python -P -m pytest --slow tests/lab/test_leftovers.py -s
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab import paths

if TYPE_CHECKING:
    from tests.lab.conftest import Box, BoxedCommand, Ended, Runner

NAME = "t-left"
ROUNDS = int(os.environ.get("LVSLAB_KILL_ROUNDS", "5"))
SEED = int(os.environ.get("LVSLAB_KILL_SEED", secrets.randbits(32)))


@dataclass(frozen=True)
class Undisturbed:
    """A ``lab.up`` that nobody disturbed: seconds that it took; those until it began to make a snapshot and
    until that was there; and what was left after ``lab.down``.
    """

    seconds: float
    saving: tuple[float, float]
    left: list[str]


class Finished(Exception):
    """The command has ended before it could be disturbed."""


def up(box: Box, *options: str, cache: str = "") -> BoxedCommand:
    words = ("lab.up", "--name", NAME, "--json", *options)
    return box.start(*words, env={"LVSLAB_CACHE": cache or box.KEPT})


def down(box: Box) -> None:
    ended = box.start("lab.down", "--name", NAME).end()
    assert ended.status == 0, ended.stderr


@pytest.fixture(scope="module")
def kept(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this module's own, for all its boxes, in which all is there but snapshots."""
    folder = tmp_path_factory.mktemp("cache")
    for name in ("images", "kernels", "keys", "packages", "servers"):
        (folder / name).symlink_to(paths.cache() / name)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(paths.cache() / "kvm.json", folder)
    return folder


@pytest.fixture
def box(run: Runner, kept: Path) -> Iterator[Box]:
    """A box for one test."""
    with run.box(kept) as box:
        yield box


def without_snapshots(kept: Path) -> None:
    shutil.rmtree(kept / "snapshots", ignore_errors=True)


def measured(run: Runner, kept: Path) -> Undisturbed:
    """A lab of which nothing is left after it was up; with a box that shows it while it is."""
    with run.box(kept) as box:
        command = up(box)
        began = ended = 0.0
        if not (kept / "snapshots").exists():
            run.wait_until(lambda: saving(command), 60, "a snapshot is made")
            began = command.seconds
            run.wait_until(lambda: any(kept.glob("snapshots/*/manifest.json")), 60, "the snapshot is there")
            ended = command.seconds
        how = command.end()
        assert how.status == 0, how.stderr
        seconds = command.seconds
        assert any("qemu" in line for line in box.leftovers()), "a lab is up, and the box does not show it"
        down(box)
        # At once, but for unshare, which hears last of the lab's end.
        return Undisturbed(seconds, (began, ended), box.remaining(1.0))


@pytest.fixture(scope="module")
def booting(run: Runner, kept: Path) -> Undisturbed:
    """A lab whose director was booted, and a snapshot made of it."""
    without_snapshots(kept)
    return measured(run, kept)


@pytest.fixture(scope="module")
def resuming(run: Runner, kept: Path, booting: Undisturbed) -> Undisturbed:
    """A lab whose director was resumed."""
    return measured(run, kept)


# --- who is who in a command's family, without names ------------------------------------------------------


def namespace(pid: int, which: str) -> str:
    """A namespace of a process; "" where the process has gone."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/{which}")
    return ""


def unshares(command: BoxedCommand) -> Iterator[int]:
    """Children of the command whose own children live in another PID namespace."""
    for pid in command.children():
        own, theirs = namespace(pid, "pid"), namespace(pid, "pid_for_children")
        if own and theirs and own != theirs:  # "" where it has gone meanwhile
            yield pid


def first_processes(command: BoxedCommand) -> Iterator[int]:
    """Process 1 of the lab."""
    for unshare in unshares(command):
        yield from command.children(unshare)[:1]


def supervisors(command: BoxedCommand) -> Iterator[int]:
    """The first child of process 1; later ones are orphans that it has adopted."""
    for first in first_processes(command):
        yield from command.children(first)[:1]


def saving(command: BoxedCommand) -> bool:
    """Whether the lab is writing the state of a director, or has done so and keeps it as a snapshot now."""
    for supervisor in supervisors(command):
        # In the lab's own /run.
        return any(Path(f"/proc/{supervisor}/root/run/lvslab/memory").glob("*.state"))
    return False


def killed(who: Callable[[BoxedCommand], Iterator[int]]) -> Callable[[BoxedCommand, Runner], None]:
    """A way to disturb a command: SIGKILL for a process of its family, as soon as that exists."""

    def kill(command: BoxedCommand, run: Runner) -> None:
        done = []

        def attempt() -> bool:
            for pid in who(command):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    done.append(pid)
                    break
            return bool(done) or not command.running

        run.wait_until(attempt, 60, "the process to be killed")
        if not done:
            raise Finished

    return kill


def interrupt(command: BoxedCommand, run: Runner) -> None:
    """What Ctrl-C does: SIGINT for the command and all in its process group."""
    try:
        os.killpg(command.pid, signal.SIGINT)
    except ProcessLookupError:  # it has only just been forked
        os.kill(command.pid, signal.SIGINT)


WAYS: dict[str, tuple[Callable[[BoxedCommand, Runner], None], tuple[int, ...]]] = {
    # -SIGINT: while ./run is still a shell script.
    "Ctrl-C": (interrupt, (130, -signal.SIGINT)),
    "command killed": (killed(lambda command: iter([command.pid])), (-signal.SIGKILL,)),
    "unshare killed": (killed(unshares), (4,)),
    "process 1 killed": (killed(first_processes), (4,)),
    "supervisor killed": (killed(supervisors), (4,)),
}
"""Ways to end a lab on its way up, and the statuses with which ``lab.up`` may end then."""


def settle(box: Box, ended: Ended, statuses: tuple[int, ...]) -> str:
    """The command must have ended well or with one of ``statuses``, and nothing may be left. Says which."""
    if ended.stderr.endswith("KeyboardInterrupt\n") and "/lvslab/" not in ended.stderr:
        # Python itself was starting, and cannot be kept from saying so.
        box.await_empty(1.0)
        return "was not yet ours"
    assert "Traceback" not in ended.stderr, ended.stderr
    if ended.status == 0:
        down(box)
        box.await_empty(1.0)
        return "was up already"
    assert ended.status in statuses, f"status {ended.status}\n{ended.stderr}"
    if ended.status == 4:
        assert ended.stderr.count("error: ") == 1, ended.stderr
    if ended.status == -signal.SIGKILL and box.remaining(5.0):
        # The command may have been killed when it had let go of the lab, and only the words were missing.
        status = box.start("lab.status", "--name", NAME, "--json").end()
        if status.status == 0 and "phases" in json.loads(status.stdout):
            down(box)
            box.await_empty(1.0)
            return "was up already, but had not said so"
    box.await_empty(5.0)
    return f"ended with {ended.status}"


class Unhappy(AssertionError):
    """A round that went wrong, with all that is known of it: what it was about goes with its box."""

    def __init__(self, problem: BaseException, box: Box) -> None:
        told = [str(problem), "--- left behind", *box.leftovers()]
        for command in box.commands:
            # What a command that hangs has said is known only when it has ended.
            if (still := command.running) and command.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(command.pid, signal.SIGKILL)
            ended = command.end(5)
            how = "still ran" if still else f"ended with {ended.status}"
            told += [f"--- {command.words}: {how}", ended.stdout, ended.stderr]
        super().__init__("\n".join([*told, box.evidence()]))


def snapshots(box: Box) -> list[str]:
    """The keys of the snapshots that lvslab believes in."""
    ended = box.start("snapshot.list", "--json", env={"LVSLAB_CACHE": box.KEPT}).end()
    assert ended.status == 0, ended.stderr
    return [row["key"] for row in json.loads(ended.stdout)]


def next_one(box: Box) -> None:
    """The next lab comes up and balances, and nothing is left of it. It has one director, so there is one
    snapshot at most, and if there is one it is resumed."""
    before = snapshots(box)
    ended = up(box).end()
    assert ended.status == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["distribution"]["real-server-2"] == {"expected": 8, "observed": 8}
    way = ("booted, and a memory snapshot made", "resumed from a memory snapshot")[len(before)]
    assert f"director: {way}" in ended.stderr, f"there were {before}, and lab.up said:\n{ended.stderr}"
    assert len(snapshots(box)) == 1
    down(box)
    box.await_empty(1.0)


@dataclass(frozen=True)
class Rounds:
    """Labs that are disturbed on their way up, each in a box of its own: at moments of ``seconds`` from when
    one has ``begun``, which is at once unless somebody knows better. ``then`` is what must work after that.
    """

    run: Runner
    kept: Path
    kind: str
    seconds: float
    start: Callable[[Box], BoxedCommand] = up
    begun: Callable[[BoxedCommand], bool] = lambda command: True
    then: Callable[[Box], None] = next_one

    def take(self, way: str, count: int) -> None:
        """Disturb ``count`` labs, and tell of all that went wrong."""
        chance, problems = random.Random(f"{SEED} {self.kind} {way}"), list[str]()
        for number in range(count):
            moment = chance.uniform(0, self.seconds)
            about = f"LVSLAB_KILL_SEED={SEED}, {self.kind}, {way}, {number + 1} of {count}, {moment:.3f} s"
            with self.run.box(self.kept) as box:
                try:
                    print(f"{about}: {self._take(box, way, moment)}", flush=True)
                except (AssertionError, pytest.fail.Exception) as problem:
                    problems.append(f"{about}: {Unhappy(problem, box)}")
                    print(problems[-1], flush=True)
        assert not problems, "\n".join([f"{len(problems)} of {count} went wrong", *problems])

    def _take(self, box: Box, way: str, moment: float) -> str:
        end, statuses = WAYS[way]
        if self.kind != "resuming":
            without_snapshots(self.kept)
        elif not snapshots(box):
            next_one(box)  # the last round has lost it
        command = self.start(box)
        self.run.wait_until(lambda: self.begun(command) or not command.running, 60, f"{self.kind} begins")
        if not command.ends_before(command.seconds + moment):
            with contextlib.suppress(Finished):
                end(command, self.run)
        how = settle(box, command.end(15), statuses)
        if self.kind == "resuming":
            assert len(snapshots(box)) == 1, "the snapshot has gone"
        self.then(box)
        return how


def share(way: str) -> int:
    """How many of ROUNDS are for one of the ways to end a lab."""
    return sum(each == way for each in islice(cycle(WAYS), ROUNDS))


# --- the tests --------------------------------------------------------------------------------------------


def test_the_box_shows_what_is_left(run: Runner) -> None:
    script = """
        ip link add t-left type bridge
        mount -t tmpfs t-left /mnt
        for folder in /tmp /var/tmp /run /dev/shm; do touch $folder/t-left; done
        exec python3 -c 'import socket, time
s = socket.socket(socket.AF_UNIX); s.bind("\\0lvslab/t-left"); print("bound", flush=True); time.sleep(600)'
    """
    with run.box() as box:
        box.await_empty(0)
        command = box.start("-c", script, program="sh")
        command.await_line("bound")
        left = box.leftovers()
        expected = ("process", "interface t-left", "mount", "socket @lvslab/t-left")
        files = (f"file {folder}/t-left" for folder in ("/tmp", "/var/tmp", "/run", "/dev/shm"))
        for line in (*expected, *files):
            assert any(found.startswith(line) for found in left), f"{line} is not in {left}"
        assert len(left) == 8
    assert command.end().status == -signal.SIGKILL, "the box has ended, and not all that was in it"
    assert not Path("/tmp/t-left").exists()


def test_down_leaves_nothing(booting: Undisturbed, resuming: Undisturbed) -> None:
    assert booting.left == resuming.left == []
    assert 0 < booting.saving[0] < booting.saving[1] < booting.seconds
    assert resuming.saving == (0, 0), "the director was booted once more"


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_lab_ended_on_its_way_up_while_it_resumes(
    way: str, run: Runner, kept: Path, resuming: Undisturbed
) -> None:
    print(f"an undisturbed lab.up took {resuming.seconds:.1f} s")
    Rounds(run, kept, "resuming", resuming.seconds).take(way, share(way))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_lab_ended_on_its_way_up_while_it_boots(
    way: str, run: Runner, kept: Path, booting: Undisturbed
) -> None:
    print(f"an undisturbed lab.up took {booting.seconds:.1f} s")
    Rounds(run, kept, "booting", booting.seconds).take(way, share(way))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["command killed", "supervisor killed"])
def test_lab_ended_on_its_way_up_while_a_snapshot_is_made(
    way: str, run: Runner, kept: Path, booting: Undisturbed
) -> None:
    """From when the director's state is written until the snapshot should be there, and a little longer."""
    seconds = 1.2 * (booting.saving[1] - booting.saving[0])
    print(f"an undisturbed snapshot took {seconds / 1.2:.2f} s")
    Rounds(run, kept, "saving", seconds, begun=saving).take(way, max(1, ROUNDS // 5))


@pytest.mark.parametrize("way", ["unshare killed", "process 1 killed", "supervisor killed"])
def test_an_end_at_birth_leaves_nothing(box: Box, run: Runner, way: str) -> None:
    """Killed as soon as it exists, before it has read what it is to boot."""
    end, statuses = WAYS[way]
    command = up(box)
    end(command, run)
    how = settle(box, command.end(15), statuses)
    # A moment passes until unshare's child asks to be ended with it (prctl in util-linux's unshare.c). A lab
    # that outlives unshare so comes up, and is as good as any other.
    assert how == "ended with 4" or (how, way) == ("was up already", "unshare killed")


def up_unmade(box: Box) -> BoxedCommand:
    """``lab.up`` with a cache that has packages, and nothing that is made of them."""
    box.inside(box.CACHE).mkdir()
    (box.inside(box.CACHE) / "packages").symlink_to(paths.cache() / "packages")
    return up(box, cache=box.CACHE)


def test_an_end_with_a_cold_cache_leaves_nothing(run: Runner, kept: Path, resuming: Undisturbed) -> None:
    """The same while kernel, image and servers are made: half of a file is never in the cache."""
    rounds = Rounds(run, kept, "making", resuming.seconds, start=up_unmade, then=lambda box: None)
    rounds.take("command killed", max(1, ROUNDS // 5))


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs a /dev/kvm to try")
def test_an_end_while_kvm_is_tried_leaves_nothing(box: Box, run: Runner, kept: Path) -> None:
    """The supervisor is killed while it has the probe's files."""
    cache = box.inside(box.CACHE)
    cache.mkdir()
    for entry in kept.iterdir():
        if entry.name != "kvm.json":
            (cache / entry.name).symlink_to(f"{box.KEPT}/{entry.name}")

    def trying(command: BoxedCommand) -> Iterator[int]:
        for supervisor in supervisors(command):
            for child in command.children(supervisor):
                with contextlib.suppress(OSError):
                    if b"\0-accel\0kvm\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                        yield supervisor

    command = up(box, cache=box.CACHE)
    killed(trying)(command, run)
    ended = command.end(15)
    assert ended.status == 4, f"the probe was missed: {ended.stderr}"
    box.await_empty()
