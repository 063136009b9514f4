"""Copies of running guests, for labs that begin where this one is.

A copy is two files in memory that have no name (memfd): they go with the last process that holds them,
however that ends. They are sealed, so no guest that runs from them can change what the next one gets.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lvslab.boot.vm import snapshot
from lvslab.boot.vm.qemu import Machine
from lvslab.boot.vm.qmp import QmpError
from lvslab.errors import MachineError

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def take(machine: Machine, memory: Path) -> tuple[int, int]:
    """Copy a guest while it is stopped for a moment. Its memory must be the shared file ``memory``.

    Returns descriptors of its memory and of its devices' state. Raises MachineError where QEMU or the memory
    of this machine does not allow it, BootError where the guest does not run on.
    """
    state = memory.with_name(f"{memory.name}.state")
    # An unfinished order would be answered in the copy, too.
    with machine.agent.quiet():
        try:
            machine.save(state)
            return _sealed(memory), _sealed(state)
        except (QmpError, OSError) as failed:
            raise MachineError(f"{machine.guest.name} cannot be copied: {failed}") from None
        finally:
            state.unlink(missing_ok=True)
            machine.go_on()


def inherited(descriptors: tuple[int, int]) -> snapshot.Snapshot:
    """Return a copy with inherited descriptors as files for QEMU. Other children do not get them."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    memory, state = (Path(f"/proc/{os.getpid()}/fd/{descriptor}") for descriptor in descriptors)
    return snapshot.Snapshot(memory, state)


def _sealed(file: Path) -> int:
    descriptor = os.memfd_create(file.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", closefd=False) as writer:
            snapshot.copy(file, writer)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
