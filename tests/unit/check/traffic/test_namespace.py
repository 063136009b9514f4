from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.errors import MachineError, StateError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace takes root")


def current() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino


@pytest.fixture
def other() -> Iterator[int]:
    """A descriptor of a fresh network namespace, kept by a process that ends when its input does."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; read -r _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            pytest.skip("this machine lets nobody make a network namespace")
        fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)
            holder.communicate(b"\n")


@needs_root
def test_calls_run_in_the_namespace_and_nothing_else_moves(other: int) -> None:
    home = current()
    with NamespaceThread(other, "client") as client:
        assert client.call(current) == os.stat(other).st_ino != home
        assert client.call(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
        assert current() == home
        # A call from a call runs at once instead of waiting for itself.
        assert client.call(lambda: client.call(current)) == os.stat(other).st_ino
    assert current() == home


@needs_root
def test_arguments_results_and_errors_pass_through(other: int) -> None:
    with NamespaceThread(other) as client:
        assert client.call(int, "ff", base=16) == 255
        with pytest.raises(ValueError, match="invalid literal"):
            client.call(int, "no number")
        assert client.call(len, "still here") == 10


@needs_root
def test_the_thread_ends_with_the_context(other: int) -> None:
    before = threading.active_count()
    with NamespaceThread(other, "client") as client:
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    client.close()
    with pytest.raises(StateError, match="the network namespace of client has been left already"):
        client.call(current)


@needs_root
def test_the_descriptor_may_be_closed_at_once(other: int) -> None:
    copy = os.dup(other)
    with NamespaceThread(copy) as client:
        os.close(copy)
        assert client.call(current) == os.stat(other).st_ino


def test_what_is_no_namespace(tmp_path: Path) -> None:
    before = threading.active_count()
    with (tmp_path / "file").open("w") as file, pytest.raises(MachineError, match="cannot enter") as caught:
        NamespaceThread(file.fileno(), "client")
    assert "the network namespace of client" in caught.value.message
    assert threading.active_count() == before
