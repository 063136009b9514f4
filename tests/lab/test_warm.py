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
from typing import TypeVar

import pytest

from lvslab import paths, spec
from lvslab.boot import accelerator, control, plan, snapshot
from lvslab.boot.qemu import Machine, Memory
from lvslab.build import image, kernel, servers
from lvslab.cluster import Cluster, Event, booted
from lvslab.errors import LvsLabError

T = TypeVar("T")

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
# Boots the lab of a folder under a name, and ends it.
UP = """
import sys
from pathlib import Path
from lvslab.cluster import booted
with booted(Path(sys.argv[1]), name=sys.argv[2]):
    pass
"""


@pytest.fixture(scope="module")
def able() -> None:
    """Skips where this machine cannot run labs; else has all that labs are made of in the cache."""
    if os.geteuid() != 0:
        pytest.skip("labs need root")
    for program in ("qemu-system-x86_64", "mnexec", "unshare", "nsenter", "dropbear"):
        if not shutil.which(program):
            pytest.skip(f"labs need {program}")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("labs need /dev/net/tun")
    try:
        image.build(kernel.find("debian-cloud"))
        servers.bundle()
    except LvsLabError as lacking:
        pytest.skip(f"what labs are made of cannot be had: {lacking}")


@dataclass(frozen=True)
class Place:
    """Labs in a folder, and a cache in which all is there but snapshots."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def lab(self, directors: int) -> Path:
        """The folder of a lab with so many directors, and a client, on one network."""
        folder = self.folder / f"with-{directors}"
        folder.mkdir(exist_ok=True)
        nodes = "".join(DIRECTOR.replace("NUMBER", str(number + 1)) for number in range(directors))
        (folder / "lab.yaml").write_text(LAB + nodes.replace("\n\n", "\n") + CLIENT)
        (folder / "howto.md").write_text("# Nothing to do\n")
        return folder

    def keys(self) -> list[str]:
        """The keys of the whole snapshots in the cache."""
        return [row["key"] for row in snapshot.listed()]

    def only(self) -> snapshot.Snapshot:
        """The one snapshot that there is."""
        (key,) = self.keys()
        return snapshot.Snapshot(snapshot.folder() / key)

    def empty(self) -> None:
        """Have no snapshots."""
        shutil.rmtree(snapshot.folder(), ignore_errors=True)


@pytest.fixture(scope="module")
def place(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A cache of this module's own, so that no snapshot of the user's is touched."""
    found = Place(tmp_path_factory.mktemp("warm"))
    found.cache.mkdir()
    for name in ("images", "kernels", "keys", "packages", "servers"):
        (found.cache / name).symlink_to(paths.cache() / name)
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(paths.cache() / "kvm.json", found.cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LVSLAB_CACHE", str(found.cache))
        patch.setenv("LVSLAB_STATE", str(found.folder / "state"))
        yield found


@pytest.fixture
def warm(place: Place) -> Place:
    """The same, with a snapshot."""
    if not place.keys():
        with up(place.lab(1)):
            pass
    return place


def new_name() -> str:
    return f"t8-{secrets.token_hex(4)}"


@contextmanager
def up(folder: Path) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """A lab that runs, and by which way each of its directors came up."""
    ways: dict[str, str] = {}

    def hear(event: Event) -> None:
        if event["event"] == "guest":
            ways[event["node"]] = event["way"]

    with booted(folder, name=new_name(), report=hear) as running:
        yield running, ways


def wait_until(condition: Callable[[], T], seconds: float, what: str) -> T:
    """Return what ``condition`` returns as soon as that is true; fail the test after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.002)
    return found


def test_first_start_makes_a_snapshot_and_the_second_resumes(place: Place) -> None:
    place.empty()
    with up(place.lab(1)) as (_, ways):
        assert ways == {"director-1": "booted"}
    made = place.only()
    with up(place.lab(1)) as (running, ways):
        assert ways == {"director-1": "resumed"}
        said = running.execute("director-1", "uname -r").stdout.decode()
        assert said.strip() == running.versions["kernel"]
    assert place.only() == made


def test_relative_cache(warm: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", os.path.relpath(warm.cache))
    with up(warm.lab(1)) as (_, ways):
        assert ways == {"director-1": "resumed"}


def test_altered_snapshot_is_remade(warm: Place) -> None:
    found = warm.only()
    before = found.memory.stat()
    with found.memory.open("r+b") as memory:
        memory.seek(1 << 24)
        memory.write(secrets.token_bytes(64))
    os.utime(found.memory, ns=(before.st_atime_ns, before.st_mtime_ns))
    with up(warm.lab(1)) as (running, ways):
        assert ways == {"director-1": "booted"}
        assert running.execute("director-1", "true").status == 0
    with up(warm.lab(1)) as (_, ways):
        assert ways == {"director-1": "resumed"}


def test_snapshot_that_qemu_refuses(warm: Place) -> None:
    found = warm.only()
    found.state.write_bytes(secrets.token_bytes(found.state.stat().st_size))
    manifest = json.loads((found.folder / "manifest.json").read_bytes())
    about = found.state.stat()
    manifest["state"] = [about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns]
    (found.folder / "manifest.json").write_text(json.dumps(manifest))
    assert warm.only() == found, "the damage was noticed before QEMU saw it"
    with up(warm.lab(1)) as (running, ways):
        assert ways == {"director-1": "booted cold"}
        assert running.execute("director-1", "hostname").stdout == b"director-1\n"
        said = (running.evidence / "qemu-director-1.log").read_text()
        assert "migration" in said, "the evidence has QEMU's words"
    assert warm.keys() == []


def test_disk_that_is_full(place: Place) -> None:
    place.empty()
    snapshot.folder().mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "full", snapshot.folder()], check=True)
    try:
        with up(place.lab(1)) as (running, ways):
            assert ways == {"director-1": "booted cold"}
            assert running.execute("director-1", "true").status == 0
        assert [file for file in snapshot.folder().rglob("*") if file.is_file()] == []
    finally:
        subprocess.run(["umount", snapshot.folder()], check=True)


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
    names = ("director-1", "director-2")
    with up(warm.lab(2)) as (running, ways):
        assert ways == dict.fromkeys(names, "resumed")
        for name in names:
            running.connect(name)
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(running.execute, name, ABOUT_ITSELF) for name in names]
        here = time.time()
        first, second = (answer.result().stdout.decode().split() for answer in asked)
    for one, other in zip(first[:1] + first[2:], second[:1] + second[2:], strict=True):
        assert one != other
    assert (first[2], second[2]) == names
    assert (first[4], second[4]) == ("10.0.0.1", "10.0.0.2")
    assert len(first[0]) == 128
    for answer in (first, second):
        assert abs(int(answer[1]) + 0.5 - here) < 2.5


def test_random_bytes_from_the_first_order_on(warm: Place, tmp_path: Path) -> None:
    """Without a new seed, every fifth of these guests or so begins with bytes that another one has, too."""
    choice = accelerator.known()
    assert choice is not None
    this = kernel.find("debian-cloud")
    built = image.build(this)
    bootable = plan.Bootable(this.image, this.release, built.path, f"{this.sha256} {built.key}")
    (guest,) = plan.guests_of(spec.load(warm.lab(1)), {"director-1": bootable})
    memory, state = tmp_path / "memory", tmp_path / "state"

    def start(number: int, *, shared: bool) -> Machine:
        # Without cards no taps are needed.
        own, file = replace(guest, name=f"guest-{number}"), Memory(memory, shared)
        return Machine(own, choice.accelerator, tmp_path, cards=False, memory=file)

    def resume(machine: Machine) -> str:
        machine.resume(state)
        setup = plan.guest_setup(machine.guest, seconds=int(time.time()), seed=secrets.token_hex(32))
        # What comes before its name makes it another machine than the snapshot's.
        order = setup.partition(" && hostname ")[0]
        (line,) = machine.agent.run(f"{{ {order}; }} >/dev/null && {RANDOM}", 20.0)
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
    namespace = running.namespace("client")
    words = ["nsenter", f"--net=/proc/self/fd/{namespace}", sys.executable, "-c", SEQUENCE_NUMBERS]
    with subprocess.Popen(
        [*words, *map(str, PORTS)], pass_fds=[namespace], stdout=subprocess.PIPE, text=True
    ) as listener:
        os.close(namespace)
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
    with up(warm.lab(1)) as (one, ways), up(warm.lab(1)) as (other, other_ways):
        assert ways == other_ways == {"director-1": "resumed"}
        pairs = zip(sequence_secrets(one), sequence_secrets(other), strict=True)
        apart = [(first - second) % (1 << 32) for first, second in pairs]
    # With one secret they would be apart by the two clocks' difference, all by the same.
    second = 10**9 >> 6
    near = [min((gap - apart[0]) % (1 << 32), (apart[0] - gap) % (1 << 32)) < second for gap in apart[1:]]
    assert not all(near)


def test_two_at_once_make_one_snapshot(place: Place) -> None:
    place.empty()
    folder = place.lab(1)
    together = threading.Barrier(2)

    def one() -> str:
        together.wait(10)
        with up(folder) as (running, ways):
            assert running.execute("director-1", "hostname").stdout == b"director-1\n"
            return ways["director-1"]

    with ThreadPoolExecutor() as pool:
        ways = [pool.submit(one) for _ in range(2)]
        assert sorted(way.result() for way in ways) == ["booted", "resumed"]
    assert len(place.keys()) == 1


def test_two_directors_boot_side_by_side_and_make_one_snapshot(place: Place) -> None:
    place.empty()
    with up(place.lab(2)) as (_, ways):
        assert sorted(ways.values()) == ["booted", "booted cold"]
    assert len(place.keys()) == 1


def begun(place: Place) -> bool:
    """Whether somebody is about to make a snapshot."""
    return any((place.cache / "locks").glob("snapshot-*"))


def half_kept(place: Place) -> bool:
    """Whether a snapshot's memory is in the cache already."""
    return any(snapshot.folder().glob("*/memory"))


def process_tree(pid: int) -> list[int]:
    """``pid`` and its first child, and so on."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(process_tree(int(children[0])) if children else [])]
    return []


@pytest.mark.parametrize("moment", [begun, half_kept], ids=["while it boots", "while it is kept"])
@pytest.mark.parametrize("whom", ["command", "supervisor"])
def test_killed_while_a_snapshot_is_made(
    whom: str, moment: Callable[[Place], bool], place: Place
) -> None:
    place.empty()
    for lock in (place.cache / "locks").glob("snapshot-*"):
        lock.unlink()
    name = new_name()
    words = [sys.executable, "-P", "-c", UP, str(place.lab(1)), name]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        try:
            wait_until(lambda: moment(place), 60, "a snapshot is on its way")
            # command, unshare, process 1, supervisor, QEMU
            victim = {"command": 0, "supervisor": 3}[whom]
            os.kill(process_tree(command.pid)[victim], signal.SIGKILL)
            assert command.wait(30) != 0
        finally:
            command.kill()
    wait_until(lambda: name not in control.running(), 10, "the lab is gone")
    for file in snapshot.folder().rglob("*"):
        assert file.is_dir() or file.name in ("memory", "state", "manifest.json")
    whole = place.keys()
    if moment is begun:
        assert not whole
    with up(place.lab(1)) as (running, ways):
        assert ways == {"director-1": "resumed" if whole else "booted"}
        assert running.execute("director-1", "true").status == 0
    assert len(place.keys()) == 1
