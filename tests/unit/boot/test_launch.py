"""With a stand-in for unshare that speaks on the lifeline as a supervisor would, in no namespace at all."""

from __future__ import annotations

import logging
import pickle
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot import control
from lvslab.boot.events import Failed, Logged, Message, PhaseBegun, Ready, to_line
from lvslab.boot.launch import Launch
from lvslab.boot.plan import Plan
from lvslab.errors import BootError, MachineError, StateError

# Notes its arguments and its plan, tells EVENTS, and ends as END says. ``listener`` holds the lab's name.
UNSHARE = f"""#!{sys.executable} -SE
import os, socket, sys, time
here = sys.argv[0].rpartition("/")[0]
stream = socket.socket(fileno=int(sys.argv[-1]))
open(here + "/arguments", "w").write("\\n".join(sys.argv[1:]))
_, descriptors, _, _ = socket.recv_fds(stream, 1, 1)
listener = socket.socket(fileno=descriptors[0]) if descriptors else None
open(here + "/plan", "wb").write(stream.recv(1 << 20))
for event in EVENTS:
    stream.sendall(event)
END
"""
WAIT = 'open(here + "/last", "wb").write(stream.recv(100))'


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan("a", "web-nat", tmp_path, (), (), (), {}, b"key", "key", tmp_path, cold=False)


Starter = Callable[..., Launch]


@pytest.fixture
def launch(plan: Plan, program: Callable[[str, str], Path]) -> Starter:
    def start(*messages: Message, end: str = WAIT) -> Launch:
        text = UNSHARE.replace("EVENTS", repr([*map(to_line, messages)])).replace("END", end)
        program("unshare", text)
        launched = Launch("a", control.reserve(f"unit-{secrets.token_hex(6)}"))
        launched.boot(plan)
        return launched

    return start


READY = Ready(1.5)


def test_a_supervisor_gets_namespaces_of_its_own_and_the_plan(launch: Starter, plan: Plan) -> None:
    with launch(READY) as launched:
        assert list(launched.events()) == [READY]
    folder = plan.evidence / "programs"
    arguments = (folder / "arguments").read_text().split("\n")
    options = arguments[: arguments.index("--")]
    # --kill-child ends the lab with unshare, and --fork makes the supervisor process 1.
    assert {"--net", "--mount", "--pid", "--fork", "--kill-child"} <= set(options)
    assert options[options.index("--propagation") + 1] == "private"
    command = arguments[arguments.index("--") + 1 :]
    assert command[:-1] == [sys.executable, "-P", "-m", "lvslab.boot.supervisor"]
    assert pickle.loads((folder / "plan").read_bytes()) == plan


def test_events_come_until_it_is_ready(launch: Starter) -> None:
    first = PhaseBegun("network")
    with launch(first, READY, PhaseBegun("late")) as launched:
        assert list(launched.events()) == [first, READY]


def test_its_debug_log_becomes_ours(launch: Starter, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.DEBUG, "lvslab"),
        launch(Logged("lvslab.run", "ip 100%s"), READY) as launched,
    ):
        assert list(launched.events()) == [READY]
    assert ("lvslab.run", logging.DEBUG, "ip 100%s") in caplog.record_tuples


def test_what_went_wrong_there_is_raised_here(launch: Starter) -> None:
    error = Failed(control.error_to_json(MachineError("no QEMU", "install it")))
    with launch(error) as launched, pytest.raises(MachineError, match="no QEMU"):
        list(launched.events())


def test_a_supervisor_that_ends_too_soon_is_quoted(launch: Starter) -> None:
    with (
        launch(PhaseBegun("network"), end="sys.exit('unshare failed: Operation not permitted')") as launched,
        pytest.raises(BootError) as caught,
    ):
        list(launched.events())
    assert caught.value.message == (
        "the supervisor of the lab 'a' ended before the lab was up: unshare ended with status 1"
    )
    assert caught.value.hint == "unshare failed: Operation not permitted"


def test_a_lab_that_is_kept_goes_on_when_we_end(launch: Starter, plan: Plan) -> None:
    with launch(READY) as launched:
        list(launched.events())
        launched.keep()
    assert launched._process.wait(10) == 0
    assert (plan.evidence / "programs/last").read_bytes() == b"keep\n"


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt])
def test_a_lab_that_is_not_kept_ends_with_us(
    launch: Starter, plan: Plan, fault: type[BaseException] | None
) -> None:
    def leave() -> None:
        with launch(READY, end="time.sleep(1000)") as launched:
            processes.append(launched._process)
            list(launched.events())
            if fault:
                raise fault

    processes: list[Any] = []
    if fault:
        with pytest.raises(fault):
            leave()
    else:
        leave()
    assert processes[0].poll() == -9


def test_what_is_printed_after_the_plan_has_come_is_quoted_too(launch: Starter, plan: Plan) -> None:
    plan.messages.write_text("Traceback\n")
    with launch(end="sys.exit('first')") as launched, pytest.raises(BootError) as caught:
        list(launched.events())
    assert caught.value.hint == "first\n  Traceback"


def test_nobody_waits_for_a_lab_that_is_being_planned(
    plan: Plan, program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_peer_user", lambda _: 0)
    program("unshare", UNSHARE.replace("EVENTS", "()").replace("END", WAIT))
    name = f"unit-{secrets.token_hex(6)}"
    with Launch(name, control.reserve(name)) as launched:
        with pytest.raises(StateError, match=f"the lab '{name}' is just starting"):
            control.Control(name)
        launched.boot(plan)
        with control.Control(name):
            assert name in control.running()
    assert name not in control.running()


def test_the_name_is_the_supervisors_alone(plan: Plan, program: Callable[[str, str], Path]) -> None:
    """It must not outlive the supervisor with unshare, which ends a moment later."""
    gone = f"listener.close(); stream.sendall({to_line(READY)!r}); {WAIT}"
    program("unshare", UNSHARE.replace("EVENTS", "()").replace("END", gone))
    name = f"unit-{secrets.token_hex(6)}"
    with Launch(name, control.reserve(name)) as launched:
        launched.boot(plan)
        assert list(launched.events()) == [READY]
        assert launched._process.poll() is None
        assert name not in control.running()


def test_where_no_plan_comes_the_lab_ends_by_itself(program: Callable[[str, str], Path]) -> None:
    program("unshare", UNSHARE.replace("EVENTS", "()").replace("END", "os._exit(0)"))
    with (
        pytest.raises(ZeroDivisionError),
        control.reserve(f"unit-{secrets.token_hex(6)}") as listener,
        Launch("a", listener) as launched,
    ):
        raise ZeroDivisionError
    # Not -9: it has seen the stream's end.
    assert launched._process.returncode == 0


def test_without_unshare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("lvslab.boot.launch.socket.socketpair", lambda: (_Stream(), _Stream()))
    with (
        control.reserve(f"unit-{secrets.token_hex(6)}") as listener,
        pytest.raises(MachineError, match="unshare is not installed"),
    ):
        Launch("a", listener)


class _Stream:
    def fileno(self) -> int:
        return 2

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass
