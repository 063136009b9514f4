"""Labs for one test each, brought up while the tests before it run.

A test that changes its lab gets one of its own, and has to wait only for what is left to do of it. No lab is
given out twice: when its test is done it is ended, in the background too.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lvslab.check.testbed import Testbed
from lvslab.cluster import booted

AHEAD = 2
"""So many labs are brought up in advance: an emulated director keeps a processor busy meanwhile."""


@dataclass(frozen=True)
class Wanted:
    """What kind of lab a test asks for; ``applied`` says whether with the how-to's steps taken."""

    folder: Path
    kernel_name: str | None
    applied: bool


class OwnLab:
    """A lab that comes up in a thread of ``pool``, and belongs to whoever has this object."""

    def __init__(self, wanted: Wanted, pool: ThreadPoolExecutor) -> None:
        self.wanted = wanted
        self._held = ExitStack()
        self._coming: Future[Testbed] = pool.submit(self._begin)

    def testbed(self) -> Testbed:
        """The lab, once it is up. Raises what kept it from that."""
        return self._coming.result()

    def end(self) -> None:
        """End the lab, when it is up if it is not yet; return when nothing is left of it."""
        self._coming.exception()
        self._held.close()

    def _begin(self) -> Testbed:
        name = f"{self.wanted.folder.name[:20]}-{secrets.token_hex(3)}"
        with ExitStack() as opening:
            running = booted(self.wanted.folder, name=name, kernel_name=self.wanted.kernel_name)
            testbed = opening.enter_context(Testbed(opening.enter_context(running)))
            if self.wanted.applied:
                testbed.apply()
            self._held = opening.pop_all()
        return testbed


class Spares:
    """The labs that are on their way for tests to come, and those that are being ended."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(thread_name_prefix="labs of tests")
        self._spares: list[OwnLab] = []
        self._ending: list[Future[None]] = []

    def take(self, wanted: Wanted) -> OwnLab:
        """A lab for the test that runs now."""
        found = next((spare for spare in self._spares if spare.wanted == wanted), None)
        if found is None:
            return OwnLab(wanted, self._pool)
        self._spares.remove(found)
        return found

    def prepare(self, coming: Iterable[Wanted]) -> None:
        """Begin with the labs of the next tests."""
        missing = Counter(islice(coming, AHEAD)) - Counter(spare.wanted for spare in self._spares)
        self._spares += [OwnLab(kind, self._pool) for kind in missing.elements()]

    def end(self, lab: OwnLab) -> None:
        """End a lab whose test is done. Raises what went wrong with the end of an earlier one."""
        self._ending.append(self._pool.submit(lab.end))
        for ended in [coming for coming in self._ending if coming.done()]:
            self._ending.remove(ended)
            ended.result()

    def close(self) -> None:
        """End all that are left, and return when nothing of any lab is. Raises what went wrong with that."""
        for spare in self._spares:
            self.end(spare)
        self._spares.clear()
        try:
            for ending in self._ending:
                ending.result()
        finally:
            self._pool.shutdown()
