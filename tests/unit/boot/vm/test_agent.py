"""Both sides of the agent: the guest's script runs under sh on a pseudo terminal, as on a serial port."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest

from lvslab.boot.vm.agent import Agent, AgentSilent, Done

DEADLINE = 10.0
THREADS, ORDERS = 6, 30


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
    files = resources.files("lvslab.guest") / "root"
    text = (files / "agent").read_text()
    for own, file in (("/run/agent.out", tmp_path / "out"), ("/etc/lvslab/manage", files / "manage")):
        assert own in text
        text = text.replace(own, str(file))
    if shutil.which("busybox") is None:
        assert "busybox awk" in text
        text = text.replace("busybox awk", "awk")
    script = tmp_path / "agent"
    script.write_text(text)
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
    assert guest.run("echo hello") == Done(0, ("hello",))
    assert guest.run("true") == Done(0, ())
    assert guest.run("echo out; echo err >&2").lines == ("out", "err")
    assert guest.run("printf '  two  spaces\\n\\nno end'").lines == ("  two  spaces", "", "no end")
    assert guest.run("printf 'back\\134slash and 100%%'").lines == ("back\\slash and 100%",)
    # The agent's own words, printed by a command, are nothing to it.
    said = guest.run("echo '6 = 0'; echo lvslab-agent 1; echo 6: x")
    assert said.lines == ("6 = 0", "lvslab-agent 1", "6: x")
    assert guest.run('read -r x; echo "[$x]"').lines == ("[]",)


def test_an_order_may_be_long(guest: Agent) -> None:
    """Longer than a terminal's line of 4096 characters may be, were it not raw."""
    guest.await_greeting(DEADLINE)
    words = " ".join(f"word{number}" for number in range(700))
    assert guest.run(f"echo {words}").lines == (words,)
    assert guest.run("seq 1200").lines == tuple(str(number) for number in range(1, 1201))
    # Parts begin and end with anything.
    blanks = "'" + "  \t." * 300 + "'"
    assert guest.run(f"printf '%s|' {blanks}").lines == (f"{blanks[1:-1]}|",)
    letters = "ä\\" * 200
    assert guest.run(f"printf %s '{letters}'").lines == (letters,)
    assert guest.run("echo short").lines == ("short",)


def test_an_order_that_fails_tells_its_status_and_what_it_said(guest: Agent) -> None:
    guest.await_greeting(DEADLINE)
    assert guest.run("echo one; echo two >&2; (exit 3)") == Done(3, ("one", "two"))
    assert guest.run("false && true") == Done(1, ())
    assert guest.run("lvslab-has-no-such-program 2>/dev/null") == Done(127, ())
    assert guest.run("echo it goes on") == Done(0, ("it goes on",))


def test_all_orders_share_one_shell(guest: Agent) -> None:
    guest.await_greeting(DEADLINE)
    guest.run("kept=yes; cd /usr")
    assert guest.run("echo $kept $PWD").lines == ("yes /usr",)
    # `manage` has been read, so that to make a guest its node takes no shell more.
    assert guest.run("type manage").status == 0


# --- several who ask ----------------------------------------------------------------------------


def test_one_order_at_a_time_and_each_gets_its_own_answer(
    line: tuple[socket.socket, socket.socket],
) -> None:
    ours, guest = line
    agent, together = Agent(ours), threading.Barrier(THREADS)

    def ask(who: int) -> None:
        together.wait(DEADLINE)
        for number in range(ORDERS):
            assert agent.run(f"{who} {number}", DEADLINE) == Done(who, (f"{who} {number}", "end"))

    with ThreadPoolExecutor(THREADS) as pool:
        asked = [pool.submit(ask, who) for who in range(THREADS)]
        for _ in range(THREADS * ORDERS):
            received = guest.recv(65536)
            assert received.count(b"\n") == 1, f"a second order came before the answer: {received!r}"
            number, who, what = received.decode().split()
            # In two pieces, so that whoever else reads would have half of it.
            guest.sendall(f"{number}: {who} {what}\n{number}: en".encode())
            guest.sendall(f"d\n{number} = {who}\n".encode())
        for done in asked:
            done.result(DEADLINE)


def test_a_guest_that_ends_is_told_to_all_who_ask(line: tuple[socket.socket, socket.socket]) -> None:
    ours, guest = line
    agent = Agent(ours)
    with ThreadPoolExecutor(THREADS) as pool:
        asked = [pool.submit(agent.run, "true", DEADLINE) for _ in range(THREADS)]
        assert guest.recv(100).endswith(b" true\n")
        guest.close()
        for done in asked:
            with pytest.raises(AgentSilent, match="the guest ended"):
                done.result(DEADLINE)


def test_a_guest_gets_no_more_at_once_than_it_has_room_for(
    line: tuple[socket.socket, socket.socket],
) -> None:
    ours, guest = line
    command = "echo " + "x" * 1500
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(Agent(ours).run, command, DEADLINE)
        parts = []
        while (received := guest.recv(65536)) != b"1 \n":
            assert len(received) < 512 and received.endswith(b".\n") and received.startswith(b"1+ .")
            parts.append(received[4:-2])
            guest.sendall(b"1+\n")
        guest.sendall(b"1 = 0\n")
        assert asked.result(DEADLINE) == Done(0, ())
    assert b"".join(parts).decode() == command


def test_a_long_order_is_carried_out_once(guest: Agent, line: tuple[socket.socket, socket.socket]) -> None:
    guest.await_greeting(DEADLINE)
    assert guest.run("echo " + "y" * 600).lines == ("y" * 600,)
    # Who speaks to a copy of the guest counts anew.
    assert Agent(line[0]).run("echo short").lines == ("short",)


def test_parts_of_an_order_that_was_given_up_are_forgotten(guest: Agent) -> None:
    guest.await_greeting(DEADLINE)
    guest._say(b"9+ .echo lost.")
    assert guest.run("echo " + "y" * 600).lines == ("y" * 600,)


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


def test_a_turn_that_does_not_come(line: tuple[socket.socket, socket.socket]) -> None:
    """Whoever is in a hurry does not wait for the orders of others; the guest never hears of his."""
    ours, guest = line
    agent = Agent(ours)
    with agent.quiet(), ThreadPoolExecutor(1) as pool:
        hurried = pool.submit(agent.run, "hurried", DEADLINE, turn=0.02)
        with pytest.raises(AgentSilent) as caught:
            hurried.result(DEADLINE)
        assert caught.value.closed is False
    guest.sendall(b"1 = 0\n")
    assert agent.run("next", DEADLINE, turn=DEADLINE) == Done(0, ())
    assert guest.recv(100) == b"1 next\n"


def test_answers_are_told_apart_by_their_numbers(line: tuple[socket.socket, socket.socket]) -> None:
    """A late answer to an order that was given up is not the answer to the next."""
    ours, guest = line
    agent = Agent(ours)
    with pytest.raises(AgentSilent):
        agent.run("first", 0.0)
    guest.sendall(b"1: late\n1 = 7\n12 = 7\n2: right\n2 = 0\n")
    assert agent.run("second", DEADLINE) == Done(0, ("right",))
    assert guest.recv(100) == b"1 first\n2 second\n"
