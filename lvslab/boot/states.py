"""States of a node, each with the text that people and ``lab.status --json`` get."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lvslab.run import ended


class State(StrEnum):
    """State of a node. A Mininet host is booting or up."""

    BOOTING = "booting"
    UP = "up"
    HANGS = "hangs"
    EXITED = "exited"
    KILLED = "killed"

    @property
    def is_fault_of_lab(self) -> bool:
        """True where the lab broke. A guest that exited may have been ended by its own kernel's panic."""
        return self in (State.HANGS, State.KILLED)


@dataclass(frozen=True)
class Condition:
    """A state and its text."""

    state: State
    text: str

    def __str__(self) -> str:
        return self.text


BOOTING = Condition(State.BOOTING, "booting")
UP = Condition(State.UP, "up")


def hanging(seconds: float) -> Condition:
    """Return the condition of a guest whose agent was silent for ``seconds``."""
    return Condition(State.HANGS, f"it hangs: no sign of life from its agent within {seconds:g} s")


def exited(program: str, status: int) -> Condition:
    """Return the condition of a guest whose ``program`` ended with ``status`` (as in subprocess)."""
    return Condition(State.KILLED if status < 0 else State.EXITED, ended(program, status))
