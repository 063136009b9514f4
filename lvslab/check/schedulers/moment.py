"""What a scheduler sees when a connection begins, what it says to that, and what a model of one is made of.

A model is a pure function from a `Moment` to a `Choice`. What the kernel's scheduler keeps between
connections (the mark of wrr, the cache of lblc) goes from one choice to the next moment as ``memory``; a
second function says what becomes of it when a server is added, edited or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal


@dataclass(frozen=True)
class Server:
    """A destination as a scheduler sees it: its weight and its connections at this moment.

    Names tell the servers of one service apart. ``address`` and ``port`` matter to mh alone, and so does
    ``last_weight``, the last weight above 0 that it had (or that it was added with); None where that is its
    weight. ``overloaded`` is what the kernel sets at the upper ``threshold`` of connections (0 for none).
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


@dataclass(frozen=True)
class Moment:
    """A connection begins. ``servers`` are in the kernel's order: the last one added first.

    ``memory`` is what the scheduler's last choice left behind, None at first. The connection comes from
    ``client`` and ``client_port`` and goes to ``destination``, an address of the director; ``now`` is in
    seconds of any clock.
    """

    servers: tuple[Server, ...]
    client: str = ""
    memory: object = None
    destination: str = ""
    client_port: int = 0
    now: float = 0.0


@dataclass(frozen=True)
class Choice:
    """The index of the chosen server in ``Moment.servers``, or None when there is no one to choose."""

    server: int | None
    memory: object = None


Scheduler = Callable[[Moment], Choice]

Chances = Callable[[Moment], Mapping[int, Fraction]]
"""How likely each server is to be chosen, by its index in ``Moment.servers``; empty where nobody can be."""


@dataclass(frozen=True)
class Change:
    """The table changed: ``server`` was added, edited or removed. ``before`` and ``after`` are all servers
    in the kernel's order, ``memory`` is what the scheduler has in mind."""

    kind: Literal["add", "edit", "remove"]
    server: str
    before: tuple[Server, ...]
    after: tuple[Server, ...]
    memory: object = None


def kept(change: Change) -> object:
    """The memory as it was: for schedulers to which a change of the table means nothing."""
    return change.memory


@dataclass(frozen=True)
class Model:
    """One kernel's scheduler: how it chooses, and what it remembers when the table has changed.

    ``remembers`` where a choice depends on the choices before it, and not on the connections alone. One that
    draws has ``chances``, and its ``choose`` raises CheckFailed.
    """

    choose: Scheduler
    changed: Callable[[Change], object] = kept
    remembers: bool = False
    chances: Chances | None = None


def index_of(servers: Sequence[Server], name: str) -> int:
    """The place of the server of that name, -1 where there is none: the list's head, as the kernel has
    it."""
    return next((index for index, server in enumerate(servers) if server.name == name), -1)
