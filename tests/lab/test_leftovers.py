"""Nothing is left behind, however a lab ends. Each lab runs in a box, where whatever is left can be seen.

LVSLAB_KILL_ROUNDS says how many times each way of ending a lab is tried (default 1), and LVSLAB_KILL_SEED
chooses the moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab import paths

if TYPE_CHECKING:
    from tests.lab.conftest import Box, BoxedCommand, Ended, Runner

NAME = "t-left"
ROUNDS = int(os.environ.get("LVSLAB_KILL_ROUNDS", "1"))
SEED = int(os.environ.get("LVSLAB_KILL_SEED", secrets.randbits(32)))


@dataclass(frozen=True)
class Undisturbed:
    """A ``lab.up`` and ``lab.down`` that nobody disturbed: seconds, and what was left."""

    seconds: float
    left: list[str]


class Finished(Exception):
    """The command has ended before it could be disturbed."""


def up(box: Box, **environment: str) -> BoxedCommand:
    return box.start("lab.up", "--name", NAME, "--json", env=environment)


def down(box: Box) -> None:
    ended = box.start("lab.down", "--name", NAME).end()
    assert ended.status == 0, ended.stderr


@pytest.fixture(scope="module")
def undisturbed(run: Runner) -> Undisturbed:
    with run.box() as box:
        command = up(box)
        ended = command.end()
        assert ended.status == 0, ended.stderr
        seconds = command.seconds
        assert any("qemu" in line for line in box.leftovers()), "a lab is up, and the box does not show it"
        down(box)
        # At once, but for unshare, which hears last of the lab's end.
        return Undisturbed(seconds, box.remaining(1.0))


# --- who is who in a command's family, without names ------------------------------------------------------


def namespace(pid: int, which: str) -> str:
    """A namespace of a process; "" where the process has gone."""
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/{which}")
    return ""


def unshares(command: BoxedCommand) -> Iterator[int]:
    """Children of the command whose own children live in another PID namespace."""
    for pid in command.children():
        theirs = namespace(pid, "pid_for_children")
        if theirs and theirs != namespace(pid, "pid"):
            yield pid


def first_processes(command: BoxedCommand) -> Iterator[int]:
    """Process 1 of the lab."""
    for unshare in unshares(command):
        yield from command.children(unshare)[:1]


def supervisors(command: BoxedCommand) -> Iterator[int]:
    """The first child of process 1; later ones are orphans that it has adopted."""
    for first in first_processes(command):
        yield from command.children(first)[:1]


def killed(who: Callable[[BoxedCommand], Iterator[int]]) -> Callable[[BoxedCommand, Runner], None]:
    """A way to disturb a command: SIGKILL for a process of its family, as soon as that exists."""

    def kill(command: BoxedCommand, run: Runner) -> None:
        found = run.wait_until(
            lambda: next(who(command), None) or not command.running, 60, "the process to be killed"
        )
        if found is True:
            raise Finished
        with contextlib.suppress(ProcessLookupError):
            os.kill(found, signal.SIGKILL)

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


def try_rounds(run: Runner, way: str, seconds: float, *, cold: bool = False) -> None:
    """Disturb ROUNDS labs at moments of their first ``seconds``, each in a box of its own; tell of all that
    went wrong. A ``cold`` cache has packages and nothing that is made of them."""
    end, statuses = WAYS[way]
    chance, problems = random.Random(f"{SEED} {way} {cold}"), list[str]()
    for _ in range(ROUNDS):
        moment = chance.uniform(0, seconds)
        about = f"LVSLAB_KILL_SEED={SEED}, {way} at {moment:.3f} s"
        with run.box() as box:
            try:
                command = up_cold(box) if cold else up(box)
                if not command.ends_before(moment):
                    with contextlib.suppress(Finished):
                        end(command, run)
                print(f"{about}: {settle(box, command.end(15), statuses)}", flush=True)
            except (AssertionError, pytest.fail.Exception) as problem:
                print(f"{about}: {problem}", flush=True)
                problems.append(f"{about}: {problem}")
    assert not problems, "\n".join([f"{len(problems)} of {ROUNDS} went wrong", *problems])


def up_cold(box: Box) -> BoxedCommand:
    box.inside(box.CACHE).mkdir()
    (box.inside(box.CACHE) / "packages").symlink_to(paths.cache() / "packages")
    return up(box, LVSLAB_CACHE=box.CACHE)


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


def test_down_leaves_nothing(undisturbed: Undisturbed) -> None:
    assert undisturbed.left == []


@pytest.mark.parametrize("way", WAYS)
def test_an_end_on_the_way_up_leaves_nothing(run: Runner, undisturbed: Undisturbed, way: str) -> None:
    print(f"an undisturbed lab.up took {undisturbed.seconds:.1f} s")
    try_rounds(run, way, undisturbed.seconds)


@pytest.mark.parametrize("way", ["unshare killed", "process 1 killed", "supervisor killed"])
def test_an_end_at_birth_leaves_nothing(box: Box, run: Runner, way: str) -> None:
    """Killed as soon as it exists, before it has read what it is to boot."""
    end, statuses = WAYS[way]
    command = up(box)
    end(command, run)
    assert settle(box, command.end(15), statuses) == "ended with 4"


def test_an_end_with_a_cold_cache_leaves_nothing(run: Runner, undisturbed: Undisturbed) -> None:
    """The same while kernel, image and servers are made: half of a file is never in the cache."""
    try_rounds(run, "command killed", undisturbed.seconds / 2, cold=True)


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="needs a /dev/kvm to try")
def test_an_end_while_kvm_is_tried_leaves_nothing(box: Box, run: Runner) -> None:
    """The supervisor is killed while it has the probe's files."""
    cache = box.inside(box.CACHE)
    cache.mkdir()
    for entry in paths.cache().iterdir():
        if entry.name != "kvm.json":
            (cache / entry.name).symlink_to(entry)

    def trying(command: BoxedCommand) -> Iterator[int]:
        for supervisor in supervisors(command):
            for child in command.children(supervisor):
                with contextlib.suppress(OSError):
                    if b"\0-accel\0kvm\0" in Path(f"/proc/{child}/cmdline").read_bytes():
                        yield supervisor

    command = up(box, LVSLAB_CACHE=box.CACHE)
    killed(trying)(command, run)
    ended = command.end(15)
    assert ended.status == 4, f"the probe was missed: {ended.stderr}"
    box.await_empty()


def test_the_next_up_works(box: Box, run: Runner, undisturbed: Undisturbed) -> None:
    """After a lab of the same name was killed on its way, of which nothing was waited for but the error."""
    command = up(box)
    assert not command.ends_before(undisturbed.seconds / 3)
    WAYS["supervisor killed"][0](command, run)
    assert command.end(15).status == 4
    ended = up(box).end()
    assert ended.status == 0, ended.stderr
    assert json.loads(ended.stdout)["distribution"]["real-server-2"] == {"expected": 8, "observed": 8}
    down(box)
    box.await_empty(1.0)
