"""Events of a lab's boot: lines of JSON from its supervisor, and the command's own phases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, get_args


@dataclass(frozen=True)
class PhaseBegun:
    """The beginning of a phase, such as "network"."""

    phase: str


@dataclass(frozen=True)
class PhaseEnded:
    """The end of a phase, which took ``seconds``."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class GuestUp:
    """A virtual machine that came up in ``seconds``; ``way`` as in ``Starter``."""

    node: str
    way: str
    seconds: float


@dataclass(frozen=True)
class AcceleratorChosen:
    """The accelerator of all virtual machines, the reason, and what it ``means`` for speed."""

    name: str
    reason: str
    means: str


@dataclass(frozen=True)
class Ready:
    """The end of the boot, which took ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Failed:
    """The error that ended the boot, as ``control.error_to_json`` has it."""

    error: Mapping[str, Any]


@dataclass(frozen=True)
class Logged:
    """A debug message of the supervisor, and the name of its logger."""

    logger: str
    message: str


Event = PhaseBegun | PhaseEnded | GuestUp | AcceleratorChosen | Ready
Message = Event | Failed | Logged
"""What a supervisor sends; its errors and log messages are not passed on as events."""
Listener = Callable[[Event], None]

_KINDS: Mapping[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def to_line(message: Message) -> bytes:
    return json.dumps({"event": type(message).__name__, **asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    fields = json.loads(line)
    return _KINDS[fields.pop("event")](**fields)


def ignore(_: Any) -> None:
    """Do nothing, as a listener."""


@contextmanager
def phase(name: str, report: Listener) -> Iterator[None]:
    """Report the block as the phase ``name``."""
    begun = time.monotonic()
    report(PhaseBegun(name))
    yield
    report(PhaseEnded(name, time.monotonic() - begun))
