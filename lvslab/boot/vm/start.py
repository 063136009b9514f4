"""Starts guests from memory snapshots, and makes snapshots of those that booted."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from lvslab.boot.plan import Guest
from lvslab.boot.vm import snapshot
from lvslab.boot.vm.qemu import Accelerator, Machine, Memory
from lvslab.boot.vm.qmp import QmpError
from lvslab.errors import BootError

log = logging.getLogger("lvslab.start")

_RUN = Path("/run/lvslab/memory")


def memory_of(guest: Guest) -> Path:
    """Return the file of a guest's memory. It is there while the guest boots, or if it is copyable."""
    return _RUN / guest.name


class Starter:
    """A guest that is being started. ``machine`` is there at once; ``await_ready`` waits for its agent.

    ``began`` is the start on the monotonic clock. ``way`` says how it comes up: "resumed", "booted" (and a
    snapshot made), "booted cold" (none made), or "copied" (from ``copy``, of another lab's guest). A
    ``copyable`` one can be copied itself. ``making`` are the keys of the snapshots that this lab is about to
    make; a second guest of one does not wait for the first, but boots beside it.
    """

    def __init__(
        self,
        guest: Guest,
        accelerator: Accelerator,
        evidence: Path,
        *,
        cold: bool,
        making: set[str],
        copyable: bool = False,
        copy: snapshot.Snapshot | None = None,
    ) -> None:
        self.guest = guest
        self.began = time.monotonic()
        self._accelerator: Accelerator = accelerator
        self._evidence = evidence
        self._held = ExitStack()
        self._key = snapshot.key(guest, accelerator)
        self._snapshot = copy
        self._copyable = copyable
        self.way = "booted cold" if copy is None else "copied"
        if copy is None and not cold:
            self._choose(making)
        self.machine = self._start()

    def await_ready(self) -> None:
        """Block until the guest's agent answers. Raises BootError."""
        with self._held:
            if self._snapshot is not None:
                (self._begin_from if self.way == "copied" else self._resume)(self._snapshot)
                return
            self.machine.await_ready()
            if self.way == "booted":
                self._keep()

    def _choose(self, making: set[str]) -> None:
        self._snapshot = snapshot.find(self._key)
        if self._snapshot is None:
            if self._key in making:
                return
            # This waits for another lab that is making the snapshot now, and then it is there.
            self._held.enter_context(snapshot.making(self._key))
            self._snapshot = snapshot.find(self._key)
        if self._snapshot is None:
            self.way = "booted"
            making.add(self._key)
        else:
            self.way = "resumed"
            self._held.close()

    def _start(self) -> Machine:
        memory = None
        if self._snapshot is not None and not self._copyable:
            memory = Memory(self._snapshot.memory, shared=False)
        elif self._copyable or self.way == "booted":
            _RUN.mkdir(parents=True, exist_ok=True)
            file = memory_of(self.guest)
            file.unlink(missing_ok=True)
            if self._snapshot is not None:
                with file.open("wb") as writer:
                    snapshot.copy(self._snapshot.memory, writer)
            memory = Memory(file, shared=True, filled=self._snapshot is not None)
        return Machine(self.guest, self._accelerator, self._evidence, memory=memory)

    def _begin_from(self, copy: snapshot.Snapshot) -> None:
        try:
            self.machine.resume(copy.state)
        except QmpError as refused:
            raise self.machine.failure("copy", f"QEMU refuses the state of the copy: {refused}") from None
        self.machine.await_answer()

    def _resume(self, found: snapshot.Snapshot) -> None:
        try:
            self.machine.resume(found.state)
            if not snapshot.unchanged(found):
                # Its memory and its state may be of two different guests.
                raise QmpError("it was replaced meanwhile")
            self.machine.await_answer()
        except (QmpError, BootError) as failed:
            # The lab can do without a snapshot that this QEMU does not take.
            log.warning("%s: the snapshot %s cannot be resumed (%s)", self.guest.name, self._key, failed)
            snapshot.discard(found)
            self.machine.end()
            self._snapshot, self.way = None, "booted cold"
            self.machine = self._start()
            self.machine.await_ready()

    def _keep(self) -> None:
        state = _RUN / f"{self.guest.name}.state"
        try:
            self.machine.save(state)
            about = {
                "kernel": self.guest.boot.release,
                "accelerator": self._accelerator,
                "mib": self.guest.memory,
            }
            snapshot.keep(self._key, memory_of(self.guest), state, about)
            snapshot.prune()
        except (QmpError, OSError) as failed:
            # The lab can do without one, on a full disk for example.
            log.warning("%s: no snapshot can be made of it (%s)", self.guest.name, failed)
            self.way = "booted cold"
        finally:
            state.unlink(missing_ok=True)
            self.machine.go_on()
