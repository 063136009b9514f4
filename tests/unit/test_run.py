from __future__ import annotations

import ast
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lvslab.errors import CommandFailed, MachineError
from lvslab.paths import PROJECT
from lvslab.run import PIPE, STDOUT, ended, last_lines, pasteable, run, spawn


def test_what_it_printed_and_how_it_ended() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)


def test_input_environment_folder_and_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_KEPT", "kept")
    reading, writing = os.pipe()
    os.write(writing, b"handed down\n")
    os.close(writing)
    try:
        script = 'cat; pwd; echo "$LVSLAB_KEPT $LVSLAB_ADDED"; cat "/proc/self/fd/$1"'
        done = run(
            ["sh", "-c", script, "sh", str(reading)],
            input=b"typed\n",
            cwd=tmp_path,
            env={"LVSLAB_ADDED": "added"},
            pass_fds=[reading],
        )
    finally:
        os.close(reading)
    assert done.stdout.decode().splitlines() == ["typed", str(tmp_path), "kept added", "handed down"]


def test_what_is_typed_at_lvslab_is_not_for_its_children() -> None:
    program = "from lvslab.run import run; print(run(['cat']).stdout)"
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"typed\n", stdout=subprocess.PIPE, cwd=PROJECT, check=True
    )
    assert done.stdout == b"b''\n"


def test_stderr_in_the_order_of_the_output() -> None:
    done = run(["sh", "-c", "echo one; echo two >&2; echo three"], stderr=STDOUT)
    assert (done.stdout, done.stderr) == (b"one\ntwo\nthree\n", b"")


def test_a_child_ends_with_the_block() -> None:
    with spawn(["cat"], stdin=PIPE, stdout=PIPE) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(ZeroDivisionError), spawn(["cat"], stdin=PIPE) as process:
        _ = 1 / 0
    assert process.returncode == -signal.SIGKILL


def test_a_child_that_has_ended_keeps_its_status_and_unread_input_is_no_error() -> None:
    with spawn(["true"], stdin=PIPE) as process:
        assert process.wait() == 0
        assert process.stdin is not None
        process.stdin.write(b"x")
    assert process.returncode == 0


def test_a_child_that_outlives_the_block() -> None:
    with spawn(["cat"], stdin=PIPE, stdout=PIPE, outlives=True) as process:
        pass
    assert process.communicate(b"still here") == (b"still here", None)
    assert process.returncode == 0


def test_only_this_module_starts_programs() -> None:
    starting = set()
    for file in (PROJECT / "lvslab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            if "subprocess" in names:
                starting.add(str(file.relative_to(PROJECT)))
    assert starting == {"lvslab/run.py"}


def test_another_file_under_the_name() -> None:
    assert run(["a name", "-c", "echo $0"], executable="/bin/sh").stdout == b"a name\n"


def test_a_bad_status_is_told_once_with_the_last_words() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo lost; seq 20 >&2; exit 4"])
    assert caught.value.message == "sh ended with status 4: sh -c 'echo lost; seq 20 >&2; exit 4'"
    assert caught.value.hint == "\n  ".join(str(number) for number in range(13, 21))
    assert caught.value.status == 4


def test_without_words_on_stderr_stdout_is_quoted() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo said; exit 1"])
    assert caught.value.hint == "said"


def test_a_signal_is_told_from_a_status() -> None:
    with pytest.raises(CommandFailed, match=r"^sh was ended by SIGTERM: ") as caught:
        run(["sh", "-c", "kill -TERM $$"])
    assert caught.value.status == -signal.SIGTERM
    assert caught.value.hint is None


def test_a_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"^no-such-program is not installed\n  \./run doctor"):
        run(["no-such-program", "argument"])


def test_a_program_that_may_not_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "program").write_text("#!/bin/sh\n")
    with pytest.raises(MachineError, match="program"):
        run(["program"])


def test_a_command_without_an_end() -> None:
    with pytest.raises(CommandFailed, match=r"sh did not end within 0\.05 s") as caught:
        run(["sh", "-c", "echo begun >&2; exec cat /dev/zero >/dev/null"], timeout=0.05)
    assert caught.value.status == -signal.SIGKILL


def test_commands_are_logged_as_one_would_paste_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lvslab.run"):
        run(["echo", "two words", Path("a'b")])
    assert caplog.messages == ["""echo 'two words' 'a'"'"'b'"""]
    assert pasteable(["echo", Path("x y")]) == "echo 'x y'"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ip ended with status 0"),
        (127, "ip ended with status 127"),
        (-9, "ip was ended by SIGKILL"),
        (-11, "ip was ended by SIGSEGV"),
        (-40, "ip was ended by signal 40"),
    ],
)
def test_endings_in_words(status: int, words: str) -> None:
    assert ended("ip", status) == words


def test_last_lines_are_those_that_say_something() -> None:
    assert last_lines(b"a\n\n  \nb\n\xff\n", count=2) == "b\n  \ufffd"
    assert last_lines(b"\n \n") is None
