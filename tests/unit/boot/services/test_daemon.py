"""Daemons are real processes here, in namespaces that nobody else sees."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.services import daemon
from lvslab.boot.services.daemon import Daemon
from lvslab.errors import BootError

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 6400000A:0015 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 10 0
   1: 6400000A:0050 0AF0C742:8235 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 10 0
"""
UDP6 = """  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 0 0
"""

# Listens, and forks a process that leaves its session and its group, as vsftpd does for a client.
SERVER = """
import os, signal, socket
listener = socket.create_server(("", 21))
session = os.fork()
if session == 0:
    os.setsid()
    listener.close()
    print("session", flush=True)
signal.pause()
"""


@pytest.fixture
def server(host: Namespaces, tmp_path: Path) -> Iterator[Daemon]:
    made = python(host, tmp_path, SERVER)
    yield made
    made.stop()


def python(host: Namespaces, tmp_path: Path, script: str) -> Daemon:
    command = [sys.executable, "-S", "-c", script]
    return Daemon("the server on rs1", host, command, tmp_path / "out", [("tcp", 21)])


def family(server: Daemon, tmp_path: Path) -> tuple[int, int]:
    """Descriptors of the server's process and of the one that it has forked. A shell is over them."""
    for _ in range(1000):
        if "session" in (tmp_path / "out").read_text():
            break
        time.sleep(0.005)
    assert server._process is not None
    first = child_of(server._process.pid)
    return os.pidfd_open(first), os.pidfd_open(child_of(first))


def child_of(process: int) -> int:
    (child,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


def gone(descriptor: int) -> bool:
    """Whether the process has ended; closes the descriptor."""
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_what_is_listened_on() -> None:
    assert daemon.listening([("tcp", TCP), ("udp", UDP6)]) == {("tcp", 21), ("udp", 53)}


def test_it_is_awaited(server: Daemon) -> None:
    assert not server.running
    server.stop()
    server.start()
    assert server.running
    before = server._process
    server.start()  # it does run
    assert server._process is before


def test_all_that_it_forked_ends_with_it(server: Daemon, tmp_path: Path) -> None:
    server.start()
    processes = family(server, tmp_path)
    server.stop()
    assert not server.running
    assert all(map(gone, processes))
    server.start()
    assert server.running


def test_one_that_was_killed_is_started_again(server: Daemon, tmp_path: Path) -> None:
    server.start()
    first, child = family(server, tmp_path)
    signal.pidfd_send_signal(first, signal.SIGKILL)
    assert server._process is not None
    server._process.wait()
    assert not server.running
    assert gone(first)
    assert gone(child)
    server.start()
    assert server.running


def test_orphans_are_not_its_own(host: Namespaces, tmp_path: Path) -> None:
    """vsftpd ends when a child ends that it does not know of, such as an orphan of a session."""
    script = """
import os, signal, socket, sys
listener = socket.create_server(("", 21))
session = os.fork()
if session == 0:
    if os.fork() == 0:
        os.read(os.open(sys.argv[1], os.O_RDONLY), 1)  # when its parent has gone
    os._exit(0)
os.waitpid(session, 0)
print("session", flush=True)
os.close(os.open(sys.argv[1], os.O_WRONLY))
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("no child", flush=True)
signal.pause()
"""
    os.mkfifo(tmp_path / "fifo")
    command = [sys.executable, "-S", "-c", script, str(tmp_path / "fifo")]
    server = Daemon("the server on rs1", host, command, tmp_path / "out", [("tcp", 21)])
    server.start()
    for _ in range(1000):
        if "no child" in (tmp_path / "out").read_text():
            break
        time.sleep(0.005)
    else:
        raise AssertionError((tmp_path / "out").read_text())
    server.stop()


def test_one_that_ends_at_once(host: Namespaces, tmp_path: Path) -> None:
    broken = python(host, tmp_path, "raise SystemExit('no such directive')")
    with pytest.raises(
        BootError, match=r"the server on rs1 did not start \(status 1\)\n.*no such directive"
    ):
        broken.start()
    assert not broken.running


def test_one_that_complains_where_a_client_would_be(host: Namespaces, tmp_path: Path) -> None:
    broken = python(host, tmp_path, "import os; os.write(0, b'500 OOPS'); os._exit(2)")
    with pytest.raises(BootError, match=r"status 2\)\n.*500 OOPS"):
        broken.start()


def test_one_that_never_listens(host: Namespaces, tmp_path: Path) -> None:
    deaf = python(host, tmp_path, "import signal; print('waiting', flush=True); signal.pause()")
    with pytest.raises(BootError, match="the server on rs1 does not listen"):
        deaf.start(0.05)
    assert not deaf.running
