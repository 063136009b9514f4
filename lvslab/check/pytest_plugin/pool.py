"""Pool of labs for one test each, which are booted while earlier tests run.

The how-to is typed once for each kind of lab. If it is typed on directors only, they are copied after the
last step, and further labs of that kind start from the copies.

A test that changes its lab gets a lab for itself, and waits only for the rest of its boot. Each lab is used
once; it is ended in the background after its test.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lvslab.apply.clones import Applied
from lvslab.check.testbed import Testbed
from lvslab.cluster.cluster import booted
from lvslab.cluster.record import Record
from lvslab.errors import BootError, MachineError
from lvslab.lab.directors import DirectorSpec

log = logging.getLogger("lvslab.pool")

AHEAD = 2
"""Number of labs to boot in advance: an emulated director keeps a processor busy meanwhile."""


@dataclass(frozen=True)
class Wanted:
    """A kind of lab that a test asks for, with the how-to ``applied`` or not.

    ``record`` is that of the lab to imitate, None for the lab that its folder describes now.
    """

    folder: Path
    spec: DirectorSpec
    applied: bool
    record: Record | None = field(default=None, compare=False)


class Typed:
    """Copies of the directors of one kind of lab after the how-to's last step.

    ``turn`` is locked while the first lab of that kind makes them, and while another lab asks for them. If
    ``hopeless``, labs of this kind cannot be copied, or cannot start from a copy.
    """

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.applied: Applied | None = None
        self.hopeless = False

    def close(self) -> None:
        """Release the copies. No lab may be starting from them at the moment."""
        if self.applied is not None:
            self.applied.close()
        self.applied = None


class OwnLab:
    """Lab for one test, booted in a thread of ``pool``.

    ``again`` says that further labs of its kind will be needed.
    """

    def __init__(self, wanted: Wanted, pool: ThreadPoolExecutor, typed: Typed, *, again: bool) -> None:
        self.wanted = wanted
        self._typed = typed
        self._again = again
        self._held = ExitStack()
        self._coming: Future[Testbed] = pool.submit(self._begin)

    def testbed(self) -> Testbed:
        """Wait for the lab. Raises the error of its boot."""
        return self._coming.result()

    def end(self) -> None:
        """End the lab, once it is up; return when nothing is left of it."""
        self._coming.exception()
        self._held.close()

    def _begin(self) -> Testbed:
        typed = self._typed
        if not self.wanted.applied:
            return self._up()
        # Waiting for the copies of the first lab is faster than typing the steps again.
        with typed.turn:
            applied = None if typed.hopeless else typed.applied
            if applied is None and self._again and not typed.hopeless:
                try:
                    return self._up(copyable=True)
                finally:
                    typed.hopeless = typed.applied is None
        if applied is not None:
            try:
                return self._up(begin_with=applied)
            except BootError as failed:
                log.warning("no lab begins with the steps taken any more: %s", failed)
                typed.hopeless = True
        return self._up()

    def _up(self, *, copyable: bool = False, begin_with: Applied | None = None) -> Testbed:
        wanted, record = self.wanted, self.wanted.record
        booting = booted(
            wanted.folder,
            name=f"{wanted.folder.name[:20]}-{secrets.token_hex(3)}",
            spec=wanted.spec,
            copyable=copyable,
            begin_with=begin_with,
            lab=record.lab if record else None,
            steps=record.steps if record else None,
        )
        with ExitStack() as opening:
            running = opening.enter_context(booting)
            testbed = opening.enter_context(Testbed(running))
            if wanted.applied and running.applied is None:
                summary = testbed.apply()
                if running.copyable:
                    try:
                        self._typed.applied = running.copy(summary)
                    except MachineError as refused:
                        log.warning("the steps are typed in each lab: %s", refused)
            self._held = opening.pop_all()
        return testbed


class Spares:
    """Labs that are booting for later tests, and labs that are ending."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(thread_name_prefix="labs of tests")
        self._spares: list[OwnLab] = []
        self._ending: list[Future[None]] = []
        self._typed: dict[Wanted, Typed] = {}

    def take(self, wanted: Wanted, coming: Sequence[Wanted]) -> OwnLab:
        """Return a lab for the running test; ``coming`` are those of all later tests."""
        found = next((spare for spare in self._spares if spare.wanted == wanted), None)
        if found is None:
            return self._own(wanted, again=wanted in coming)
        self._spares.remove(found)
        return found

    def prepare(self, coming: Sequence[Wanted]) -> None:
        """Start to boot the labs of the next tests."""
        missing = Counter(coming[:AHEAD]) - Counter(spare.wanted for spare in self._spares)
        self._spares += [self._own(kind, again=coming.count(kind) > 1) for kind in missing.elements()]

    def _own(self, wanted: Wanted, *, again: bool) -> OwnLab:
        return OwnLab(wanted, self._pool, self._typed.setdefault(wanted, Typed()), again=again)

    def end(self, lab: OwnLab) -> None:
        """End a lab after its test. Raises errors from the end of earlier ones."""
        self._ending.append(self._pool.submit(lab.end))
        for ended in [coming for coming in self._ending if coming.done()]:
            self._ending.remove(ended)
            ended.result()

    def close(self) -> None:
        """End all labs, and return when nothing is left of them. Raises errors from that."""
        for spare in self._spares:
            self.end(spare)
        self._spares.clear()
        try:
            for ending in self._ending:
                ending.result()
        finally:
            self._pool.shutdown()
            for typed in self._typed.values():
                typed.close()
