"""The parts of a scheduler's model: its question, its answer and its memory.

A model is a pure function from a `Moment` to a `Choice`. What the kernel's scheduler keeps between
connections (the mark of wrr, the cache of lblc) goes from one choice to the next moment as ``memory``; a
second function updates it when a server is added, edited or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import attrgetter
from typing import Literal

from lvslab.errors import CheckFailed


@dataclass(frozen=True)
class Server:
    """A destination as a scheduler sees it: its weight and its connections at this moment.

    Names tell the servers of one service apart. ``address`` and ``port`` matter to mh alone, and so does
    ``last_weight``, the last weight above 0 that it had (or that it was added with); None where that is its
    weight. ``overloaded`` is the flag that the kernel sets at the upper ``threshold`` of connections (0 for
    none).
    """

    name: str
    weight: int
    active: int = 0
    inactive: int = 0
    overloaded: bool = False
    address: str = ""
    port: int = 0
    last_weight: int | None = None
    threshold: int = 0

    @property
    def available(self) -> bool:
        """True if the server has a weight above 0 and is not overloaded."""
        return self.weight > 0 and not self.overloaded


@dataclass(frozen=True)
class Moment:
    """The state in which a new connection finds the service.

    ``servers`` are in the kernel's order: the last one added first. ``memory`` is what the scheduler's last
    choice left behind, None at first. The connection comes from ``client`` and ``client_port`` and goes to
    ``destination``, an address of the director; ``now`` is in seconds of any clock.
    """

    servers: tuple[Server, ...]
    client: str = ""
    memory: object = None
    destination: str = ""
    client_port: int = 0
    now: float = 0.0

    def available(self) -> list[int]:
        """Return the indices of the available servers."""
        return [index for index, server in enumerate(self.servers) if server.available]


@dataclass(frozen=True)
class Choice:
    """The index of the chosen server in ``Moment.servers``, or None where none can be chosen."""

    server: int | None
    memory: object = None


Scheduler = Callable[[Moment], Choice]

Chances = Callable[[Moment], Mapping[int, Fraction]]
"""The probability of each server, by its index in ``Moment.servers``; empty where none can be chosen."""


@dataclass(frozen=True)
class Change:
    """A change of the table: ``server`` was added, edited or removed.

    ``before`` and ``after`` are all servers in the kernel's order, ``memory`` is the scheduler's.
    """

    kind: Literal["add", "edit", "remove"]
    server: str
    before: tuple[Server, ...]
    after: tuple[Server, ...]
    memory: object = None


def cannot_foresee(moment: Moment) -> Choice:
    """Raise CheckFailed: the ``choose`` of a model that foresees no sequence."""
    raise CheckFailed(
        "this scheduler chooses at random, or by a rule that is not modelled, so the servers that answer "
        "cannot be foreseen",
        "a check with a LiveService compares how often each was chosen with how likely that was",
    )


def nothing_known(server: str, destination: str) -> Iterable[object]:
    """Yield no memory."""
    return ()


@dataclass(frozen=True)
class Model:
    """One kernel's scheduler: how it chooses, and what it remembers after a change of the table.

    It foresees an exact sequence by ``choose``, or the servers' probabilities by ``chances``, or nothing.
    ``unforeseen`` says why the servers cannot be told before the connections are made, "" where they can.
    ``remembers`` is true where a choice depends on earlier choices, and not on the connections alone;
    ``changed`` returns the memory after a change. ``naming`` yields memories after the choice of a server
    for a requested address.
    """

    choose: Scheduler = cannot_foresee
    changed: Callable[[Change], object] = attrgetter("memory")
    remembers: bool = False
    chances: Chances | None = None
    unforeseen: str = ""
    naming: Callable[[str, str], Iterable[object]] = nothing_known


Version = tuple[int, ...]

Build = Callable[[Version, Collection[str]], Model]
"""From a kernel's version and the flags of ``ipvsadm -b`` to the model of a scheduler in that kernel."""


def index_of(servers: Sequence[Server], name: str) -> int:
    """Return the index of the server ``name``, or -1 (to the kernel, the list's head)."""
    return next((index for index, server in enumerate(servers) if server.name == name), -1)
