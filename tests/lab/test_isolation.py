"""A lab sees itself and nothing else: not a second lab with the same addresses, not the machine's networks,
and the machine's files only to read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from tests.lab.conftest import Box, Names, Runner

VIP = "66.199.240.50"
NODES = ("director", "client", "real-server-1")

# What changes by itself, or with every process and file of the machine.
_RESTLESS = (
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota/",
    "kernel/latencytop",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random/",
    "kernel/sched_domain/",
    "net/netfilter/nf_conntrack_count",
)

# Prints one reply for each of as many requests as it is told, or the error; the machine may have no curl.
_GET = """
import sys, urllib.request
for _ in range(int(sys.argv[2])):
    print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().strip().splitlines()[-1])
"""
# Says how an attempt to connect ends: "connected", or the name of the error.
_CONNECT = """
import errno, socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
s.settimeout(5)
try:
    s.connect((sys.argv[1], int(sys.argv[2])))
    print("connected")
except TimeoutError:
    print("ETIMEDOUT")
except OSError as refused:
    print(errno.errorcode[refused.errno])
"""


@dataclass(frozen=True)
class Machine:
    """What a lab could change of this machine without a file: its interfaces, and its settings by path."""

    interfaces: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Labs:
    """Two labs that are up at the same time, and the machine as it was before them."""

    run: Runner
    names: tuple[str, str]
    before: Machine

    def sh(self, lab: int, node: str, command: str, *, status: int | None = 0) -> str:
        return self.run.execute(self.names[lab], node, command, status=status)

    def python(self, lab: int, node: str, program: str, *arguments: str) -> str:
        return self.sh(lab, node, shlex.join(["/usr/bin/python3", "-c", program, *arguments]))

    def pages(self, lab: int, count: int = 6) -> list[str]:
        """The last lines of the pages that the client gets from the virtual service."""
        return self.python(lab, "client", _GET, f"http://{VIP}/", str(count)).splitlines()

    def connect(self, lab: int, node: str, address: str, port: int) -> str:
        """How an attempt to connect from a node ends."""
        if node == "director":  # which has no Python
            request = "printf 'GET / HTTP/1.0\\r\\n\\r\\n'"
            said = self.sh(lab, node, f"{request} | nc {address} {port} 2>&1 && echo connected", status=None)
            return said.splitlines()[-1] if said else "nothing"
        return self.python(lab, node, _CONNECT, address, str(port))

    def counter(self, lab: int) -> int:
        """The connections that the director has counted for the virtual service."""
        table = self.sh(lab, "director", "ipvsadm -Ln --stats --exact")
        (row,) = (line.split() for line in table.splitlines() if line.startswith("TCP"))
        return int(row[2])


def settings() -> Iterator[tuple[str, str]]:
    root = Path("/proc/sys")
    for tree in ("net", "kernel", "fs"):
        for file in sorted((root / tree).rglob("*")):
            name = str(file.relative_to(root))
            if not name.startswith(_RESTLESS):
                with contextlib.suppress(OSError):  # folders, and what can only be written
                    yield name, file.read_text(errors="replace")


def machine_now() -> Machine:
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return Machine(links, dict(settings()))


@pytest.fixture(scope="module")
def labs(run: Runner, module_names: Names) -> Labs:
    before = machine_now()
    names = (module_names(), module_names())
    with ThreadPoolExecutor() as both:
        for done in both.map(lambda name: run("lab.up", "--name", name, "--json"), names):
            assert json.loads(done.stdout)["distribution"]["real-server-2"] == {"expected": 8, "observed": 8}
    return Labs(run, names, before)


# --- two labs ---------------------------------------------------------------------------------------------


def test_each_lab_answers_with_its_own_servers(labs: Labs) -> None:
    for server in ("real-server-1", "real-server-2"):
        labs.sh(0, server, f"echo '<p>lab zero, {server}' > /var/www/html/index.html")
    # The kernel adds its counters up every other second.
    first_round = 12
    labs.run.wait_until(lambda: labs.counter(1) == first_round, 10, "the first round is counted")
    assert set(labs.pages(0)) == {"<p>lab zero, real-server-1", "<p>lab zero, real-server-2"}
    expected = {f"<h1>This page was made by real-server-{number}</h1>" for number in (1, 2)}
    assert set(labs.pages(1)) == expected
    labs.run.wait_until(lambda: labs.counter(1) >= first_round + 6, 10, "the second lab counts its six")
    labs.run.wait_until(lambda: labs.counter(0) >= first_round + 6, 10, "the first lab counts its six")
    assert (labs.counter(0), labs.counter(1)) == (first_round + 6, first_round + 6)


def test_an_address_in_one_lab_is_not_in_the_other(labs: Labs) -> None:
    labs.sh(0, "client", "ip address add 66.199.240.77/24 dev eth0")
    # Refused: somebody is there.
    assert labs.connect(0, "client-2", "66.199.240.77", 9) == "ECONNREFUSED"
    assert labs.connect(1, "client-2", "66.199.240.77", 9) in ("EHOSTUNREACH", "ETIMEDOUT")


def test_a_network_that_breaks_in_one_lab_works_in_the_other(labs: Labs) -> None:
    labs.sh(0, "client-2", "ip link set eth0 down")
    assert labs.connect(0, "client-2", VIP, 80) == "ENETUNREACH"
    assert labs.connect(1, "client-2", VIP, 80) == "connected"
    assert labs.connect(0, "client", VIP, 80) == "connected"


def test_no_lab_sees_processes_of_the_other_or_of_the_machine(labs: Labs) -> None:
    everything = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    for lab, other in ((0, 1), (1, 0)):
        seen = labs.sh(lab, "client", everything, status=None)
        assert seen.count("qemu-system-x86_64 -name director") == 1
        assert labs.names[other] not in seen
        assert "pytest" not in seen
    spaces = ["net", "mnt", "pid"]
    links = shlex.join(["readlink", *(f"/proc/self/ns/{space}" for space in spaces)])
    zero, one = (labs.sh(lab, "client", links).splitlines() for lab in (0, 1))
    ours = [os.readlink(f"/proc/self/ns/{space}") for space in spaces]
    for space, *different in zip(spaces, zero, one, ours, strict=True):
        assert len(set(different)) == 3, f"shared: {space} {different}"


def test_both_are_listed(labs: Labs) -> None:
    rows: list[dict[str, Any]] = json.loads(labs.run("lab.list", "--json").stdout)
    assert {*labs.names} <= {name for row in rows for name in row["up"]}


# --- the machine's networks -------------------------------------------------------------------------------


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A server on the machine's loopback."""
    try:
        server = socket.create_server(
            (request.param, 0), family=socket.AF_INET6 if ":" in request.param else socket.AF_INET
        )
    except OSError as refused:
        pytest.skip(f"this machine has no {request.param}: {refused}")
    with server:
        server.settimeout(5)
        yield server


@pytest.mark.parametrize("node", NODES)
def test_nodes_do_not_reach_what_the_machine_offers_itself(
    labs: Labs, listener: socket.socket, node: str
) -> None:
    address, port = listener.getsockname()[:2]
    with socket.create_connection((address, port), timeout=5):
        listener.accept()[0].close()  # from here it can be reached
    assert "connected" not in labs.connect(0, node, address, port)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_nodes_do_not_reach_the_machines_abstract_sockets(labs: Labs) -> None:
    program = "import socket, sys; socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1])"
    # The lab's own control socket: who can talk to it can have a lab ended.
    name = f"lvslab/{labs.names[0]}"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(f"\0{name}")
    command = shlex.join(["/usr/bin/python3", "-c", program, name])
    assert labs.sh(0, "client", f"{command} 2>&1 | tail -1") == (
        "ConnectionRefusedError: [Errno 111] Connection refused"
    )


@pytest.mark.parametrize("node", NODES)
def test_nodes_have_no_way_out(labs: Labs, node: str) -> None:
    """Every route of a node stays in the lab, and the machine's addresses are nobody's there."""
    lines = labs.sh(0, node, "ip -4 route").splitlines()
    for line in lines:
        words = line.split()
        assert words[0] in ("10.0.0.0/24", "66.199.240.0/24", "default"), line
        assert words[:3] == ["default", "via", "10.0.0.1"] or words[0] != "default", line
    assert ("default" in " ".join(lines)) == (node == "real-server-1")
    found = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout
    for link in json.loads(found):
        for address in link["addr_info"]:
            if address["scope"] == "global":
                assert "connected" not in labs.connect(0, node, address["local"], 22)
                neighbours = labs.sh(0, node, "ip neighbour")
                assert f"{address['local']} " not in neighbours
    # To be believed: the same way to ask finds what is there.
    there = {"client": VIP, "director": "10.0.0.100", "real-server-1": "10.0.0.101"}
    assert labs.connect(0, node, there[node], 80) == "connected"


def test_the_machine_keeps_its_interfaces_and_settings(labs: Labs) -> None:
    now = machine_now()
    assert now.interfaces == labs.before.interfaces
    keys = now.settings.keys() | labs.before.settings.keys()
    old, new = labs.before.settings, now.settings
    assert {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)} == {}


# --- the machine's files ----------------------------------------------------------------------------------

FOLDERS = (
    *("", "/boot", "/etc", "/home", "/opt", "/root", "/srv", "/usr", "/usr/local/bin", "/usr/sbin"),
    *("/tmp", "/run", "/var", "/var/lib", "/var/log", "/var/tmp", "/dev", "/dev/shm", str(PROJECT)),
)


def not_processes(box: Box) -> list[str]:
    return [line for line in box.leftovers() if not line.startswith("process ")]


def test_what_a_host_writes_stays_in_the_host(box: Box) -> None:
    """In a box: one can mount a file system in it, and see what is added to /tmp and the like."""
    mounted = box.start("-c", "mount -t tmpfs box /mnt && touch /mnt/of-the-machine", program="sh").end()
    assert mounted.status == 0, mounted.stderr
    box.expect_mount("/mnt")
    name = "t-files"
    ended = box.start("lab.up", "--name", name, "--no-apply", "--json").end()
    assert ended.status == 0, ended.stderr
    before = not_processes(box)
    mark = f"t-{os.urandom(6).hex()}"
    folders = [*FOLDERS, "/mnt"]
    words = " ".join(folder or "/." for folder in folders)
    command = f"for folder in {words}; do echo x 2>/dev/null >$folder/{mark} && echo $folder; done; echo end"
    try:
        for node in ("client", "real-server-1"):
            done = box.start("lab.exec", node, "--name", name, "--command", command).end()
            assert done.status == 0, done.stderr
            written = done.stdout.splitlines()
            assert written[-1] == "end"
            # A host without any place to write to would prove nothing.
            assert {"/etc", "/root", "/tmp", "/var/log"} <= {*written}
        found = [folder or "/" for folder in folders if (box.inside(folder) / mark).exists()]
        assert found == [], "on the machine there is now what a host has written"
        assert not_processes(box) == before
    finally:
        for folder in folders:
            (box.inside(folder) / mark).unlink(missing_ok=True)
    assert (box.inside("/mnt") / "of-the-machine").exists()


@pytest.mark.slow
def test_hosts_do_not_share_what_they_write(labs: Labs) -> None:
    for folder in ("/etc", "/root", "/tmp", "/var/log"):
        mark = f"{folder}/t-{os.urandom(6).hex()}"
        labs.sh(0, "client", f"echo mine > {mark}")
        assert labs.sh(0, "client", f"cat {mark}") == "mine"
        for lab, node in ((0, "client-2"), (1, "client")):
            labs.sh(lab, node, f"test ! -e {mark}")
        assert not Path(mark).exists()
