"""The commands, as a user gives them, on one lab that is up."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Any

import pytest

from lvslab.boot import control
from lvslab.paths import PROJECT

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from tests.lab.conftest import Names, Runner

STEPS = {"total": 7, "failed": 0, "expected_failures": 1}
"""What the issue promises of them; there may be more."""


@pytest.fixture(scope="module")
def brought_up(run: Runner, module_names: Names) -> CompletedProcess[str]:
    """What ``lab.up --json`` said."""
    return run("lab.up", "--name", module_names(), "--json")


@pytest.fixture(scope="module")
def name(brought_up: CompletedProcess[str], module_names: Names) -> str:
    """The name under which the lab is up."""
    return module_names.given[0]


@pytest.fixture(scope="module")
def kernel(brought_up: CompletedProcess[str]) -> str:
    return str(json.loads(brought_up.stdout)["kernel"])


def status_of(run: Runner, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("lab.status", "--name", name, "--json").stdout)
    return found


def assert_unharmed(run: Runner, name: str) -> None:
    """Every node is up, and the director answers."""
    nodes = status_of(run, name)["nodes"]
    assert {node["state"] for node in nodes.values()} == {"up"}
    assert run.execute(name, "director", "hostname") == "director"


def error_of(done: CompletedProcess[str]) -> str:
    """The one error on stderr; nothing may be on stdout."""
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return done.stderr


# --- lab.up -----------------------------------------------------------------------------------------------


def test_up_prints_one_json_document(brought_up: CompletedProcess[str], name: str) -> None:
    found = json.loads(brought_up.stdout)
    assert found["lab"] == "web-nat"
    assert found["name"] == name
    assert found["kernel"][0].isdecimal()
    assert found["accelerator"] in ("kvm", "tcg")
    assert list(found["nodes"]) == ["director", "real-server-1", "real-server-2", "client", "client-2"]
    assert found["nodes"]["director"]["addresses"] == {"eth0": "66.199.240.50", "eth1": "10.0.0.1"}
    assert found["steps"].items() >= STEPS.items()
    assert found["distribution"] == {
        "real-server-1": {"expected": 4, "observed": 4},
        "real-server-2": {"expected": 8, "observed": 8},
    }
    phases = ["prepare", "guests started", "network", "services", "guests up", "steps", "first round"]
    assert [phase for phase in found["phases"] if phase != "KVM tried"] == phases
    assert all(isinstance(seconds, float) and seconds >= 0 for seconds in found["phases"].values())


def test_up_says_on_stderr_what_it_does(brought_up: CompletedProcess[str]) -> None:
    assert "waiting for the directors" in brought_up.stderr
    assert re.search("^director: (resumed from|booted)", brought_up.stderr, re.MULTILINE)
    assert "accelerator: " in brought_up.stderr
    assert "\x1b" not in brought_up.stderr


def test_a_drawing_of_what_runs(run: Runner, name: str, tmp_path: Path) -> None:
    svg, mermaid = tmp_path / "lab.svg", tmp_path / "lab.mmd"
    drawn = run("lab.show", "--name", name, "--svg", str(svg), "--mermaid", str(mermaid)).stdout
    for text in (
        "tcp 66.199.240.50:80  wlc",
        "→ 10.0.0.101:80  Masq, weight 2",
        "up, service up",
        "━ lan 10.0.0.0/24",
    ):
        assert text in drawn, drawn
    assert "weight 2" in svg.read_text() and "weight 2" in mermaid.read_text()
    # By its folder alone, a lab has no virtual service.
    assert "wlc" not in run("lab.show", "web-nat").stdout
    assert "are two labs" in error_of(run("lab.show", "web-nat", "--name", name, status=2))
    assert "there is no folder" in error_of(run("lab.show", "web-nat", "--svg", "/no/where.svg", status=2))
    boxes = json.loads(run("lab.show", "--name", name, "--json").stdout)["boxes"]
    assert {"title", "role", "rows", "networks"} == boxes[0].keys()


def test_a_second_lab_of_the_same_name_is_refused(run: Runner, name: str) -> None:
    said = error_of(run("lab.up", "--name", name, "--json", status=6))
    assert f"the lab '{name}' is up already" in said
    assert f"./run lab.down --name {name}" in said
    assert_unharmed(run, name)


# --- lab.exec ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["director", "client"])
def test_exec_passes_on_streams_and_status(run: Runner, name: str, node: str) -> None:
    command = "cat; hostname; echo oh >&2; exit 7"
    done = run("lab.exec", node, "--name", name, "--command", command, input="fed\nin\n", status=7)
    assert done.stdout == f"fed\nin\n{node}\n"
    assert done.stderr == "oh\n"


def test_exec_on_an_unknown_node(run: Runner, name: str) -> None:
    done = run("lab.exec", "direktor", "--name", name, "--command", "true", status=2)
    said = error_of(done)
    assert "no node 'direktor'" in said
    assert "real-server-1" in said


# --- lab.status, lab.transcript, lab.list -----------------------------------------------------------------


def test_status(run: Runner, name: str, kernel: str) -> None:
    found = status_of(run, name)
    assert (found["lab"], found["name"], found["ready"]) == ("web-nat", name, True)
    assert found["nodes"]["director"]["kind"] == "guest"
    assert found["nodes"]["real-server-1"]["service"] == "up"
    assert found["steps"]["total"] == 7
    assert kernel in run("lab.status", "--name", name).stdout


def test_transcript(run: Runner, name: str) -> None:
    entries = json.loads(run("lab.transcript", "--name", name, "--json").stdout)
    taken = entries[:7]
    assert [entry["outcome"] for entry in taken] == ["ok", "ok", "expected failure", *["ok"] * 4]
    assert taken[1]["output"] == "net.ipv4.ip_forward = 1\n"
    assert taken[2]["status"] not in (0, None)
    assert "ipvsadm -A -t 66.199.240.50:80 -s wlc" in run("lab.transcript", "--name", name).stdout


def test_list_shows_a_lab_that_is_starting(run: Runner, names: Names) -> None:
    """First while its kernel and image are made ready, then while its nodes come up; not after its end."""
    name = names()

    def seen() -> tuple[str, list[dict[str, Any]]] | None:
        rows = json.loads(run("lab.list", "--json").stdout)
        for row in rows:
            if coming := [each for each in row["starting"] if each["name"] == name]:
                return row["lab"], coming
        assert all(name not in row["up"] for row in rows)
        return None

    command = [str(PROJECT / "run"), "lab.up", "--cold", "--name", name]
    with subprocess.Popen(command, env=run.environment, stdout=DEVNULL, stderr=DEVNULL) as starter:
        found = run.wait_until(lambda: (at := seen()) and at[0] == "web-nat" and at, 60, "lab.list shows it")
        assert found == ("web-nat", [{"name": name, "process": starter.pid}])
        assert f"{name} (starting, process {starter.pid})" in run("lab.list").stdout
        starter.kill()
    run.wait_until(lambda: seen() is None, 20, "the lab is gone")


def test_list_names_it(run: Runner, name: str) -> None:
    # Another checkout's web-nat may be up too, and is a row of its own.
    rows = json.loads(run("lab.list", "--json").stdout)
    assert [row["lab"] for row in rows if name in row["up"]] == ["web-nat"]
    assert name in run("lab.list").stdout


# --- lab.console, lab.ssh ---------------------------------------------------------------------------------


def test_console_through_a_pipe(run: Runner, name: str, kernel: str) -> None:
    done = run("lab.console", "director", "--name", name, input="uname -r\n")
    assert f"\n{kernel}" in done.stdout.replace("\r", "")


def test_console_in_a_terminal_until_the_escape(run: Runner, name: str) -> None:
    with run.terminal("lab.console", "director", "--name", name) as terminal:
        terminal.expect(r"Escape with Ctrl-\]")
        terminal.type("\r")
        terminal.expect("# ")
        terminal.type("echo $((6 * 7))\r")
        terminal.expect("\n42")
        assert not terminal.restored
        terminal.type("\x1d")
        assert terminal.status() == 0
        assert terminal.restored
    assert_unharmed(run, name)


def test_only_directors_have_a_console(run: Runner, name: str) -> None:
    said = error_of(run("lab.console", "client", "--name", name, status=2))
    assert "client has no serial console" in said
    assert "director" in said


@pytest.mark.parametrize("node", ["director", "client"])
def test_ssh_in_a_terminal(run: Runner, name: str, node: str) -> None:
    with run.terminal("lab.ssh", node, "--name", name) as terminal:
        terminal.expect("[#$] ")
        terminal.type("test -t 0 && echo $((6 * 7)) on $(hostname); exit 9\n")
        terminal.expect(f"42 on {node}")
        assert terminal.status() == 9
        assert terminal.restored
    assert_unharmed(run, name)


# --- lab.apply, lab.down ----------------------------------------------------------------------------------


def test_apply_a_second_time_is_refused(run: Runner, name: str) -> None:
    said = error_of(run("lab.apply", "--name", name, status=6))
    assert f"the how-to has already been applied to the lab '{name}'" in said
    assert_unharmed(run, name)
    assert status_of(run, name)["steps"].items() >= STEPS.items()


def test_apply_that_fails_names_its_line_and_leaves_the_lab_up(run: Runner, names: Names) -> None:
    name = names()
    run("lab.up", "--name", name, "--no-apply")
    # As a user would who tries the steps by hand first: what -A adds is there already.
    run.execute(name, "director", "ipvsadm -A -t 66.199.240.50:80 -s wlc")
    said = error_of(run("lab.apply", "--name", name, status=5))
    assert "howto.md:78: on director: ipvsadm -A -t 66.199.240.50:80 -s wlc" in said
    assert "Service already exists" in said
    assert_unharmed(run, name)
    assert status_of(run, name)["steps"]["failed"] == 1


def test_apply_after_up_without_it(run: Runner, names: Names) -> None:
    name = names()
    run("lab.up", "--name", name, "--no-apply")
    assert "has not been applied" in run("lab.status", "--name", name).stdout
    assert run.execute(name, "director", "ipvsadm -Sn") == ""
    found = json.loads(run("lab.apply", "--name", name, "--json").stdout)
    assert found["steps"].items() >= STEPS.items()
    assert found["distribution"]["real-server-2"] == {"expected": 8, "observed": 8}


@pytest.mark.slow
def test_a_lab_that_was_typed_by_hand_is_checked_as_it_is(run: Runner, names: Names) -> None:
    """With another scheduler than the how-to's, and without its weight."""
    name = names()
    up = run("lab.up", "--name", name, "--no-apply").stdout
    assert "nothing was typed yet. The how-to begins on director (howto.md:" in up
    assert "steps:" not in up
    said = error_of(run("lab.check", "--name", name, status=6))
    assert f"no director of the lab '{name}' has a virtual service, so there is nothing to check" in said
    assert "./run lab.apply types all of it" in said
    by_hand = (
        "sysctl -w net.ipv4.ip_forward=1 && iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE"
        " && ipvsadm -A -t 66.199.240.50:80 -s rr"
        " && ipvsadm -a -t 66.199.240.50:80 -r 10.0.0.100:80 -m"
        " && ipvsadm -a -t 66.199.240.50:80 -r 10.0.0.101:80 -m"
    )
    run.execute(name, "director", by_hand)
    checked = run(
        "lab.check", "--name", name, "--here", "--select", "table or everybody or counters or page", "--json"
    )
    found = json.loads(checked.stdout)
    assert found["passed"] == len(found["cases"]) > 1, found
    assert not any(case["own_lab"] for case in found["cases"])
    # What was typed is the expectation: with a server less, it is one that lab.check has not seen.
    run.execute(name, "director", "ipvsadm -d -t 66.199.240.50:80 -r 10.0.0.101:80")
    run("lab.check", "--name", name, "--here", "--select", "table", "--json")
    said = error_of(run("lab.check", "--name", name, "--select", "nothing-of-that-name", "--json", status=2))
    assert "--select 'nothing-of-that-name' matches no check" in said


# Last: it ends the lab of this module.
def test_down_ends_it_and_all_logins(run: Runner, name: str) -> None:
    with ExitStack() as opened:
        logins = []
        for command, node in (("lab.ssh", "director"), ("lab.ssh", "client"), ("lab.console", "director")):
            login = opened.enter_context(run.terminal(command, node, "--name", name))
            logins.append(login)
            if command == "lab.console":
                login.expect("Escape")
                login.type("\r")
            login.expect("[#$] ")
        assert json.loads(run("lab.down", "--name", name, "--json").stdout) == {"ended": [name]}
        assert name not in control.running()
        # Whoever held on to a login would keep the lab's network namespace.
        assert [login.status() for login in logins] == [255, 255, 0]
        assert all(login.restored for login in logins)
    labs = json.loads(run("lab.list", "--json").stdout)
    assert all(name not in row["up"] for row in labs)


@pytest.mark.parametrize(
    "command",
    [
        ("lab.status", "--json"),
        ("lab.exec", "director", "--command", "true"),
        ("lab.ssh", "director"),
        ("lab.console", "director"),
        ("lab.transcript", "--json"),
        ("lab.apply",),
        ("lab.check", "--json"),
        ("lab.down",),
    ],
    ids=lambda command: str(command[0]),
)
def test_commands_where_nothing_is_up(run: Runner, names: Names, command: tuple[str, ...]) -> None:
    name = names()
    assert f"the lab '{name}' is not up" in error_of(run(*command, "--name", name, status=6))
