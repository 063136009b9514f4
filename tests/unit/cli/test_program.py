"""What ``./run`` makes of a command line: arguments, usage errors, exit statuses, stdout and stderr."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Collection, Context
from invoke.exceptions import Exit

from lvslab import paths
from lvslab.cli.program import Group, LabProgram
from lvslab.errors import BootError, CheckFailed
from lvslab.paths import PROJECT

lab = Group("lab")


@lab.task(positional=["lab"], help={"lab": "a folder in labs/"})
def up(c: Context, lab: str = "web-nat", name: str = "", rounds: int = 3, apply: bool = True) -> None:
    """Boot a lab.

    Second paragraph.
    """
    print(json.dumps({"up": lab, "name": name, "rounds": rounds, "apply": apply}))


@lab.task()
def check(c: Context, outcome: str = "") -> None:
    """Check a lab."""
    logging.getLogger("lvslab.test").debug("checking")
    logging.getLogger("paramiko").error("noise")
    if outcome == "interrupt":
        raise KeyboardInterrupt
    if outcome == "failed":
        raise CheckFailed("the servers took no turns", "look at the table")
    if outcome == "boot":
        raise BootError("director did not come up")
    if outcome == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/file")
    if outcome == "refused":
        raise PermissionError(errno.EACCES, "Permission denied", "/boot/vmlinuz")
    if outcome == "cache":
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(paths.cache() / "kernels"))
    if outcome == "bug":
        raise ZeroDivisionError
    print(json.dumps({"check": True}))


@lab.task(name="exec", positional=["node"], rest="command")
def execute(c: Context, node: str, command: str) -> None:
    """Run a command on a node."""
    print(json.dumps({"node": node, "command": command}))
    raise Exit(code=7)


def run(*words: str) -> int:
    return LabProgram(Collection(lab)).status_of(["./run", *words])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lab.up", {}),
        ("lab.up ftp", {"up": "ftp"}),
        ("lab.up --name a ftp", {"up": "ftp", "name": "a"}),
        ("lab.up ftp --name a", {"up": "ftp", "name": "a"}),
        ("lab.up --name=a=b ftp", {"up": "ftp", "name": "a=b"}),
        ("lab.up --no-apply ftp", {"up": "ftp", "apply": False}),
        ("lab.up --rounds 5", {"rounds": 5}),
        ("lab.up --lab lab.check", {"up": "lab.check"}),
        ("-d lab.up ftp", {"up": "ftp"}),
        ("lab.up --debug ftp", {"up": "ftp"}),
    ],
)
def test_optional_positional(
    line: str, expected: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*line.split()) == 0
    default = {"up": "web-nat", "name": "", "rounds": 3, "apply": True}
    assert json.loads(capsys.readouterr().out) == default | expected


def test_commands_in_a_row_all_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.up", "--name", "a", "lab.check", "lab.check", "lab.up", "ftp") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [next(iter(document)) for document in printed] == ["up", "check", "check", "up"]
    assert [document.get("up") for document in printed] == ["web-nat", None, None, "ftp"]


@pytest.mark.parametrize(
    "line",
    [
        "director --command ls",
        "--command ls director",
        "--node director --command ls",
        "-d director --command ls",
        "director -- ls",
    ],
)
def test_required_positional_and_the_status_of_a_task(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.exec", *line.split()) == 7
    assert json.loads(capsys.readouterr().out) == {"node": "director", "command": "ls"}


def test_words_after_two_dashes_are_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """They are joined by spaces, as ssh does, so a whole line of shell in quotes is one too."""
    for words in (["ls", "-l", "--name", "|", "wc"], ["ls -l --name | wc"]):
        assert run("lab.exec", "director", "--", *words) == 7
        assert json.loads(capsys.readouterr().out) == {"node": "director", "command": "ls -l --name | wc"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lab.upp", "no command 'lab.upp'; did you mean lab.up?"),
        ("up", "no command 'up'; did you mean lab.up?"),
        ("xyzzy", "no command 'xyzzy'\n"),
        ("lab", "'lab' is a group of commands"),
        ("lab.up ftp dns", "no command 'dns'"),
        ("lab.up ftp --lab dns", "--lab is given twice"),
        ("lab.up --nmae a", "lab.up has no option '--nmae'; did you mean --name?"),
        ("lab.up --name", "--name needs a value"),
        ("lab.up --name=", "--name is empty\n  is it an unset variable of the shell?"),
        ("lab.up --name --no-apply", "--name needs a value"),
        ("lab.up --name a --name b", "--name is given twice"),
        ("lab.up --no-apply=yes", "--no-apply takes no value"),
        ("lab.up --rounds many", "--rounds takes a whole number, not 'many'"),
        ("lab.exec", "lab.exec needs NODE"),
        ("lab.exec director", "lab.exec needs --command=COMMAND"),
        ("lab.exec --nose x", "lab.exec has no option '--nose'; did you mean --node?"),
        ("--bogus lab.up", "no option '--bogus'"),
        ("lab.up -- ftp", "lab.up takes no words after '--', and here is 'ftp'"),
        ("-- lab.up", "there are no words after '--', and here is 'lab.up'"),
        ("lab.exec director --", "COMMAND after '--' is empty"),
        ("lab.exec director --command ls -- pwd", "COMMAND after '--' is given twice"),
        ("--help lab.upp", "no command 'lab.upp'"),
        ("--list lba", "no group of commands 'lba'"),
    ],
)
def test_wrong_usage(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")


def test_nothing_runs_before_the_whole_line_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.up", "lab.check", "lab.donw") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        ("failed", 1, "error: the servers took no turns\n  look at the table\n"),
        ("boot", 4, "error: director did not come up\n"),
        ("interrupt", 130, "error: interrupted\n"),
    ],
)
def test_failure_of_a_task(
    outcome: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("lab.check", "--outcome", outcome) == status
    assert capsys.readouterr() == ("", message)


def test_a_fault_of_ours_is_no_failed_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.check", "--outcome", "bug") == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_no_fault_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.check", "--outcome", "full") == 7
    printed = capsys.readouterr().err
    assert printed.startswith("error: there is no space left on the disk for /cache/file\n  free some space")


def test_a_file_that_may_not_be_used_is_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("lab.check", "--outcome", "refused") == 3
    assert capsys.readouterr().err == "error: /boot/vmlinuz cannot be used: Permission denied\n"
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    assert run("lab.check", "--outcome", "cache") == 3
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/kernels cannot be used: Not a directory\n"
        f"  set LVSLAB_CACHE to use another folder than {tmp_path}\n"
    )


def test_debug_logs_our_own_doings_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.check", "-d") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"check": True}
    assert "lvslab.test: checking" in printed.err
    assert "noise" not in printed.err
    assert run("lab.check", "--outcome", "boot", "--debug") == 4
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["", "--help", "--list", "-l"])
def test_overview(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == 0
    page = capsys.readouterr().out
    assert page.index("./run lab.up") < page.index("lab.up [LAB]") < page.index("lab.exec NODE")
    assert "Boot a lab." in page
    assert "Second paragraph" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize("line", ["--help lab.up", "lab.up --help", "lab.up ftp -h", "lab.check lab.up -h"])
def test_help_on_a_command(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*line.split()) == 0
    page = capsys.readouterr().out
    assert page.startswith("Usage: ./run lab.up [LAB] [OPTIONS]\n\nBoot a lab.\n\nSecond paragraph.\n")
    for shown in ("a folder in labs/", "--name=NAME", "--rounds=N", "--no-apply"):
        assert shown in page


def test_help_on_a_command_that_needs_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lab.exec", "--help") == 0
    assert capsys.readouterr().out.startswith("Usage: ./run lab.exec NODE [OPTIONS]\n")


def test_completion_knows_the_options_of_the_command_being_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--complete", "--", "run lab.check lab.up --n") == 0
    options = capsys.readouterr().out.split()
    assert "--no-apply" in options and "--outcome" not in options


def test_a_reader_that_goes_away_hears_no_complaint(tmp_path: Path) -> None:
    script = tmp_path / "chatter.py"
    script.write_text(
        "from lvslab.cli.program import Group, LabProgram\n"
        "group = Group()\n"
        "@group.task()\n"
        "def chatter(c):\n"
        "    while True: print('word ' * 1000)\n"
        "LabProgram(group).run(['./run', 'chatter'])\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([sys.executable, script], stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(("words", "status"), [(["--list"], 0), (["lab.dwon"], 2)])
def test_a_process_ends_with_the_status_and_all_of_its_output(words: list[str], status: int) -> None:
    """It does so at once, and must have flushed what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"from lvslab.cli.program import main; main({words})"],
        cwd=PROJECT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == status
    assert (b"lab.up" in done.stdout, b"did you mean lab.down" in done.stderr) == (not status, bool(status))


def test_output_that_cannot_be_written_is_no_success() -> None:
    program = "from lvslab.cli.program import LabProgram, main\n"
    program += "LabProgram.status_of = lambda *_: print('x') or 0\nmain([])"
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-P", "-c", program]
        done = subprocess.run(command, cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode != 0
    assert b"No space left on device" in done.stderr
