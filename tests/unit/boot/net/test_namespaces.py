"""Namespaces and mounts by the kernel's own calls; mounts in namespaces that nobody else sees."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from lvslab.boot.net import namespaces
from lvslab.boot.net.namespaces import CLONE_FS, Namespaces
from lvslab.errors import MachineError
from lvslab.paths import PROJECT


def here() -> tuple[str, str]:
    """The calling thread's network and mount namespace."""
    return os.readlink("/proc/thread-self/ns/net"), os.readlink("/proc/thread-self/ns/mnt")


def test_a_call_is_made_there_and_nothing_else_moves(host: Namespaces) -> None:
    before, threads = here(), threading.active_count()
    there = host.call(here)
    assert there[0] != before[0]
    assert there[1] != before[1]
    assert host.call(here) == there
    assert (here(), threading.active_count()) == (before, threads)


def test_arguments_results_and_errors_pass_through(host: Namespaces) -> None:
    assert host.call(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        host.call(int, "no number")


def test_a_program_that_is_started_there_is_there(host: Namespaces) -> None:
    words = ["readlink", "/proc/self/ns/net", "/proc/self/ns/mnt"]
    called = host.call(subprocess.run, words, stdout=subprocess.PIPE, text=True, check=True)
    entered = subprocess.run([*host.entrance, *words], stdout=subprocess.PIPE, text=True, check=True)
    assert tuple(called.stdout.split()) == tuple(entered.stdout.split()) == host.call(here)


def test_what_is_no_namespace() -> None:
    with open(os.devnull) as file:
        nothing = Namespaces(file.fileno(), file.fileno())
        with pytest.raises(OSError, match="setns: Invalid argument"):
            nothing.call(here)


# In namespaces of its own: two file systems, one in the other, the inner one with a flag of its own.
_MOUNTS = """
import json, os
from pathlib import Path
from lvslab.boot.net import namespaces

def flags():
    rows = [row.split() for row in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [row for row in rows if row[4] in ("/mnt", "/mnt/inner", "/mnt/seen")]
    return {row[4]: sorted(set(row[5].split(",")) & {"ro", "rw", "noexec"}) for row in ours}

namespaces.mount("outer", "/mnt", "tmpfs")
Path("/mnt/inner").mkdir()
namespaces.mount("inner", "/mnt/inner", "tmpfs", 8)  # MS_NOEXEC
Path("/mnt/seen").mkdir()
namespaces.bind("/mnt/inner", "/mnt/seen")
(Path("/mnt/inner") / "file").write_text("text")
found = [flags(), Path("/mnt/seen/file").read_text()]
namespaces.make_read_only("/mnt")
found.append(flags())
namespaces.make_read_only("/mnt/inner", undo=True)
found.append(flags())
try:
    namespaces.make_read_only("/mnt/inner/file")
except OSError as refused:
    found.append(str(refused))
print(json.dumps(found))
"""


def test_a_tree_of_mounts_is_read_only_and_keeps_its_flags() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts take root")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-P", "-c", _MOUNTS],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody make namespaces")
    assert done.returncode == 0, done.stderr
    before, seen, read_only, partly, refused = json.loads(done.stdout)
    inner, outer = "/mnt/inner", "/mnt"
    assert seen == "text"
    assert before == {outer: ["rw"], inner: ["noexec", "rw"], "/mnt/seen": ["noexec", "rw"]}
    assert read_only == {outer: ["ro"], inner: ["noexec", "ro"], "/mnt/seen": ["noexec", "ro"]}
    assert partly == {outer: ["ro"], inner: ["noexec", "rw"], "/mnt/seen": ["noexec", "ro"]}
    assert refused == "[Errno 22] mount_setattr /mnt/inner/file: Invalid argument"


def test_a_kernel_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def syscall(self, *_arguments: object) -> int:
            namespaces.ctypes.set_errno(errno.ENOSYS)
            return -1

    monkeypatch.setattr(namespaces, "_libc", Old())
    with pytest.raises(MachineError, match="mount_setattr") as caught:
        namespaces.make_read_only("/nowhere")
    assert "5.12" in (caught.value.hint or "")


def test_a_thread_has_a_working_folder_of_its_own() -> None:
    def move() -> None:
        namespaces.unshare(CLONE_FS)
        os.chdir("/")

    before = os.getcwd()
    thread = threading.Thread(target=move)
    thread.start()
    thread.join()
    assert os.getcwd() == before


def test_an_interrupted_call_is_not_waited_for(host: Namespaces) -> None:
    begun, may_end, ended, interrupted = (threading.Event() for _ in range(4))
    main = threading.get_ident()

    def call() -> None:
        begun.set()
        may_end.wait(60)
        ended.set()

    def once(number: int, frame: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        assert begun.wait(30)
        # A signal that comes just before the main thread waits does not wake it.
        while not interrupted.wait(0.1):
            signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, once)
    interrupter = threading.Thread(target=interrupt)
    try:
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            host.call(call)
        assert not ended.is_set()
        may_end.set()
        assert ended.wait(10)
        interrupter.join()
    finally:
        signal.signal(signal.SIGINT, before)
