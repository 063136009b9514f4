"""Guests in QEMU: the command line as a pure function, and a process that is watched while it comes up."""

from __future__ import annotations

import contextlib
import logging
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lvslab.boot.agent import Agent, AgentSilent
from lvslab.boot.console import Console
from lvslab.boot.plan import Guest, guest_setup
from lvslab.errors import BootError
from lvslab.run import ended, last_lines, missing_program

log = logging.getLogger("lvslab.qemu")

QEMU = "qemu-system-x86_64"
Accelerator = Literal["kvm", "tcg"]

_COMFORTABLE = 128

# Generous: a loaded two-core machine needs 5 s for what takes 2.5 s otherwise, and more than that without
# KVM.
DEADLINE: dict[Accelerator, float] = {"kvm": 20.0, "tcg": 60.0}


@dataclass(frozen=True)
class Ports:
    """The descriptors that QEMU inherits as the guest's serial ports: the console and the agent's."""

    console: int
    agent: int


def command(guest: Guest, accelerator: Accelerator, ports: Ports, *, cards: bool = True) -> list[str]:
    """The QEMU command line for ``guest``, as for ``subprocess``; without ``cards`` it needs no taps."""
    plugged = [(card.port, card.mac) for card in guest.cards]
    plugged.append((guest.management.tap, guest.management.mac))
    return [
        QEMU,
        *("-name", guest.name),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-machine", "pc"),
        # The emulator's cache of translated code grows to 1 GiB if it may, and is not faster for it.
        *("-accel", "tcg,tb-size=64" if accelerator == "tcg" else accelerator),
        # With rdrand the kernel has random numbers at once; without, the first SSH login waits a second
        # for them.
        *("-cpu", "host" if accelerator == "kvm" else "qemu64,+rdrand"),
        *("-m", str(guest.memory)),
        *("-kernel", str(guest.kernel)),
        *("-initrd", str(guest.initrd)),
        # panic=-1 restarts at once, and -no-reboot turns that into QEMU's end, which is noticed at once.
        *("-append", "console=ttyS0 panic=-1 quiet"),
        *("-chardev", f"socket,id=console,fd={ports.console}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={ports.agent}"),
        *("-serial", "chardev:agent"),
        *(word for number, card in enumerate(plugged if cards else ()) for word in _card(number, *card)),
    ]


def _card(number: int, tap: str, mac: str) -> list[str]:
    return [
        *("-netdev", f"tap,id=net{number},ifname={tap},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net{number},mac={mac},romfile="),
    ]


class Machine:
    """One running guest. It ends with the supervisor's namespaces, or when ``end`` is called."""

    def __init__(
        self,
        guest: Guest,
        accelerator: Accelerator,
        evidence: Path,
        *,
        cards: bool = True,
        wrapper: tuple[str, ...] = (),
    ) -> None:
        """Start QEMU, behind the words of ``wrapper``. Its taps must exist unless it has no ``cards``.

        Raises MachineError where there is no QEMU.
        """
        self.guest = guest
        self.accelerator: Accelerator = accelerator
        self._messages = evidence / f"qemu-{guest.name}.log"
        self._log = evidence / f"console-{guest.name}.log"
        console, console_end = socket.socketpair()
        agent, agent_end = socket.socketpair()
        line = command(guest, accelerator, Ports(console_end.fileno(), agent_end.fileno()), cards=cards)
        line = [*wrapper, *line]
        log.debug("%s", shlex.join(line))
        with console_end, agent_end, self._messages.open("wb") as messages:
            try:
                self._process = subprocess.Popen(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=messages,
                    stderr=messages,
                    pass_fds=(console_end.fileno(), agent_end.fileno()),
                )
            except FileNotFoundError:
                missing_program(QEMU)
        self.started = time.monotonic()
        self.console = Console(console, self._log)
        self.agent = Agent(agent)

    def await_ready(self, seconds: float | None = None) -> None:
        """Return when the guest's agent answers. Raises BootError with the console's last words."""
        seconds = DEADLINE[self.accelerator] if seconds is None else seconds
        with self._explained("boot", seconds):
            self.agent.await_greeting(seconds - (time.monotonic() - self.started))

    def set_up(self) -> None:
        """Make the guest the node of its plan. Raises BootError."""
        with self._explained("set-up", 30.0):
            try:
                self.agent.run(guest_setup(self.guest), 30.0)
            except BootError as failed:
                raise BootError(
                    f"{self.guest.name} booted {self.guest.release}, but could not be set up: {failed.hint}",
                    "has this kernel virtio_pci and virtio_net, built in or as modules that lvslab found?",
                ) from None

    @property
    def ended(self) -> str | None:
        """How QEMU ended, in words; None while it runs."""
        status = self._process.poll()
        return None if status is None else ended(QEMU, status)

    @property
    def said(self) -> str:
        """The last line that QEMU itself printed, "" where there is none."""
        return last_lines(self._messages.read_bytes(), 1) or ""

    def end(self) -> None:
        """Stop the guest at once, as if the power had failed."""
        self._process.kill()
        self._process.wait()
        self.console.ended(5)
        self.agent.close()

    @contextlib.contextmanager
    def _explained(self, phase: str, seconds: float) -> Iterator[None]:
        try:
            yield
        except AgentSilent as silent:
            raise self._failure(phase, seconds, silent.closed) from None

    def _failure(self, phase: str, seconds: float, closed: bool) -> BootError:
        guest = self.guest
        if closed:
            # The rest of the console and QEMU's own words arrive with its end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.console.ended(5)
        panic = self.console.panic()
        if panic:
            what = f"its kernel gave up: {panic}"
        elif closed:
            what = self.ended or "QEMU closed its console"
        else:
            what = f"nothing came from it within {seconds:g} s"
        said = [
            f"kernel {guest.release} ({guest.kernel}), {self.accelerator}; evidence in {self._log.parent}"
        ]
        if panic and guest.memory < _COMFORTABLE:
            said.append(f"it has {guest.memory} MiB of memory; kernel and image want some {_COMFORTABLE}")
        if lines := self.console.last_lines():
            said += ["last lines of its console:", *(f"  {line}" for line in lines)]
        elif words := last_lines(self._messages.read_bytes()):
            said += ["QEMU said:", f"  {words}"]
        else:
            said.append("its console is empty: is this kernel one with a serial console (8250) built in?")
        return BootError(f"{guest.name} did not come up ({phase}): {what}", "\n  ".join(said))
