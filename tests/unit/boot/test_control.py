"""Real sockets, and both sides of the conversation; only who is root is said here."""

from __future__ import annotations

import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lvslab import errors
from lvslab.boot import control
from lvslab.boot.control import Control, Handler
from lvslab.errors import (
    BootError,
    CheckFailed,
    CommandFailed,
    LabFileError,
    LvsLabError,
    MachineError,
    StateError,
    UsageError,
)
from lvslab.paths import PROJECT

DEADLINE = 10.0


@pytest.fixture
def name() -> str:
    return f"unit-{secrets.token_hex(6)}"


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says who is on the other side of a socket, whoever runs this; at first it is root."""

    def is_user(user: int) -> None:
        def getsockopt(self: socket.socket, level: int, option: int, *size: int) -> Any:
            if option == socket.SO_PEERCRED:
                return struct.pack("3i", os.getpid(), user, 0)
            return socket._socket.socket.getsockopt(self, level, option, *size)  # type: ignore[attr-defined]

        monkeypatch.setattr(socket.socket, "getsockopt", getsockopt, raising=False)

    is_user(0)
    return is_user


class Lab(Handler):
    """A supervisor that answers whatever this test wants to hear."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.sent = 0

    def __call__(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        self.asked.append(request)
        match request["ask"]:
            case "echo":
                return request["text"]
            case "descriptors":
                reading, writing = os.pipe()
                os.write(writing, b"through a pipe")
                os.close(writing)
                descriptors.append(reading)
                descriptors.append(os.open("/dev/null", os.O_RDONLY))
                return "two"
            case "observe":
                failed = request["command"] == "false"
                return {"status": int(failed), "output": f"it is {request['command']}\n"}
            case "usage":
                raise UsageError("no such node", "its nodes: a, b")
            case "fault":
                return 1 / 0
            case "end":
                descriptors.append(os.pidfd_open(request["pid"]))
                return None
        raise AssertionError(request)

    def answered(self) -> None:
        self.sent += 1


@pytest.fixture
def lab(name: str, root: object) -> Iterator[Lab]:
    """A supervisor under ``name`` that serves connections until the test ends."""
    answers = Lab()
    threads: list[threading.Thread] = []
    with control.reserve(name) as listener:
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                thread = threading.Thread(target=control.serve, args=(connection, answers))
                threads.append(thread)
                thread.start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield answers
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(DEADLINE)
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


# --- names -----------------------------------------------------------------------------------------


def test_a_name_is_taken_once(name: str) -> None:
    with control.reserve(name):
        with pytest.raises(StateError, match=f"the lab '{name}' is up already") as caught:
            control.reserve(name)
        assert f"./run lab.down --name {name}" in (caught.value.hint or "")
        assert name in control.running()
    assert name not in control.running()
    control.reserve(name).close()


def test_a_name_is_free_when_its_holder_is_gone(name: str) -> None:
    program = """
import os, signal, sys
from lvslab.boot import control
held = control.reserve(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program, name], cwd=PROJECT, check=False).returncode == -9
    assert name not in control.running()


def test_a_connection_holds_no_name(name: str) -> None:
    with control.reserve(name) as listener:
        listener.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(listener.getsockname())
            connection, _ = listener.accept()
    with connection:
        assert name not in control.running()
        control.reserve(name).close()


def test_running_labs_are_sorted_and_told_once(name: str, lab: Lab) -> None:
    with control.reserve(f"{name}-0"), Control(name) as first, Control(name) as second:
        first.ask("echo", text="")
        second.ask("echo", text="")
        ours = [running for running in control.running() if running.startswith(name)]
    assert ours == [name, f"{name}-0"]


def test_a_lab_that_is_not_up(name: str) -> None:
    with pytest.raises(StateError, match=f"the lab '{name}' is not up") as caught:
        Control(name)
    assert caught.value.exit_code == 6
    with control.reserve(f"{name}-0"), pytest.raises(StateError) as caught:
        Control(name)
    assert f"{name}-0" in (caught.value.hint or "")
    assert "choose with --name" in (caught.value.hint or "")


def test_a_lab_that_is_just_starting(name: str) -> None:
    with control.reserve(name), pytest.raises(StateError, match=f"the lab '{name}' is just starting"):
        Control(name)


# --- questions and answers -------------------------------------------------------------------------


def test_answers_come_back(name: str, lab: Lab) -> None:
    with Control(name) as conversation:
        assert conversation.ask("echo", text="ä\n\0") == ("ä\n\0", [])
        assert conversation.ask("echo", text={"a": [1, None]}) == ({"a": [1, None]}, [])
        long = "x" * 1_000_000
        assert conversation.ask("echo", text=long) == (long, [])
    assert lab.asked[0] == {"ask": "echo", "text": "ä\n\0"}
    deadline = time.monotonic() + DEADLINE
    while lab.sent < 3:  # an answer is here a moment before the supervisor takes note of having sent it
        assert time.monotonic() < deadline


def test_what_a_node_prints(name: str, lab: Lab) -> None:
    with Control(name) as conversation:
        assert conversation.observe("director", "true") == "it is true\n"
        assert conversation.observe("director", "true", 8.0) == "it is true\n"
        with pytest.raises(CheckFailed, match="on director, `false` ended with status 1") as failed:
            conversation.observe("director", "false")
        assert failed.value.hint == "it is false"
    assert [asked["seconds"] for asked in lab.asked] == [None, 8.0, None]


def test_a_wait_for_the_end_ends_with_the_conversation(name: str, lab: Lab) -> None:
    conversation = Control(name)
    assert not conversation.wait_for_end(0)
    assert not conversation.wait_for_end(-1.0)
    hanging_up = threading.Timer(0.05, conversation.hang_up)
    hanging_up.start()
    assert conversation.wait_for_end(DEADLINE)
    hanging_up.join()
    assert conversation.wait_for_end(DEADLINE)


def test_a_wait_for_the_end_ends_with_the_lab(name: str, root: object) -> None:
    with control.reserve(name) as listener:
        listener.listen()
        with Control(name) as conversation:
            connection, _ = listener.accept()
            assert not conversation.wait_for_end(0.01)
            ending = threading.Timer(0.05, connection.close)
            ending.start()
            assert conversation.wait_for_end(DEADLINE)
            ending.join()


def test_descriptors_come_along(name: str, lab: Lab) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Control(name) as conversation:
        answer, (pipe, null) = conversation.ask("descriptors")
        assert answer == "two"
        assert os.read(pipe, 100) == b"through a pipe"
        os.close(pipe)
        os.close(null)
        conversation.ask("echo", text="the supervisor's own are closed by now")
        # Left are both ends of this conversation.
        assert len(os.listdir("/proc/self/fd")) == before + 2


def test_descriptors_are_not_for_children(name: str, lab: Lab) -> None:
    with Control(name) as conversation:
        _, descriptors = conversation.ask("descriptors")
        inherited = [descriptor for descriptor in descriptors if os.get_inheritable(descriptor)]
        for descriptor in descriptors:
            os.close(descriptor)
        assert inherited == []


def test_an_error_is_raised_here_as_it_was_there(name: str, lab: Lab) -> None:
    with Control(name) as conversation:
        with pytest.raises(UsageError) as caught:
            conversation.ask("usage")
        assert (caught.value.message, caught.value.hint) == ("no such node", "its nodes: a, b")
        assert conversation.ask("echo", text="it goes on") == ("it goes on", [])


def test_a_fault_in_the_supervisor_does_not_end_it(name: str, lab: Lab) -> None:
    with Control(name) as conversation:
        with pytest.raises(LvsLabError, match="fault in the supervisor: ZeroDivisionError"):
            conversation.ask("fault")
        assert conversation.ask("echo", text="it goes on") == ("it goes on", [])


def test_a_request_that_is_no_json_is_answered_too(name: str, lab: Lab) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(f"\0lvslab/{name}")
        raw.sendall(b"hello\n")
        raw.settimeout(DEADLINE)
        assert "fault in the supervisor" in json.loads(raw.recv(10_000))["error"]["message"]


def test_a_supervisor_that_dies_meanwhile(name: str, root: object) -> None:
    with control.reserve(name) as listener:
        listener.listen()
        with Control(name) as conversation:
            connection, _ = listener.accept()

            def die() -> None:
                connection.recv(1000)
                connection.sendall(b'{"ok": "ha')
                connection.close()

            thread = threading.Thread(target=die)
            thread.start()
            for _ in range(2):
                with pytest.raises(BootError, match=f"the lab '{name}' ended while it was asked for status"):
                    conversation.ask("status")
            thread.join(DEADLINE)


def test_only_root_is_answered(root: Callable[[int], None]) -> None:
    root(1000)
    ours, theirs = socket.socketpair()
    answers = Lab()
    with ours:
        ours.sendall(b'{"ask": "echo", "text": "secret"}\n')
        ours.shutdown(socket.SHUT_WR)
        control.serve(theirs, answers)
        theirs.close()
        ours.settimeout(DEADLINE)
        with pytest.raises(ConnectionResetError):
            ours.recv(100)
    assert answers.asked == []


def test_end_returns_when_the_process_is_gone(name: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process, Control(name) as conversation:
        asking = conversation.ask
        monkeypatch.setattr(conversation, "ask", lambda what: asking(what, pid=process.pid))
        threading.Timer(0.02, process.kill).start()
        conversation.end()
        with control.process(process.pid):
            assert process.wait(DEADLINE) == -9


def test_a_process_that_is_no_more() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(ProcessLookupError), control.process(process.pid):
        pass


# --- errors that travel ----------------------------------------------------------------------------


KINDS = [kind for each in vars(errors) if (kind := errors.named(each)) is not None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_the_journey(kind: type[LvsLabError]) -> None:
    revived = control.error_from_json({"kind": kind.__name__, "message": "what", "hint": "how"})
    assert type(revived) is kind
    assert (str(revived), revived.exit_code) == ("what\n  how", kind.exit_code)
    assert revived.args == ("what",)


def test_what_is_told_is_what_is_revived() -> None:
    for error in (
        MachineError("no QEMU", "install it"),
        BootError("dead"),
        CommandFailed("ip failed", status=2, hint="Cannot find device"),
    ):
        again = control.error_from_json(json.loads(json.dumps(control.error_to_json(error))))
        assert (type(again), str(again)) == (type(error), str(error))
    assert issubclass(LabFileError, UsageError)


def test_an_error_of_a_subclass_arrives_as_its_family() -> None:
    class NoImage(BootError):
        pass

    assert type(control.error_from_json(control.error_to_json(NoImage("no image")))) is BootError


def test_an_error_of_a_kind_that_nobody_knows_here() -> None:
    assert type(control.error_from_json({"kind": "Strange", "message": "m", "hint": None})) is LvsLabError
