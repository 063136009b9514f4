"""Labs of single tests, in a pytest of their own: the how-to is typed once, and each of them is as it was
right after the last step all the same, and a machine for itself.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab import paths
from lvslab.boot import control

if TYPE_CHECKING:
    from tests.lab.conftest import Runner

# What each test writes down of the lab that it got, before it does anything else.
HEAD = '''
import json, os, time
import pytest
from pathlib import Path

@pytest.fixture
def seen(fresh_lab, request):
    """The fresh lab, after it was looked at."""
    lab = fresh_lab
    said = lab.cluster.observe("director", "cat /proc/sys/kernel/random/uuid; date +%s; hostname; ls /root;"
        " cat /proc/sys/net/ipv4/ip_forward; iptables -t nat -S POSTROUTING;"
        # Again where an address changed meanwhile, as when duplicate address detection has accepted it.
        " until said=$(ip -br address 2>&1); case $said in *interrupted*) false;; esac; do :; done;"
        ' echo "$said"').splitlines()
    found = {
        "uuid": said[0], "clock": int(said[1]), "here": time.time(), "rest": said[2:],
        "as typed": lab.reading().rules == lab.table_of_steps(),
        "transcript": (lab.cluster.evidence / "transcript.jsonl").read_text(),
        "status": lab.cluster.status().as_json(),
    }
    with Path(__file__).with_name("seen.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\\n")
    return lab
'''
BREAKS = [
    "lab.node('director').execute('ipvsadm -C; iptables -t nat -F')",
    "lab.node('director').execute('hostname other; echo 1 > /root/left; date -s 2001-01-01')",
    "lab.node('director').execute('ip address flush dev eth1; sysctl -w net.ipv4.ip_forward=0')",
    """
    from lvslab.errors import LvsLabError
    with pytest.raises(LvsLabError):
        lab.cluster.observe('director', 'echo c > /proc/sysrq-trigger')""",
]
ROUND = "taken = lab.round()\n    assert taken.observed == taken.forecast"


@dataclass(frozen=True)
class Session:
    """A folder of a lab, and pytest on it."""

    folder: Path
    state: Path

    def start(self, tests: str, *options: str) -> subprocess.Popen[str]:
        (self.folder / "test_it.py").write_text(HEAD + tests)
        plain = ["-q", "-p", "no:cacheprovider", "--log-cli-level=WARNING"]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest", *plain, *options, str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=paths.PROJECT,
            env={**os.environ, "LVSLAB_STATE": str(self.state)},
            start_new_session=True,
        )

    def run(self, tests: str, *options: str, status: int = 0) -> str:
        """What pytest prints. Afterwards no lab of the session is left."""
        with self.start(tests, *options) as process:
            try:
                said, _ = process.communicate(timeout=240)
            finally:
                process.kill()
        assert process.returncode == status, said
        assert self.left() == []
        return said

    def left(self) -> list[str]:
        return [name for name in control.running() if name.startswith(self.folder.name)]

    @property
    def seen(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "seen.jsonl").read_text().splitlines()]

    def ways(self) -> list[str]:
        """How each test's director came up."""
        return [found["status"]["nodes"]["director"]["way"] for found in self.seen]


@pytest.fixture
def session(machine: None, tmp_path: Path) -> Session:
    folder = tmp_path / f"fresh-{secrets.token_hex(3)}"
    folder.mkdir()
    for name in ("lab.yaml", "howto.md"):
        shutil.copy(paths.labs() / "web-nat" / name, folder)
    return Session(folder, tmp_path / "state")


def test_nothing_of_one_test_is_left_in_the_next(session: Session) -> None:
    tests = "".join(
        f"\ndef test_{number}(seen):\n    lab = seen\n    {text}\n"
        for number, text in enumerate([*BREAKS, ROUND])
    )
    session.run(tests)
    first, *others = session.seen
    assert session.ways() == ["resumed", *["copied"] * 4]
    for found in session.seen:
        assert found["as typed"]
        assert found["rest"] == first["rest"]
        # It was set, to a whole second, after this lab had been started.
        assert found["status"]["started"] - 2 < found["clock"] <= found["here"] + 1
        assert found["status"]["steps"] == first["status"]["steps"]
        assert found["transcript"] == first["transcript"]
    assert "director" in first["rest"][0]
    assert len({found["uuid"] for found in session.seen}) == 5
    assert "typed_in" not in first["status"]
    for found in others:
        assert found["status"]["typed_in"] == first["status"]["evidence"]
        assert json.loads((Path(found["status"]["evidence"]) / "typed-in.json").read_text())["typed_in"]


@pytest.mark.slow
def test_a_how_to_for_other_nodes_is_typed_in_each_lab(session: Session) -> None:
    howto = session.folder / "howto.md"
    howto.write_text(howto.read_text() + "\n```sh node=client\ntouch /root/typed\n```\n")
    session.run(
        "@pytest.mark.parametrize('number', range(2))\n"
        "def test_it(seen, number): assert seen.node('client').output('ls /root/typed')\n"
    )
    assert session.ways() == ["resumed", "resumed"]


@pytest.mark.slow
def test_a_step_that_fails_fails_every_test_that_wanted_it(session: Session) -> None:
    howto = session.folder / "howto.md"
    howto.write_text(howto.read_text() + "\n```sh node=director\nfalse\n```\n")
    said = session.run(
        "@pytest.mark.parametrize('number', range(3))\ndef test_it(fresh_lab, number): pass\n", status=1
    )
    assert "3 errors" in said
    assert said.count("on director: false") >= 3


@pytest.mark.slow
def test_a_copy_that_cannot_be_resumed_is_done_without(session: Session) -> None:
    # What is kept of the first lab is damaged before the second one begins with it.
    damage = """
from lvslab.boot.vm import clone as copies
from lvslab.cluster.cluster import Cluster
copied = Cluster.copy
def damaged(self, summary):
    from dataclasses import replace
    found = copied(self, summary)
    (memory, _), = found.copies.values()
    empty = os.memfd_create("state")
    os.write(empty, b"no state")
    return replace(found, copies={"director": (memory, empty)})
Cluster.copy = damaged
"""
    said = session.run(
        f"{damage}\n@pytest.mark.parametrize('number', range(3))\n"
        "def test_it(seen, number): assert seen.reading().rules == seen.table_of_steps()\n"
    )
    assert session.ways() == ["resumed"] * 3
    assert "QEMU refuses the state of the copy" in said


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_pytest_is_the_end_of_all(session: Session, sign: signal.Signals, run: Runner) -> None:
    with session.start(
        "def test_1(fresh_lab): pass\ndef test_2(seen):\n    print(end='', flush=True)\n"
        "    Path(__file__).with_name('here').touch()\n    time.sleep(600)\n"
        "def test_3(fresh_lab): pass\n"
    ) as process:
        try:
            run.wait_until((session.folder / "here").exists, 120, "the second test runs")
            assert session.ways() == ["copied"]
            process.send_signal(sign)
            process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    run.wait_until(lambda: not session.left(), 20, "no lab is left")
    names = {file.name for file in session.state.rglob("*") if file.is_file()}
    assert not {"memory", "state"} & names


@pytest.mark.slow
def test_the_first_failure_may_be_the_last(session: Session) -> None:
    said = session.run(
        "@pytest.mark.parametrize('number', range(5))\ndef test_it(seen, number): assert number == 0\n",
        "-x",
        status=1,
    )
    assert "1 failed, 1 passed" in said
    assert session.ways() == ["resumed", "copied"]
