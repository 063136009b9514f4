"""The script that stands before ipvsadm, here before a program that only tells what it got."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from lvslab.check.ipvs.packed import unpack
from lvslab.guest import calls

PROGRAM = """#!/bin/sh
[ "$1" != -R ] || cat
[ "$1" != -Rn ] || { read -r line; exit 2; }
echo "$0:$*"
[ "$1" != -D ] || exit 7
[ "$1" != -E ] || exec cat fifo
echo error >&2
"""


@dataclass(frozen=True)
class Director:
    """A folder with all that the script needs of a director's files."""

    folder: Path

    def run(self, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = [self.folder / "ipvsadm", *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    @property
    def log(self) -> str:
        return (self.folder / "calls/log").read_text()

    @property
    def records(self) -> list[list[str]]:
        return [record.rstrip("\n").split("\t") for record in self.log.split(calls.MARK)[1:]]


@pytest.fixture
def director(tmp_path: Path) -> Director:
    script = calls.script("/bin/sh").replace("/etc/lvslab/", f"{tmp_path}/")
    for path, text in {"ipvsadm": script, "bin/ipvsadm": PROGRAM}.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    (tmp_path / "calls").mkdir()
    (tmp_path / "calls/log").touch()
    (tmp_path / "network").symlink_to("/proc/self/ns/net")
    return Director(tmp_path)


def test_a_call_and_its_status(director: Director) -> None:
    done = director.run("-D", "-t", "192.0.2.1:80", "two words", "")
    assert (done.returncode, done.stdout) == (
        7,
        f"{director.folder}/bin/ipvsadm:-D -t 192.0.2.1:80 two words \n",
    )
    begun, ended = director.records
    assert begun[1:] == ["-D", "-t", "192.0.2.1:80", "two words", ""]
    assert ended == [f"{begun[0]}=7"]
    assert director.run("-A").stderr == "error\n"
    assert len(director.records) == 4


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-Ln",),
        ("-l",),
        ("--list",),
        ("-S",),
        ("--save", "-n"),
        ("--version",),
        ("-Z",),
        ("--zero", "-t", "192.0.2.1:80"),
        ("--set", "900", "120", "300"),
        ("--start-daemon", "master"),
        ("--stop-daemon", "backup"),
    ],
)
def test_what_changes_nothing_is_not_logged(director: Director, words: tuple[str, ...]) -> None:
    done = director.run(*words)
    assert (done.returncode, done.stdout) == (0, f"{director.folder}/bin/ipvsadm:{' '.join(words)}\n")
    assert director.log == ""


def test_the_input_of_a_restore(director: Director) -> None:
    rules = "-A -t 192.0.2.1:80\n-a -t 192.0.2.1:80 -r 10.0.0.1\n"
    done = director.run("-R", text=rules)
    assert (done.returncode, done.stdout) == (0, f"{rules}{director.folder}/bin/ipvsadm:-R\n")
    begun, ended = director.records
    assert (begun[1:], ended) == (["-R"], [f"{begun[0]}=0"])
    assert (director.folder / "calls" / begun[0]).read_text() == rules


def test_a_restore_without_input(director: Director) -> None:
    command = f"exec <&-; exec {director.folder}/ipvsadm --restore"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "error\n")
    assert director.records[-1][0].endswith("=0")


def test_a_restore_whose_caller_finds_no_programs(director: Director) -> None:
    command = [director.folder / "ipvsadm", "-R"]
    done = subprocess.run(command, input=b"-C\n", env={"PATH": "/nowhere"}, capture_output=True, check=False)
    assert done.stdout.startswith(b"-C\n")
    assert (director.folder / "calls" / director.records[0][0]).read_text() == "-C\n"


def copies(director: Director, number: str) -> bool:
    """True if the process that copies the input of the call is there."""
    process = (director.folder / "calls" / f".{number}").read_text().strip()
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # which waits for its parent to notice its end


def test_a_restore_that_stops_at_a_wrong_line(director: Director) -> None:
    """Its status is there at once, and not when its input has ended."""
    command = [director.folder / "ipvsadm", "-Rn"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        running.stdin.write(b"wrong\n")
        running.stdin.flush()
        assert running.wait(60) == 2
        begun, ended = director.records
        assert ended == [f"{begun[0]}=2"]
        assert (director.folder / "calls" / begun[0]).read_text() == "wrong\n"
        await_end(director, begun[0])


def await_end(director: Director, number: str) -> None:
    deadline = time.monotonic() + 60
    while copies(director, number):
        assert time.monotonic() < deadline, "the copy of the input goes on"
        time.sleep(0.01)


def test_another_network_namespace_is_not_logged(director: Director) -> None:
    (director.folder / "network").unlink()
    (director.folder / "network").symlink_to("/proc/self/ns/mnt")
    assert director.run("-D").returncode == 7
    assert director.log == ""


def test_a_log_that_cannot_be_written_is_not_noticed(director: Director) -> None:
    (director.folder / "calls/log").unlink()
    (director.folder / "calls").rmdir()
    done = director.run("-A")
    assert (done.returncode, done.stderr) == (0, "error\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_call_that_is_ended_by_a_signal(director: Director, number: signal.Signals) -> None:
    os.mkfifo(director.folder / "fifo")
    running = subprocess.Popen([director.folder / "ipvsadm", "-E"], cwd=director.folder)
    # It can only be opened when the program has opened it too.
    with (director.folder / "fifo").open("w"):
        running.send_signal(number)
        assert running.wait(60) == 128 + number
    begun, ended = director.records
    assert ended == [f"{begun[0]}={128 + number}"]


def test_a_restore_that_is_ended_by_a_signal(director: Director) -> None:
    command = [director.folder / "ipvsadm", "-Rn"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as running:
        deadline = time.monotonic() + 60
        while not list((director.folder / "calls").glob(".*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + signal.SIGTERM
        begun, ended = director.records
        assert ended == [f"{begun[0]}={128 + signal.SIGTERM}"]
        await_end(director, begun[0])


def test_the_reader_and_the_mark(director: Director) -> None:
    here = {calls.FOLDER: f"{director.folder}/calls", calls.LOG: f"{director.folder}/calls/log"}
    director.run("-R", text="-A -t 192.0.2.1:80\n")

    def run(command: str) -> str:
        text = command.replace(calls.FOLDER, here[calls.FOLDER])
        return subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout

    run(calls.END_STEPS)
    printed = run(calls.READ)
    (begun, *_), (ended,), _ = director.records
    assert printed == (
        f"{calls.MARK}:{director.folder}/calls/{begun}\n-A -t 192.0.2.1:80\n"
        f"{calls.MARK}:{director.folder}/calls/log\n{calls.MARK}{begun}\t-R\n{calls.MARK}{ended}\n"
        f"{calls.MARK}{calls.STEPS_ENDED}\n"
    )
    assert run(calls.READ_SHORT) == unpack(run(calls.READ_PACKED)) == printed
    (director.folder / "calls/log").write_text("x" * (calls.SHORT + 1))
    assert run(calls.READ_SHORT) == unpack(run(calls.READ_PACKED))[:-1] != ""
