"""lab.capture with the supervisor's side in a thread of this process, and a cable in place of a network."""

from __future__ import annotations

import os
import pty
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lvslab.boot import control
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.node import Node
from lvslab.boot.plan import Guest
from lvslab.boot.vm.node import VirtualMachine
from lvslab.cluster import capture as captures
from lvslab.cluster.capture import Captured, capture, compiled
from lvslab.errors import LvsLabError, UsageError
from tests.cables import HEADER, IPV4, cable, sender
from tests.unit.conftest import CARDS

pytestmark = [
    pytest.mark.usefixtures("stamps"),
    pytest.mark.skipif(os.geteuid() != 0, reason="labs are root's"),
]

SHORT = 30.0


@dataclass
class Lab(control.Handler):
    """A lab of one director, whose two cards are the ends of a cable."""

    name: str
    host: Namespaces
    node: Node
    connections: list[socket.socket] = field(default_factory=list)

    def __call__(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        words = (request["interface"], request["filter"], request["room"])
        about, opened = self.host.call(self.node.capture, *words)
        descriptors += opened
        return about

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=control.serve, args=(connection, self), daemon=True).start()

    def end(self) -> None:
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def lab(host: Namespaces, guest: Guest) -> Iterator[Lab]:
    host.call(cable, CARDS[0].port, CARDS[1].port)
    name = f"unit-{secrets.token_hex(6)}"
    found = Lab(name, host, VirtualMachine(guest, copyable=False))
    listener = control.reserve(name)
    listener.listen()
    thread = threading.Thread(target=found.serve, args=(listener,), daemon=True)
    thread.start()
    yield found
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(SHORT)


@pytest.fixture
def send(lab: Lab) -> Iterator[Callable[[int], None]]:
    """Sends so many packets out of the director's eth1."""
    with lab.host.call(sender, CARDS[1].port) as opened:

        def send(count: int) -> None:
            for number in range(count):
                opened.send(HEADER + IPV4 + b"%02d" % (number % 100))

        yield send


def captured(lab: Lab, file: Path, act: Callable[[], object], **how: Any) -> Captured:
    """What comes of a capture of all interfaces that is ended by ``act``, called when it has begun."""
    return capture(lab.name, "director", output=str(file), tell=lambda _: act(), **how)


def frames(file: Path) -> list[bytes]:
    """The packets of a file as tcpdump reads them, a line each, their content without the header."""
    done = subprocess.run(["tcpdump", "-xx", "-nr", file], capture_output=True, text=True, check=True)
    lines = [line.partition(":")[2] for line in done.stdout.splitlines() if line.startswith("\t0x")]
    return [bytes.fromhex(line)[14:] for line in lines]


def stop(number: signal.Signals) -> None:
    """What a person does who has enough."""
    os.kill(os.getpid(), number)


def await_that(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` is true, or SHORT is over."""
    deadline = time.monotonic() + SHORT
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_that_came(
    lab: Lab, send: Callable[[int], None], tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    descriptors = len(os.listdir("/proc/self/fd"))
    file = tmp_path / "a.pcapng"

    def act() -> None:
        send(100)
        stop(number)

    found = captured(lab, file, act)
    assert found == Captured("director", {"eth0": 100, "eth1": 100}, 0)
    assert frames(file) == [b"%02d" % (count // 2) for count in range(200)]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    # The lab's side of the conversation is closed by a thread.
    await_that(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_second_signal_takes_its_usual_effect(
    lab: Lab, send: Callable[[int], None], tmp_path: Path
) -> None:
    """The reader of a pipe may have stopped reading: nothing else would get us out of there."""
    file = tmp_path / "pipe"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)

    def act() -> None:
        send(2000)  # more than a pipe holds
        main = threading.main_thread().ident
        assert main is not None
        threading.Thread(target=interrupt, args=(main,)).start()

    def interrupt(main: int) -> None:
        await_that(lambda: "pipe_write" in Path(f"/proc/self/task/{os.getpid()}/wchan").read_text())
        signal.pthread_kill(main, signal.SIGINT)
        await_that(lambda: signal.getsignal(signal.SIGINT) == signal.default_int_handler)
        signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        captured(lab, file, act)
    os.close(reader)


def test_so_many_packets(lab: Lab, send: Callable[[int], None], tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    found = captured(lab, file, lambda: send(20), most=7)
    assert sum(found.packets.values()) == 7
    assert len(frames(file)) == 7


def test_so_many_seconds(lab: Lab, send: Callable[[int], None], tmp_path: Path) -> None:
    begun = time.monotonic()
    found = captured(lab, tmp_path / "a.pcapng", lambda: send(1), seconds=1)
    assert found.packets == {"eth0": 1, "eth1": 1}
    assert 1 <= time.monotonic() - begun < 10


def test_the_end_of_the_lab(lab: Lab, send: Callable[[int], None], tmp_path: Path) -> None:
    def act() -> None:
        send(3)
        lab.end()

    file = tmp_path / "a.pcapng"
    captured(lab, file, act)
    assert len(frames(file)) == 6


def test_the_end_of_who_reads(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "pipe"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    assert captured(lab, file, lambda: os.close(reader)).packets == {"eth0": 0, "eth1": 0}


def test_one_interface_and_a_filter(lab: Lab, send: Callable[[int], None], tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"

    def act() -> None:
        send(12)
        stop(signal.SIGTERM)

    found = capture(
        lab.name,
        "director",
        "eth1",
        output=str(file),
        expression="ether[14:2] = 0x3130 or ether[14:2] = 0x3131",
        tell=lambda _: act(),
    )
    assert found == Captured("director", {"eth1": 2}, 0)
    assert frames(file) == [b"10", b"11"]


def test_what_is_there_is_written_over_by_a_capture_only(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    file.write_text("of worth")
    with pytest.raises(UsageError, match="director has no interface 'eth9'\n  it has eth0, eth1"):
        capture(lab.name, "director", "eth9", output=str(file), tell=print)
    with pytest.raises(UsageError, match="is not a filter"):
        capture(lab.name, "director", output=str(file), expression="tcp prot", tell=print)
    assert file.read_text() == "of worth"


def test_a_file_that_cannot_be_written(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*/none/a: No such file or directory"):
        captured(lab, tmp_path / "none" / "a", lambda: None)
    with pytest.raises(UsageError, match="Is a directory"):
        captured(lab, tmp_path, lambda: None)


def test_limits_that_are_none() -> None:
    for how in ({"most": -1}, {"seconds": -1}):
        with pytest.raises(UsageError, match="is -1"):
            capture("a", "director", tell=print, **how)


def test_a_terminal_gets_no_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with pytest.raises(UsageError, match="packets are not for a terminal\n  --output FILE"):
            capture("a", "director", tell=print)


def test_filters_are_compiled_by_libpcap() -> None:
    assert compiled("arp") == [[40, 0, 0, 12], [21, 0, 1, 2054], [6, 0, 0, 262144], [6, 0, 0, 0]]
    for wrong, why in (("tcp prot 80", "syntax error"), ("-i eth0", "syntax error"), ("port nope", "nope")):
        with pytest.raises(UsageError, match=f"'{wrong}' is not a filter: .*{why}"):
            compiled(wrong)


def test_without_tcpdump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LvsLabError, match="tcpdump is not installed"):
        captures.compiled("arp")
