"""Events of a lab's boot, as the command that started it hears of them.

Most come from the lab's supervisor, a line of JSON each; those of the phases before and after its own come
from the command itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, get_args


@dataclass(frozen=True)
class PhaseBegun:
    """The beginning of a phase, such as "network"."""

    kind: ClassVar[str] = "begins"
    phase: str


@dataclass(frozen=True)
class PhaseEnded:
    """The end of a phase, and the seconds that it took."""

    kind: ClassVar[str] = "phase"
    phase: str
    seconds: float


@dataclass(frozen=True)
class GuestUp:
    """A virtual machine that is up, the ``way`` it came up (see ``Starter``), and the seconds."""

    kind: ClassVar[str] = "guest"
    node: str
    way: str
    seconds: float


@dataclass(frozen=True)
class AcceleratorChosen:
    """The accelerator of all virtual machines, the reason, and what it ``means`` for speed."""

    kind: ClassVar[str] = "accelerator"
    name: str
    reason: str
    means: str


@dataclass(frozen=True)
class Ready:
    """The end of the boot, and the seconds that all of it took."""

    kind: ClassVar[str] = "ready"
    seconds: float


@dataclass(frozen=True)
class Failed:
    """The error that ended the boot, as ``control.error_to_json`` has it."""

    kind: ClassVar[str] = "error"
    error: Mapping[str, Any]


@dataclass(frozen=True)
class Logged:
    """A debug message of the supervisor, and the name of its logger."""

    kind: ClassVar[str] = "log"
    logger: str
    message: str


Event = PhaseBegun | PhaseEnded | GuestUp | AcceleratorChosen | Ready
Message = Event | Failed | Logged
"""What a supervisor sends; its errors and log messages are not passed on as events."""
Listener = Callable[[Event], None]

_KINDS: Mapping[str, type[Message]] = {kind.kind: kind for kind in get_args(Message)}


def to_line(message: Message) -> bytes:
    """Return ``message`` as a line of JSON."""
    return json.dumps({"event": message.kind, **asdict(message)}).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Return the message that ``to_line`` made a line of."""
    fields = json.loads(line)
    return _KINDS[fields.pop("event")](**fields)


def ignore(_: Any) -> None:
    """A listener that does nothing."""
