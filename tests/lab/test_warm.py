"""Directors that resume from memory snapshots: how those come to be, what becomes of damaged ones, and that
two guests of one snapshot are two machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab import paths
from lvslab.boot import plan
from lvslab.boot.events import Event, GuestUp
from lvslab.boot.vm import accelerator, snapshot
from lvslab.boot.vm.guests import HEARTBEAT
from lvslab.boot.vm.qemu import PATIENCE, Machine, Memory
from lvslab.cluster import prepare
from lvslab.cluster.cluster import Cluster, booted
from lvslab.guest import image
from lvslab.kernel import find
from lvslab.lab import loader

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

LAB = """
title: Directors and a client
networks:
  lan: {subnet: 10.0.0.0/24}
nodes:
"""
DIRECTOR = """
  director-NUMBER:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: lan, address: 10.0.0.NUMBER}
"""
CLIENT = """
  client:
    role: client
    interfaces:
      eth0: {network: lan, address: 10.0.0.100}
"""
PORTS = (40001, 40002, 40003, 40004)
# Prints when each TCP connection to port 9 was first tried for, in ns since 1970, and its sequence number.
SEQUENCE_NUMBERS = """
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
s.settimeout(5)
print("ready", flush=True)
wanted = set(map(int, sys.argv[1:]))
while wanted:
    p = s.recv(2048)
    t = p[(p[0] & 15) * 4:]
    if p[9] == 6 and t[13] & 0x3f == 2 and t[2:4] == b"\\0\\x09" and int.from_bytes(t[:2], "big") in wanted:
        wanted.remove(int.from_bytes(t[:2], "big"))
        print(time.time_ns(), int.from_bytes(t[4:8], "big"), flush=True)
"""


@dataclass(frozen=True)
class Place:
    """Labs in a folder, and a cache in which all is there but snapshots."""

    folder: Path
    run: Runner
    names: Names

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @contextmanager
    def up(self, directors: int = 1) -> Iterator[tuple[Cluster, dict[str, str]]]:
        """A lab with so many directors, and by which way each of them came up."""
        ways: dict[str, str] = {}

        def hear(event: Event) -> None:
            if isinstance(event, GuestUp):
                ways[event.node] = event.way

        with booted(self.lab(directors), name=self.names(), report=hear) as running:
            yield running, ways

    def lab(self, directors: int = 1) -> Path:
        """The folder of a lab with one or two directors, and a client, on one network."""
        return self.folder / f"with-{directors}"

    def only(self) -> snapshot.Snapshot:
        """The one snapshot that there is."""
        (row,) = snapshot.listed()
        return snapshot.at(row["key"])

    def empty(self) -> None:
        """Have no snapshots."""
        shutil.rmtree(snapshot.folder(), ignore_errors=True)


@pytest.fixture(scope="module")
def place(run: Runner, module_names: Names, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A cache of this module's own, so that no snapshot of the user's is touched."""
    folder = tmp_path_factory.mktemp("warm")
    environment = {"LVSLAB_CACHE": str(folder / "cache"), "LVSLAB_STATE": str(folder / "state")}
    found = Place(folder, replace(run, environment={**run.environment, **environment}), module_names)
    for directors in (1, 2):
        found.lab(directors).mkdir()
        nodes = "".join(DIRECTOR.replace("NUMBER", str(number + 1)) for number in range(directors))
        (found.lab(directors) / "lab.yaml").write_text(LAB + nodes.replace("\n\n", "\n") + CLIENT)
        (found.lab(directors) / "howto.md").write_text("# Nothing to do\n")
    found.cache.mkdir()
    for name in ("images", "kernels", "keys", "packages", "servers"):
        (found.cache / name).symlink_to(paths.cache() / name)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(paths.cache() / "kvm.json", found.cache)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        yield found


@pytest.fixture
def warm(place: Place) -> Place:
    """The same, with a snapshot."""
    if not snapshot.listed():
        with place.up():
            pass
    return place


@pytest.mark.slow
def test_two_at_once_make_one_snapshot_and_the_next_one_resumes(place: Place) -> None:
    place.empty()
    together = threading.Barrier(2)

    def one() -> str:
        together.wait(10)
        with place.up() as (running, ways):
            assert running.execute("director-1", "hostname").stdout == b"director-1\n"
            return ways["director-1"]

    with ThreadPoolExecutor() as pool:
        ways = [pool.submit(one) for _ in range(2)]
        assert sorted(way.result() for way in ways) == ["booted", "resumed"]
    made = place.only()
    assert one_up(place) == "resumed"
    assert place.only() == made


def one_up(place: Place) -> str:
    """By which way the director of a lab comes up. It takes a login and runs the lab's kernel."""
    with place.up() as (running, ways):
        said = running.execute("director-1", "uname -r").stdout.decode()
        assert said.strip() == running.versions["kernel"]
        return ways["director-1"]


def test_relative_cache(warm: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", os.path.relpath(warm.cache))
    assert one_up(warm) == "resumed"


def alter(found: snapshot.Snapshot) -> None:
    before = found.memory.stat()
    with found.memory.open("r+b") as memory:
        memory.seek(1 << 24)
        memory.write(secrets.token_bytes(64))
    os.utime(found.memory, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(found: snapshot.Snapshot) -> None:
    os.truncate(found.state, found.state.stat().st_size // 2)


def tear(found: snapshot.Snapshot) -> None:
    file = found.folder / "manifest.json"
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("damage", [truncate, tear])
def test_snapshot_that_is_not_as_it_was_written_is_made_anew(
    damage: Callable[[snapshot.Snapshot], None], warm: Place
) -> None:
    found = warm.only()
    before = found.memory.stat().st_ino
    damage(found)
    assert one_up(warm) == "booted"
    assert warm.only() == found
    assert found.memory.stat().st_ino != before
    assert one_up(warm) == "resumed"


@pytest.mark.slow
def test_two_directors_boot_side_by_side_and_make_one_snapshot_anew(warm: Place) -> None:
    found = warm.only()
    before = found.memory.stat().st_ino
    alter(found)
    with warm.up(2) as (_, ways):
        assert sorted(ways.values()) == ["booted", "booted cold"]
    assert warm.only() == found
    assert found.memory.stat().st_ino != before


RANDOM = "od -An -v -tx1 -N64 /dev/urandom | tr -d ' \\n'"
ABOUT_ITSELF = f"""
{RANDOM}; echo
date +%s
hostname
cat /sys/class/net/eth0/address
ip -4 -oneline address show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'
cat /proc/sys/kernel/random/boot_id
"""


def test_two_directors_of_one_snapshot_share_nothing(warm: Place) -> None:
    names, before = ("director-1", "director-2"), time.time()
    with warm.up(2) as (running, ways):
        assert ways == dict.fromkeys(names, "resumed")
        for name in names:
            running.connect(name)
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(running.execute, name, ABOUT_ITSELF) for name in names]
            first, second = (answer.result().stdout.decode().split() for answer in asked)
        after = time.time()
    for one, other in zip(first[:1] + first[2:], second[:1] + second[2:], strict=True):
        assert one != other
    assert (first[2], second[2]) == names
    assert (first[4], second[4]) == ("10.0.0.1", "10.0.0.2")
    assert len(first[0]) == 128
    # Their clocks were set, to whole seconds, after the resume; the snapshot's own is older than the boot.
    for answer in (first, second):
        assert before - 2 < int(answer[1]) <= after + 1


@pytest.mark.slow
def test_random_bytes_from_the_first_order_on(warm: Place, tmp_path: Path) -> None:
    """Without a new seed, every fifth of these guests or so begins with bytes that another one has, too."""
    choice = accelerator.known()
    assert choice is not None
    this = find.find("debian-cloud")
    boot = prepare.boot_of(this, image.build(this))
    (guest,) = plan.guests_of(loader.load(warm.lab(1)), {"director-1": boot})
    memory, state = tmp_path / "memory", tmp_path / "state"

    def start(number: int, *, shared: bool) -> Machine:
        # Without cards no taps are needed.
        own, file = replace(guest, name=f"guest-{number}"), Memory(memory, shared)
        return Machine(own, choice.accelerator, tmp_path, cards=False, memory=file)

    def resume(machine: Machine) -> str:
        machine.resume(state)
        setup = plan.guest_setup(machine.guest, seconds=int(time.time()), seed=secrets.token_hex(32))
        # What comes before its name makes it another machine than the snapshot's.
        order = setup.partition(" && echo ")[0]
        (line,) = machine.agent.run(f"{{ {order}; }} >/dev/null && {RANDOM}", 20.0).lines
        return line

    first = start(0, shared=True)
    try:
        first.await_ready()
        first.save(state)
    finally:
        first.end()
    read = list[str]()
    for _ in range(5):
        machines = [start(number, shared=False) for number in (1, 2)]
        try:
            with ThreadPoolExecutor() as pool:
                read += pool.map(resume, machines)
        finally:
            for machine in machines:
                machine.end()
    assert all(len(line) == 128 for line in read)
    assert len(set(read)) == len(read) == 10


def sequence_secrets(running: Cluster) -> list[int]:
    """What the director adds to the time (in units of 64 ns) to make the sequence numbers of connections
    from PORTS to the client: a hash of both ends and of a secret (net/core/secure_seq.c, 6.1).
    """
    with running.namespaces("client") as place:
        words = ["nsenter", f"--net=/proc/self/fd/{place.network}", sys.executable, "-c", SEQUENCE_NUMBERS]
        listening = subprocess.Popen(
            [*words, *map(str, PORTS)], pass_fds=[place.network], stdout=subprocess.PIPE, text=True
        )
    with listening as listener:
        assert listener.stdout is not None
        try:
            assert listener.stdout.readline() == "ready\n"
            # busybox nc cannot choose its own port.
            choose = "echo {0} {0} > /proc/sys/net/ipv4/ip_local_port_range; nc 10.0.0.100 9 </dev/null"
            tries = "; ".join(choose.format(port) for port in PORTS)
            said = running.execute("director-1", tries)
            rows = [line.split() for line in listener.stdout]
        finally:
            listener.kill()
    assert len(rows) == len(PORTS), said
    return [(int(number) - (int(moment) >> 6)) % (1 << 32) for moment, number in rows]


def test_two_labs_of_one_snapshot_number_their_tcp_data_differently(warm: Place) -> None:
    with warm.up() as (one, ways), warm.up() as (other, other_ways):
        assert ways == other_ways == {"director-1": "resumed"}
        pairs = zip(sequence_secrets(one), sequence_secrets(other), strict=True)
        apart = [(first - second) % (1 << 32) for first, second in pairs]
    # With one secret they would be apart by the two clocks' difference, all by the same.
    second = 10**9 >> 6
    near = [min((gap - apart[0]) % (1 << 32), (apart[0] - gap) % (1 << 32)) < second for gap in apart[1:]]
    assert not all(near)


def qemu_of(director: str, run: Runner, ancestor: int) -> int:
    """The process id of a director's QEMU, found below ``ancestor``, where only one lab has it."""
    found = []
    families = [ancestor]
    while families:
        for pid in run.children(families.pop()):
            families.append(pid)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if f"-name\0{director}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
    (pid,) = found
    return pid


@pytest.mark.slow
def test_director_that_hangs_is_reported_until_it_comes_to_itself(warm: Place) -> None:
    with warm.up() as (running, _):
        name, run = running.name, warm.run

        def state() -> str:
            return running.status().nodes["director-1"].text

        running.execute("director-1", "echo nf_conntrack: table full > /dev/ttyS0")
        qemu = qemu_of("director-1", run, os.getpid())
        waiting = ("--name", name, "--command", "echo begun; sleep 1000")
        with contextlib.ExitStack() as ends:
            early = ends.enter_context(run.terminal("lab.exec", "director-1", *waiting))
            early.expect("begun")
            os.kill(qemu, signal.SIGSTOP)
            ends.callback(os.kill, qemu, signal.SIGCONT)
            run.wait_until(lambda: state() != "up", HEARTBEAT + PATIENCE + 5, "it is seen to hang")
            hangs = f"it hangs: no sign of life from its agent within {PATIENCE:g} s"
            assert state() == hangs
            assert hangs in run("lab.status", "--name", name).stdout
            failed = run("lab.exec", "director-1", "--name", name, "--command", "true", status=4)
            assert failed.stderr.startswith(f"error: director-1 is not up (running): {hangs}\n")
            assert f"evidence in {running.evidence}" in failed.stderr
            assert "last lines of its console:" in failed.stderr
            assert "nf_conntrack: table full" in failed.stderr
            # What is typed now is read when the guest goes on.
            console = run("lab.console", "director-1", "--name", name, input="echo typed > /run/typed\n")
            assert "nf_conntrack: table full" in console.stdout
            # A command that had begun before hears of it too.
            early.expect("error: director-1 is not up", PATIENCE + 10)
            early.expect("nf_conntrack: table full")
            assert early.status() == 4
        run.wait_until(lambda: state() == "up", HEARTBEAT + PATIENCE, "it is up again")
        typed = "until grep typed /run/typed; do :; done"
        assert run.execute(name, "director-1", f"timeout 20 sh -c '{typed}'") == "typed"


def test_director_whose_kernel_panics_is_reported_with_the_kernels_words(warm: Place) -> None:
    with warm.up() as (running, _):
        about = ("director-1", "--name", running.name)
        # The console's end is that of the session on it.
        warm.run("lab.console", *about, input="echo c > /proc/sysrq-trigger\n")
        failed = warm.run("lab.exec", *about, "--command", "true", status=4)
        panic = "Kernel panic - not syncing: sysrq triggered crash"
        first, *more = failed.stderr.splitlines()
        assert first.startswith("error: director-1 is not up (running): its kernel gave up: ")
        assert first.endswith(panic)
        log = (running.evidence / "console-director-1.log").read_text()
        assert panic in log
        assert "  last lines of its console:" in more
        last = [line.strip() for line in more[more.index("  last lines of its console:") + 1 :]]
        assert len(last) > 5
        assert last == [line.strip() for line in log.splitlines() if line.strip()][-len(last) :]
        assert f"evidence in {running.evidence}" in failed.stderr
        found = json.loads(warm.run("lab.status", "--name", running.name, "--json").stdout)
        assert found["nodes"]["director-1"]["state"] == "qemu-system-x86_64 ended with status 0"
        assert found["nodes"]["client"]["state"] == "up"


def test_snapshot_that_qemu_refuses(warm: Place) -> None:
    found = warm.only()
    found.state.write_bytes(secrets.token_bytes(found.state.stat().st_size))
    manifest = json.loads((found.folder / "manifest.json").read_bytes())
    about = found.state.stat()
    manifest["state"] = [about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    (found.folder / "manifest.json").write_text(json.dumps(manifest))
    assert warm.only() == found, "the damage was noticed before QEMU saw it"
    with warm.up() as (running, ways):
        assert ways == {"director-1": "booted cold"}
        assert running.execute("director-1", "hostname").stdout == b"director-1\n"
        said = (running.evidence / "qemu-director-1.log").read_text()
        assert "migration" in said, "the evidence has QEMU's words"
    assert snapshot.listed() == []


def test_disk_that_is_full(place: Place) -> None:
    place.empty()
    snapshot.folder().mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "full", snapshot.folder()], check=True)
    try:
        assert one_up(place) == "booted cold"
        assert [file for file in snapshot.folder().rglob("*") if file.is_file()] == []
    finally:
        subprocess.run(["umount", snapshot.folder()], check=True)
