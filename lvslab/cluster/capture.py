"""``lab.capture``: the packets at a node's interfaces, written at once."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import BinaryIO

from lvslab.boot.net import packets, pcapng
from lvslab.cluster import registry
from lvslab.errors import UsageError
from lvslab.run import run

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Captured:
    """Numbers of packets written, by interface, and of packets dropped for want of room."""

    node: str
    packets: dict[str, int]
    dropped: int


def capture(
    name: str,
    node: str,
    interface: str = "",
    *,
    output: str = "",
    expression: str = "",
    most: int = 0,
    seconds: int = 0,
    tell: Callable[[Sequence[packets.Interface]], None],
) -> Captured:
    """Write the packets at a node's interfaces to a file or stdout.

    ``name`` is the lab's. ``expression`` is a filter (pcap-filter(7)). The capture ends after ``most``
    packets or after ``seconds`` where these are not 0, and with SIGINT, SIGTERM, the lab, and the reader of
    the output. ``tell`` is called when it has begun. Raises UsageError, StateError, MachineError.
    """
    for option, given in (("--packets", most), ("--seconds", seconds)):
        if given < 0:
            raise UsageError(
                f"{option} is {given}", "it takes a whole number; 0, the default, sets no limit"
            )
    if not output and (sys.stdout is None or sys.stdout.isatty()):
        raise UsageError(
            "packets are not for a terminal",
            "--output FILE writes them to a file, and `wireshark -k -i -` or `tshark -r -` read from a pipe",
        )
    program = compiled(expression) if expression else []
    with registry.talk_to(name) as lab, ExitStack() as held, _stopped() as stop:
        interfaces = packets.listen(lab, node, interface, program)
        for each in interfaces:
            held.enter_context(each)
        stream = held.enter_context(_stream(output))
        tell(interfaces)
        return _write(stream, interfaces, expression, (stop, lab.fileno()), most, seconds)


def compiled(expression: str) -> packets.Program:
    """Compile a filter for the kernel, with libpcap's compiler. Raises UsageError, MachineError."""
    done = run(["tcpdump", "-y", "EN10MB", "-ddd", "--", expression], check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1].removeprefix("tcpdump: ") if said else "tcpdump does not say why"
        raise UsageError(
            f"'{expression}' is not a filter: {why}", "pcap-filter(7) says how they are written"
        )
    # The first line has the number of instructions.
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()[1:]]


def _write(
    stream: BinaryIO,
    interfaces: Sequence[packets.Interface],
    expression: str,
    ends: tuple[int, int],
    most: int,
    seconds: int,
) -> Captured:
    begun, deadline = time.time_ns(), time.monotonic() + seconds
    events = select.poll()
    for source in (*ends, *(each.fileno() for each in interfaces)):
        events.register(source, select.POLLIN)
    events.register(stream, 0)  # says when the reader of a pipe has gone
    last = {stream.fileno(), *ends}
    written: Counter[str] = Counter({each.name: 0 for each in interfaces})
    with suppress(BrokenPipeError):
        about = [pcapng.Interface(each.title, each.description, expression) for each in interfaces]
        writer = pcapng.Writer(stream, about)
        over = False
        while not over:
            left = max(0.0, deadline - time.monotonic()) * 1000 if seconds else None
            ready = events.poll(0 if any(each.held for each in interfaces) else left)
            over = bool(seconds and time.monotonic() >= deadline) or any(fd in last for fd, _ in ready)
            batch = packets.read(interfaces)[: most - written.total() if most else None]
            writer.write(batch)
            written.update(interfaces[packet.interface].name for packet in batch)
            over = over or bool(most and written.total() == most)
        writer.end([each.count() for each in interfaces], begun, time.time_ns())
    dropped = sum(each.count().dropped for each in interfaces)
    return Captured(interfaces[0].node, dict(written), dropped)


@contextmanager
def _stream(output: str) -> Iterator[BinaryIO]:
    """Open the output, unbuffered, so that its reader sees packets at once."""
    if not output:
        with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as stream:
            yield stream
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as refused:
        raise UsageError(f"cannot write {output}: {refused.strerror}") from None
    with open(descriptor, "wb", buffering=0) as stream:
        yield stream


@contextmanager
def _stopped() -> Iterator[int]:
    """Open a descriptor that is readable when one of _SIGNALS has come.

    The next signal has its usual effect: the program that reads the output may have stopped doing so.
    """
    stop = os.eventfd(0)
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heard(_number: int, _frame: FrameType | None) -> None:
        os.eventfd_write(stop, 1)
        restore()

    for number in _SIGNALS:
        signal.signal(number, heard)
    try:
        yield stop
    finally:
        restore()
        os.close(stop)
