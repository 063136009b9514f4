"""Captures of real requests: by lab.capture, and of a check that fails. tcpdump reads them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab.kernel import store
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

CLIENT, VIP, SERVERS = "66.199.240.10", "66.199.240.50", "net 10.0.0.0/24"
SYN, SYN_ACK = (f"tcp[13] & 0x12 = {flags}" for flags in ("0x02", "0x12"))
OLD = "2.4.37.11"
STORE = [kernel for kernel in store.installed() if kernel.name.startswith(f"{OLD}-")]

CHECKS = """
from lvslab.check.testbed import Testbed


def test_asks(lab: Testbed) -> None:
    lab.clients[0].get("http://66.199.240.50/?a-check-that-passes")


def test_asks_for_more(lab: Testbed) -> None:
    (reply,) = lab.clients[0].get("http://66.199.240.50/?a-check-that-fails")
    assert reply is None


def test_asks_in_a_lab_of_its_own(fresh_lab: Testbed) -> None:
    test_asks_for_more(fresh_lab)
"""


@pytest.fixture(scope="module", params=["debian-cloud", OLD])
def name(
    request: pytest.FixtureRequest,
    run: Runner,
    module_names: Names,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The name of a lab like web-nat, with checks of its own, on a kernel of today and on one of 2.4."""
    if request.param == OLD and not STORE:
        pytest.skip(f"there is no {OLD} in the store: ./run kernel.build {OLD}")
    folder = tmp_path_factory.mktemp("labs") / "captured"
    folder.mkdir()
    for file in ("lab.yaml", "howto.md"):
        shutil.copy(PROJECT / "labs/web-nat" / file, folder)
    (folder / "test_captured.py").write_text(CHECKS)
    name = module_names()
    run("lab.up", str(folder), "--name", name, "--kernel", request.param)
    return name


@contextmanager
def capturing(run: Runner, name: str, *words: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """``lab.capture`` with ``words`` from the moment that it has begun. It must end with the block."""
    command = [str(PROJECT / "run"), "lab.capture", *words, "--name", name]
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **how}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=run.environment, **how)
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith(b"capturing at ")
        yield process
        process.wait(20)
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGINT) -> str:
    """End a capture by a signal; what it says in the end."""
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    return said.decode()


def packets(file: Path, expression: str, *options: str) -> str:
    """The packets of a file that match, as tcpdump prints them, without what it knows of HTTP."""
    command = ["tcpdump", "-nnq", *options, "-r", str(file), expression]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ports(file: Path, expression: str) -> set[str]:
    """The client's ports in the packets that match."""
    return set(re.findall(rf"{CLIENT}\.(\d+)\b", packets(file, expression)))


def ask(run: Runner, name: str, count: int, page: str = "") -> None:
    """Ask for a page ``count`` times, in a connection each."""
    asking = "; ".join([f"curl -fsS http://{VIP}/{page}"] * count)
    assert run.execute(name, "client", asking).count("This page was made by") == count


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_two_sides_of_a_director_show_what_it_rewrites(
    run: Runner, name: str, tmp_path: Path, number: signal.Signals
) -> None:
    outer, inner = tmp_path / "outer.pcapng", tmp_path / "inner.pcapng"
    with (
        capturing(run, name, "director", "eth0", "--output", str(outer)) as at_eth0,
        capturing(run, name, "director", "eth1", "--output", str(inner)) as at_eth1,
    ):
        ask(run, name, 3, "?three-times")
        said = end(at_eth0, number), end(at_eth1, number)
    assert all(re.fullmatch(r"\d+ packets at director \(eth[01] \d+\), 0 dropped\n", each) for each in said)
    clients = ports(outer, f"src {CLIENT} and dst {VIP} and port 80 and {SYN}")
    assert len(clients) == 3
    # The client never hears of a server, nor a server of the virtual address.
    assert clients == ports(outer, f"src {VIP} and dst {CLIENT} and {SYN_ACK}")
    assert packets(outer, f"host {CLIENT} and {SERVERS}") == ""
    assert clients == ports(inner, f"src {CLIENT} and dst {SERVERS} and port 80 and {SYN}")
    assert clients == ports(inner, f"src {SERVERS} and dst {CLIENT} and {SYN_ACK}")
    assert packets(inner, f"host {VIP} and tcp port 80") == ""
    for file in (outer, inner):
        assert packets(file, "tcp port 80", "-A").count("GET /?three-times") == 3


def test_all_interfaces_in_one_file_in_the_order_of_time(run: Runner, name: str, tmp_path: Path) -> None:
    file = tmp_path / "both.pcapng"
    with capturing(
        run, name, "director", "--output", str(file), "--filter", f"tcp port 80 and {SYN}"
    ) as both:
        ask(run, name, 1)
        said = end(both)
    assert re.fullmatch(r"2 packets at director \(eth0 1, eth1 1\), 0 dropped\n", said)
    first, second = packets(file, "").splitlines()
    assert f"{CLIENT}." in first and f"> {VIP}.80" in first
    assert f"{CLIENT}." in second and "> 10.0.0." in second


def test_a_mininet_host(run: Runner, name: str, tmp_path: Path) -> None:
    file = tmp_path / "client.pcapng"
    words = ("client", "--output", str(file), "--filter", SYN, "--packets", "2")
    with capturing(run, name, *words) as at_client:
        ask(run, name, 2)
        at_client.wait(20)
    assert len(ports(file, f"src {CLIENT} and dst {VIP}")) == 2
    assert len(packets(file, "").splitlines()) == 2


@pytest.mark.slow
def test_what_was_written_until_a_capture_was_killed_is_whole(
    run: Runner, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "killed.pcapng"
    with capturing(run, name, "director", "--output", str(file)) as capture:
        empty = file.stat().st_size
        ask(run, name, 1)
        run.wait_until(lambda: file.stat().st_size > empty + 1000, 20, "packets are written")
        capture.kill()
    assert ports(file, f"src {CLIENT} and dst {VIP} and {SYN}")


def test_a_pipe_whose_reader_has_enough(run: Runner, name: str) -> None:
    command = ["tcpdump", "-nn", "-c", "2", "-r", "-", "tcp port 80"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        with capturing(run, name, "director", stdout=reader.stdin) as capture:
            reader.stdin.close()
            ask(run, name, 1)
            out = reader.stdout.read().decode()
            assert reader.wait(20) == 0
            capture.wait(20)
    assert capture.returncode == 0
    assert f"> {VIP}.80" in out and "> 10.0.0." in out


def test_a_check_that_fails_keeps_packets(run: Runner, name: str) -> None:
    evidence = Path(json.loads(run("lab.status", "--name", name, "--json").stdout)["evidence"])
    done = json.loads(run("lab.check", "--name", name, "--json", status=1).stdout)
    assert (done["passed"], done["failed"]) == (1, 2)
    kept = {file.name: file for file in (evidence / "captures").iterdir()}
    assert set(kept) == {
        f"test_captured.{test}.pcapng" for test in ("test_asks_for_more", "test_asks_in_a_lab_of_its_own")
    }
    for case in done["cases"][1:]:
        file = kept[f"test_captured.{case['name']}.pcapng"]
        assert f"{file}\n" in case["message"]
        assert "packets at director eth0, director eth1" in case["message"]
        for side in (f"dst {VIP}", f"dst {SERVERS}"):
            asked = packets(file, f"src {CLIENT} and {side} and tcp port 80", "-A")
            assert asked.count("GET /?a-check-that-fails") == 1
            assert "a-check-that-passes" not in asked


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nobody",), "has no node 'nobody'\n  its nodes: director, real-server-1"),
        (("director", "eth7"), "director has no interface 'eth7'\n  it has eth0, eth1"),
        (("client", "eth1"), "client has no interface 'eth1'\n  it has eth0"),
        (("director", "--filter", "tcp prot 80"), "'tcp prot 80' is not a filter: "),
        (("director", "--packets", "-1"), "--packets is -1"),
        (("director", "--output", "/nowhere/file"), "cannot write /nowhere/file: No such file"),
    ],
)
def test_what_cannot_be_captured(run: Runner, name: str, words: tuple[str, ...], says: str) -> None:
    done = run("lab.capture", *words, "--name", name, status=2)
    assert done.stdout == ""
    assert says in done.stderr


def test_a_terminal_gets_no_packets(run: Runner, name: str) -> None:
    with run.terminal("lab.capture", "director", "--name", name) as terminal:
        terminal.expect("error: packets are not for a terminal")
        assert terminal.status() == 2


# --- the last one: it ends the lab ------------------------------------------------------------------------


def test_the_end_of_the_lab(run: Runner, name: str, tmp_path: Path) -> None:
    file = tmp_path / "file.pcapng"
    with capturing(run, name, "director", "eth0", "--output", str(file)) as capture:
        ask(run, name, 1)
        run("lab.down", "--name", name)
        assert capture.wait(20) == 0
    assert len(ports(file, f"src {CLIENT} and dst {VIP} and {SYN}")) == 1
