"""The virtual machines of a lab, booted at the same time, and then watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from lvslab.boot.events import GuestUp
from lvslab.boot.net import taps
from lvslab.boot.plan import Plan
from lvslab.boot.vm import snapshot
from lvslab.boot.vm import start as warm
from lvslab.boot.vm.clone import inherited
from lvslab.boot.vm.node import VirtualMachine
from lvslab.boot.vm.qemu import Accelerator, Machine

HEARTBEAT = 2.0
"""Seconds between two heartbeats that a guest's agent is asked for."""


class Guests:
    """All guests of a plan; ``tell`` is called for each that is up."""

    def __init__(self, plan: Plan, tell: Callable[[GuestUp], None]) -> None:
        self.nodes = {guest.name: VirtualMachine(guest, copyable=plan.copyable) for guest in plan.guests}
        self._plan = plan
        self._copies = {name: inherited(pair) for name, pair in plan.copies.items()}
        self._tell = tell
        # One more for the thread that starts them all.
        self._pool = ThreadPoolExecutor(len(plan.guests) + 1, thread_name_prefix="guest")
        self._coming: Future[list[Future[None]]] | None = None

    def start(self, accelerator: Accelerator) -> None:
        """Make the taps, and begin to boot all guests; ``await_up`` waits for them. Raises MachineError."""
        taps.make(self._plan.guests)
        self._coming = self._pool.submit(self._start_all, accelerator)

    def await_up(self) -> None:
        """Block until each guest is the node of its plan. Raises the error of the first that fails."""
        if self._coming is None:
            return
        ups = self._coming.result()
        for up in wait(ups, return_when=FIRST_EXCEPTION).done:
            up.result()

    def _start_all(self, accelerator: Accelerator) -> list[Future[None]]:
        plan, making, ups = self._plan, set[str](), []
        # In the same order in every lab: two that wait for one another's snapshots would wait for ever.
        for guest in sorted(plan.guests, key=lambda guest: snapshot.key(guest, accelerator)):
            starter = warm.Starter(
                guest,
                accelerator,
                plan.evidence,
                cold=plan.cold,
                making=making,
                copyable=plan.copyable,
                copy=self._copies.get(guest.name),
            )
            ups.append(self._pool.submit(self._bring_up, starter))
        return ups

    def _bring_up(self, starter: warm.Starter) -> None:
        starter.await_ready()
        answered = time.monotonic() - starter.began
        machine, name = starter.machine, starter.guest.name
        (machine.renew if starter.way == "copied" else machine.set_up)()
        seconds = time.monotonic() - starter.began
        self.nodes[name].came_up(machine, starter.way, answered, seconds)
        threading.Thread(target=_watch, args=(machine,), name="heartbeat", daemon=True).start()
        self._tell(GuestUp(name, starter.way, seconds))


def _watch(machine: Machine) -> None:
    """Ask a guest for a heartbeat every HEARTBEAT seconds, until it has ended."""
    never = threading.Event()
    while machine.ended is None:
        never.wait(HEARTBEAT)
        machine.heartbeat()
