"""lab.load on a lab that is up: what it says, how it ends, and that it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

SERVICE = "66.199.240.50:80"


@pytest.fixture(scope="module")
def name(run: Runner, module_names: Names) -> str:
    """The name of a lab whose director gives connections out in the exact ratio of the weights."""
    name = module_names()
    run("lab.up", "--name", name)
    run.execute(name, "director", f"ipvsadm -E -t {SERVICE} -s wrr")
    return name


def load(run: Runner, name: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("lab.load", "--name", name, "--json", *options).stdout)
    return found


def test_shares_are_those_of_the_weights(run: Runner, name: str) -> None:
    found = load(run, name, "--seconds", "2")
    assert (found["name"], found["director"], found["scheduler"]) == (name, "director", "wrr")
    assert found["clients"] == ["client", "client-2"]
    assert not any(found["errors"].values())
    assert found["requests"] > 50
    assert found["requests_per_second"] == pytest.approx(found["requests"] / found["seconds"], rel=0.01)
    assert found["bytes_per_second"] > 100 * found["requests_per_second"]
    assert 2 <= found["seconds"] < 5
    one, two = found["servers"]
    assert [(each["server"], each["weight"]) for each in (one, two)] == [
        ("real-server-1", 1),
        ("real-server-2", 2),
    ]
    given = one["connections"] + two["connections"]
    # A round of wrr is three connections, and has one and two of them whatever the order; a round that has
    # only begun may have given the second server 0 to 2 and the first one 0 or 1.
    assert given // 3 <= one["connections"] <= -(-given // 3)
    assert one["share"] == pytest.approx(one["connections"] / given, abs=1e-4)
    assert one["by_weight"] == pytest.approx(1 / 3, abs=1e-4)
    # Each request has a connection of its own, and each client may have left those unanswered that it had
    # open at the end.
    assert found["requests"] <= given <= found["requests"] + 2 * found["connections"]


def test_one_client_and_what_people_read(run: Runner, name: str) -> None:
    said = run(
        *("lab.load", "--name", name, "--client", "client-2", "--seconds", "1", "--connections", "2")
    ).stdout
    assert f"{SERVICE} (wrr) through director" in said
    assert "from client-2: 2 connections at a time\n" in said
    assert "errors       none" in said
    assert "real-server-2  2 " in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--client", "nobody"), "has no client 'nobody'"),
        (("--director", "nobody"), "has no director 'nobody'"),
        (("--seconds", "61"), "--seconds is 61"),
        (("--connections", "0"), "--connections is 0"),
    ],
)
def test_what_cannot_be_asked_for(run: Runner, name: str, options: tuple[str, ...], says: str) -> None:
    done = run("lab.load", "--name", name, *options, status=2)
    assert done.stdout == ""
    assert says in done.stderr


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_load_leaves_nothing(run: Runner, name: str, sign: signal.Signals) -> None:
    command = [str(PROJECT / "run"), "lab.load", "--name", name, "--seconds", "60"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True, start_new_session=True
    )

    def generators() -> list[int]:
        running = [pid for pid in run.children(process.pid) if program(pid) == "wrk"]
        return running if len(running) == 2 else []

    wrks = run.wait_until(generators, 30, "two clients send requests")
    os.killpg(process.pid, sign) if sign == signal.SIGINT else os.kill(process.pid, sign)
    out, err = process.communicate(timeout=20)
    if sign == signal.SIGINT:
        assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    run.wait_until(lambda: not any(program(pid) == "wrk" for pid in wrks), 5, "the generators end")
    assert run.execute(name, "director", "hostname") == "director"


def program(pid: int) -> str:
    """The name of the program that ``pid`` runs, "" where it has ended, reaped or not."""
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]).name
    except (FileNotFoundError, ProcessLookupError):
        return ""


# --- the last ones: they break the lab -------------------------------------------------------------------


def test_errors_are_counted_when_the_servers_are_stopped(run: Runner, name: str) -> None:
    run.execute(name, "real-server-1", "service nginx stop")
    half = load(run, name, "--seconds", "1", "--connections", "2")
    assert half["requests"] > 0
    assert sum(half["errors"].values()) > 0
    run.execute(name, "real-server-2", "service nginx stop")
    none = load(run, name, "--seconds", "1", "--connections", "2")
    assert none["requests"] == 0
    assert sum(none["errors"].values()) > 0


def test_a_server_that_cannot_be_reached_has_answered_nothing(run: Runner, name: str) -> None:
    for server in ("real-server-1", "real-server-2"):
        run.execute(name, server, "service nginx start")
    run.execute(name, "real-server-2", "ip link set eth0 down")
    found = load(run, name, "--seconds", "2", "--connections", "2")
    one, two = found["servers"]
    assert two["connections"] > 0 and two["answered"] == 0
    assert found["given"] == one["connections"] + two["connections"]
    assert found["unanswered"] == found["given"] - found["requests"] >= two["connections"]


def test_a_director_without_a_service(run: Runner, name: str) -> None:
    run.execute(name, "director", "ipvsadm -C")
    done = run("lab.load", "--name", name, status=6)
    assert "director has no virtual service" in done.stderr
