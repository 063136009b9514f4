"""QEMU's machine protocol: against a scripted monitor, and against QEMU itself."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lvslab.boot.vm.qmp import Qmp, QmpError

GREETING: dict[str, Any] = {"QMP": {"version": {}, "capabilities": []}}
DONE: dict[str, Any] = {"return": {}}
PATIENCE = 5.0


class Monitor:
    """Plays QEMU: greets, then says for each command what the script has for it; remembers the commands.

    An answer without an "id" gets that of its command. At the script's end it is silent, or closes.
    """

    def __init__(self, stream: socket.socket, script: list[list[dict[str, Any]]], *, closes: bool) -> None:
        self.heard: list[dict[str, Any]] = []
        self._stream = stream
        self._script = script
        self._closes = closes
        self.thread = threading.Thread(target=self._play, daemon=True)
        self.thread.start()

    def _play(self) -> None:
        with self._stream.makefile("rb") as lines:
            self._say([GREETING])
            for answers in self._script:
                line = lines.readline()
                if not line:
                    return
                self.heard.append(json.loads(line))
                self._say([self._with_id(answer) for answer in answers])
            if self._closes:
                self._stream.shutdown(socket.SHUT_RDWR)
            lines.read()

    def _with_id(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer if "event" in answer else {"id": self.heard[-1].get("id"), **answer}

    def _say(self, messages: list[dict[str, Any]]) -> None:
        # In pieces that end in the middle of a line, as they may arrive.
        data = b"".join(json.dumps(message).encode() + b"\r\n" for message in messages)
        for start in range(0, len(data), 7):
            self._stream.sendall(data[start : start + 7])


@contextmanager
def scripted(*script: list[dict[str, Any]], closes: bool = False) -> Iterator[tuple[Qmp, Monitor]]:
    """A Qmp and the monitor behind it, which has agreed to capabilities already when ``script`` begins."""
    ours, theirs = socket.socketpair()
    monitor = Monitor(theirs, [[DONE], *script], closes=closes)
    qmp = Qmp(ours)
    try:
        yield qmp, monitor
    finally:
        qmp.close()
        monitor.thread.join(PATIENCE)
        theirs.close()
    assert not monitor.thread.is_alive()


def event(name: str, **data: Any) -> dict[str, Any]:
    return {"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}}


def test_first_command_follows_greeting_and_capabilities() -> None:
    with scripted([{"return": {"running": True}}]) as (qmp, monitor):
        assert qmp.execute("query-status", seconds=PATIENCE) == {"running": True}
        assert [order["execute"] for order in monitor.heard] == ["qmp_capabilities", "query-status"]


def test_capabilities_are_agreed_upon_once() -> None:
    with scripted([DONE], [DONE]) as (qmp, monitor):
        qmp.execute("stop", seconds=PATIENCE)
        qmp.execute("cont", seconds=PATIENCE)
        assert [order["execute"] for order in monitor.heard] == ["qmp_capabilities", "stop", "cont"]


def test_arguments_are_written_with_hyphens() -> None:
    with scripted([DONE]) as (qmp, monitor):
        qmp.execute("human-monitor-command", seconds=PATIENCE, command_line="info status")
        assert monitor.heard[-1]["arguments"] == {"command-line": "info status"}


def test_error_is_raised_with_its_command_and_the_monitor_goes_on() -> None:
    error = {"error": {"class": "GenericError", "desc": "no such thing"}}
    with scripted([error], [{"return": 7}]) as (qmp, _):
        with pytest.raises(QmpError, match="migrate: no such thing"):
            qmp.execute("migrate", seconds=PATIENCE)
        assert qmp.execute("query", seconds=PATIENCE) == 7


def test_event_before_an_answer_is_kept() -> None:
    with scripted([event("STOP"), event("MIGRATION", status="setup"), DONE]) as (qmp, _):
        qmp.execute("migrate", seconds=PATIENCE)
        assert qmp.await_event("MIGRATION", PATIENCE) == {"status": "setup"}


def test_events_come_in_their_order_those_kept_and_those_to_come() -> None:
    states = ("setup", "active", "completed")
    first, *later = (event("MIGRATION", status=status) for status in states)
    with scripted([first, DONE, event("RESUME"), *later]) as (qmp, _):
        qmp.execute("migrate", seconds=PATIENCE)
        assert [qmp.await_event("MIGRATION", PATIENCE)["status"] for _ in states] == list(states)


def test_event_without_data() -> None:
    with scripted([{"event": "STOP", "timestamp": {}}, DONE]) as (qmp, _):
        qmp.execute("stop", seconds=PATIENCE)
        assert qmp.await_event("STOP", PATIENCE) == {}


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda qmp: qmp.execute("stop", seconds=PATIENCE), id="command"),
        pytest.param(lambda qmp: qmp.await_event("STOP", PATIENCE), id="event"),
    ],
)
def test_closed_monitor(ask: Callable[[Qmp], Any]) -> None:
    with scripted([DONE], closes=True) as (qmp, _):
        qmp.execute("cont", seconds=PATIENCE)
        with pytest.raises(QmpError, match=r"closed|Broken pipe"):
            ask(qmp)


def test_monitor_that_is_closed_before_it_greets() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    qmp = Qmp(ours)
    with pytest.raises(QmpError, match="closed"):
        qmp.execute("stop", seconds=PATIENCE)
    qmp.close()


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda qmp: qmp.execute("stop", seconds=0.05), id="command"),
        pytest.param(lambda qmp: qmp.await_event("STOP", 0.05), id="event"),
    ],
)
def test_silent_monitor(ask: Callable[[Qmp], Any]) -> None:
    with scripted([DONE], []) as (qmp, _):
        qmp.execute("cont", seconds=PATIENCE)
        with pytest.raises(QmpError, match="in time"):
            ask(qmp)


def test_late_answer_is_not_taken_for_that_of_the_next_command() -> None:
    late = {"return": "of the first", "id": 2}  # 1 was for the capabilities
    with scripted([], [late, {"return": "of the second"}]) as (qmp, monitor):
        with pytest.raises(QmpError, match="in time"):
            qmp.execute("first", seconds=0.05)
        assert qmp.execute("second", seconds=PATIENCE) == "of the second"
        assert [order["id"] for order in monitor.heard] == [1, 2, 3]


def test_real_qemu() -> None:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        pytest.skip("needs qemu-system-x86_64")
    ours, theirs = socket.socketpair()
    words = ["-M", "none", "-nodefaults", "-display", "none", "-S"]
    monitor = ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}", "-mon", "chardev=monitor,mode=control"]
    with theirs:
        process = subprocess.Popen([qemu, *words, *monitor], pass_fds=[theirs.fileno()])
    qmp = Qmp(ours)
    try:
        assert qmp.execute("query-status")["status"] == "prelaunch"
        with pytest.raises(QmpError, match="no-such-command"):
            qmp.execute("no-such-command")
        qmp.execute("cont")
        assert qmp.await_event("RESUME", 10) == {}
        assert qmp.execute("query-status")["running"] is True
        qmp.execute("quit")
        assert qmp.await_event("SHUTDOWN", 10)["reason"] == "host-qmp-quit"
        with pytest.raises(QmpError, match="closed"):
            qmp.await_event("POWERDOWN", 10)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        qmp.close()
