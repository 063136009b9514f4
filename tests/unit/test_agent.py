"""Both sides of the agent: the guest's script runs under sh on a pseudo terminal, as on a serial port."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from lvslab.boot.agent import Agent, AgentSilent
from lvslab.errors import BootError

DEADLINE = 10.0


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the guest's end of the second serial line."""
    ours, guest = socket.socketpair()
    guest.settimeout(DEADLINE)
    with ours, guest:
        yield ours, guest


@pytest.fixture(params=["sh", "busybox sh", "bash"])
def guest(
    request: pytest.FixtureRequest, line: tuple[socket.socket, socket.socket], tmp_path: Path
) -> Iterator[Agent]:
    """An agent whose other side is the real script, joined to the socket by what QEMU is otherwise."""
    shell = request.param.split()
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    text = (resources.files("lvslab.build") / "guest/agent").read_text()
    assert "/run/agent.out" in text
    script = tmp_path / "agent"
    script.write_text(text.replace("/run/agent.out", str(tmp_path / "out")))
    ours, other = line
    other.settimeout(None)
    serial, tty = pty.openpty()
    with subprocess.Popen([*shell, script], stdin=tty, stdout=tty, stderr=subprocess.DEVNULL) as process:
        os.close(tty)
        threads = [
            threading.Thread(target=_copy, args=pair)
            for pair in ((other.fileno(), serial), (serial, other.fileno()))
        ]
        for thread in threads:
            thread.start()
        yield Agent(ours)
        process.kill()
        ours.close()
        for thread in threads:
            thread.join(DEADLINE)
    os.close(serial)


def _copy(source: int, target: int) -> None:
    try:
        while data := os.read(source, 4096):
            os.write(target, data)
    except OSError:
        pass  # the other side has gone: a pty says so with an error


def test_orders_are_carried_out(guest: Agent) -> None:
    guest.await_greeting(DEADLINE)
    assert guest.run("echo hello") == ["hello"]
    assert guest.run("true") == []
    assert guest.run("echo out; echo err >&2") == ["out", "err"]
    assert guest.run("printf '  two  spaces\\n\\nno end'") == ["  two  spaces", "", "no end"]
    assert guest.run("printf 'back\\134slash and 100%%'") == ["back\\slash and 100%"]
    # The agent's own words, printed by a command, are nothing to it.
    assert guest.run("echo '6 = 0'; echo lvslab-agent 1; echo 6: x") == ["6 = 0", "lvslab-agent 1", "6: x"]
    assert guest.run('read -r x; echo "[$x]"') == ["[]"]


def test_an_order_may_be_long(guest: Agent) -> None:
    """Longer than a terminal's line of 4096 characters may be, were it not raw."""
    guest.await_greeting(DEADLINE)
    words = " ".join(f"word{number}" for number in range(700))
    assert guest.run(f"echo {words}") == [words]
    assert guest.run("seq 1200") == [str(number) for number in range(1, 1201)]


def test_a_failure_names_the_order_and_what_it_said(guest: Agent) -> None:
    guest.await_greeting(DEADLINE)
    with pytest.raises(BootError) as caught:
        guest.run("echo one; echo two >&2; (exit 3)")
    assert "(status 3): echo one; echo two >&2; (exit 3)" in caught.value.message
    assert caught.value.hint == "one\n  two"
    with pytest.raises(BootError, match="it printed nothing"):
        guest.run("false && true")
    assert guest.run("echo it goes on") == ["it goes on"]


# --- a guest that does not do its part ----------------------------------------------------------


def test_noise_before_the_greeting_is_passed_over(line: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = line
    guest.sendall(b"SeaBIOS\r\n\nlvslab-agent 10\nlvslab-ag")
    guest.sendall(b"ent 1\r\n")
    Agent(ours).await_greeting(DEADLINE)


@pytest.mark.parametrize("said", [b"", b"SeaBIOS\n", b"lvslab-agent 1"])
def test_a_guest_without_a_greeting_is_silent(
    line: tuple[socket.socket, socket.socket], said: bytes
) -> None:
    ours, guest = line
    guest.sendall(said)
    with pytest.raises(AgentSilent, match="the guest is silent") as caught:
        Agent(ours).await_greeting(0.02)
    assert caught.value.closed is False
    # Too late already is no reason to wait.
    with pytest.raises(AgentSilent):
        Agent(ours).await_greeting(-1.0)


def test_a_guest_that_has_ended(line: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = line
    guest.sendall(b"booting\n")
    guest.close()
    with pytest.raises(AgentSilent, match="the guest ended") as caught:
        Agent(ours).await_greeting(DEADLINE)
    assert caught.value.closed is True


def test_an_order_to_a_guest_that_has_ended(line: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = line
    guest.close()
    with pytest.raises(AgentSilent, match="the guest ended"):
        Agent(ours).run("true")


def test_a_guest_that_ends_with_its_order(line: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = line
    guest.sendall(b"1: so far\n")
    guest.shutdown(socket.SHUT_WR)
    with pytest.raises(AgentSilent) as caught:
        Agent(ours).run("poweroff -f", DEADLINE)
    assert caught.value.closed is True
    assert guest.recv(100) == b"1 poweroff -f\n"


def test_an_order_without_an_answer(line: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = line
    with pytest.raises(AgentSilent) as caught:
        Agent(ours).run("sleep 100", 0.02)
    assert caught.value.closed is False


def test_answers_are_told_apart_by_their_numbers(line: tuple[socket.socket, socket.socket]) -> None:
    """A late answer to an order that was given up is not the answer to the next."""
    ours, guest = line
    agent = Agent(ours)
    with pytest.raises(AgentSilent):
        agent.run("first", 0.0)
    guest.sendall(b"1: late\n1 = 7\n12 = 7\n2: right\n2 = 0\n")
    assert agent.run("second", DEADLINE) == ["right"]
    assert guest.recv(100) == b"1 first\n2 second\n"
