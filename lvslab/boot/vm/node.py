"""A virtual machine of a running lab."""

from __future__ import annotations

import socket

from lvslab.boot.net import packets
from lvslab.boot.node import CONSOLE, COPY, Node, Observed
from lvslab.boot.plan import Card, Guest
from lvslab.boot.relay import relayed
from lvslab.boot.states import BOOTING, UP, Condition
from lvslab.boot.vm import clone, start
from lvslab.boot.vm.qemu import PATIENCE, Machine
from lvslab.errors import BootError, StateError


class VirtualMachine(Node):
    """A guest in QEMU; ``machine`` is there once it is the node of its plan."""

    kind = "guest"
    far = True

    def __init__(self, guest: Guest, *, copyable: bool) -> None:
        super().__init__(guest.name, guest.cards)
        self.features = frozenset({CONSOLE, COPY} if copyable else {CONSOLE})
        self.machine: Machine | None = None

    def came_up(self, machine: Machine, way: str, answered: float, set_up: float) -> None:
        """Note the running machine, the way it came up, and after how many seconds."""
        self.history = {"way": way, "answered": round(answered, 3), "set_up": round(set_up, 3)}
        self.machine = machine

    @property
    def condition(self) -> Condition:
        return BOOTING if self.machine is None else self.machine.trouble or UP

    def running(self, *, hanging: bool = True) -> Machine:
        """Return the machine. Raises StateError, or BootError where it ended (or hangs: ``hanging``)."""
        if self.machine is None:
            raise StateError(f"{self.name} is just coming up", "wait for lab.up to end")
        if (trouble := self.machine.ended if hanging else self.machine.trouble) is not None:
            raise self.machine.failure("running", trouble)
        return self.machine

    def connect(self) -> socket.socket:
        """Connect to the guest's SSH server over its management card."""
        server = self.running(hanging=False).guest.management.server
        try:
            far = socket.create_connection(server, timeout=10)
        except OSError as refused:
            self.running(hanging=False)  # it may have begun to hang just now
            raise BootError(f"{self.name} does not accept SSH connections: {refused}") from None
        return relayed(far, PATIENCE)

    def observe(self, command: str, seconds: float | None) -> Observed:
        if seconds is None:
            done = self.running().observe(command)
        else:
            done = self.running(hanging=False).observe(command, seconds, turn=seconds)
        return Observed(done.status, "".join(f"{line}\n" for line in done.lines))

    def stop(self) -> None:
        self.running().power_off()

    def open_card(self, card: Card, program: packets.Program, room: int) -> socket.socket:
        """Open a socket at the card's tap, which is in the supervisor's own network namespace."""
        return packets.open_at(card.port, program, room)

    def console(self) -> socket.socket:
        return self.running().console.attach()

    def copy(self) -> tuple[int, int]:
        """Copy the guest while it is stopped for a moment. Raises MachineError where that is impossible."""
        machine = self.running()
        return clone.take(machine, start.memory_of(machine.guest))
