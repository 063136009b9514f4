"""Errors of lvslab, each with the exit status of a command that it ends.

::

    LvsLabError                 1
    ├── CheckFailed             1   the cluster does not do what the how-to says
    ├── UsageError              2   the command line is wrong
    │   ├── LabFileError        2   lab.yaml or howto.md is wrong: file, line, what would be right
    │   └── FeatureLacking      2   the directors' kernel or ipvsadm is too old for the lab
    ├── MachineError            3   this machine lacks something that the lab needs
    ├── BootError               4   a guest or a service did not come up
    │   └── GuestKilled         4   a signal ended the QEMU of a guest
    ├── StepFailed              5   a step of the how-to did not end as the how-to says
    ├── StateError              6   the lab is up already, or is not up
    └── BuildError              7   a package, a kernel or a guest image could not be made
        └── CommandFailed       7   a program that lvslab started ended badly

A command that the user interrupts (Ctrl-C) ends with 130, as shells have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class LvsLabError(Exception):
    """An error for the user, reported in one message without a traceback.

    ``message`` says what is wrong and where; ``hint`` says what would be right, or what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class CheckFailed(LvsLabError):
    """The cluster runs, but does not do what the how-to says."""


class UsageError(LvsLabError):
    """The command line asks for something that does not exist or is not possible."""

    exit_code = 2


class LabFileError(UsageError):
    """A file of a lab is wrong. ``line`` counts from 1; it is 0 if the error belongs to no line."""

    def __init__(self, file: Path, line: int, message: str, hint: str | None = None) -> None:
        place = f"{file}:{line}" if line else f"{file}"
        super().__init__(f"{place}: {message}", hint)
        self.file = file
        self.line = line


class FeatureLacking(UsageError):
    """The directors' kernel or ipvsadm lacks a feature that ``lab.yaml`` says the lab needs."""


class MachineError(LvsLabError):
    """This machine lacks a program, a device, a privilege or a package."""

    exit_code = 3


class BootError(LvsLabError):
    """A guest or a service did not come up within its deadline, or died."""

    exit_code = 4


class GuestKilled(BootError):
    """A signal ended the QEMU of a guest: the failure is not one of the guest's kernel."""


class StepFailed(LvsLabError):
    """A step of the how-to did not end as the how-to says it does."""

    exit_code = 5


class StateError(LvsLabError):
    """The lab is up and must not be, or the other way round."""

    exit_code = 6


class BuildError(LvsLabError):
    """A package, a kernel or a guest image could not be fetched, verified or made."""

    exit_code = 7


class CommandFailed(BuildError):
    """A program that lvslab started ended with a status other than 0.

    ``status`` is the exit status, or minus the number of the signal that ended the program.
    """

    def __init__(self, message: str, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.status = status


def family(error: LvsLabError) -> type[LvsLabError]:
    """Return the nearest class of the tree above that ``error`` is an instance of."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == __name__)


def named(name: str) -> type[LvsLabError] | None:
    """Return the class of the tree above that is called ``name``, or None."""
    kind = globals().get(name)
    return kind if isinstance(kind, type) and issubclass(kind, LvsLabError) else None
