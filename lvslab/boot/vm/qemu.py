"""Guests in QEMU: the command line, and the process."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lvslab.boot.plan import Guest, guest_impairments, guest_renewal, guest_setup
from lvslab.boot.states import Condition, State, exited, hanging
from lvslab.boot.vm.agent import Agent, AgentSilent, Done
from lvslab.boot.vm.console import Console
from lvslab.boot.vm.qmp import Qmp, QmpError
from lvslab.errors import BootError, GuestKilled
from lvslab.kernel.catalogue import numbers
from lvslab.run import TimeoutExpired, last_lines, missing_program, run, spawn

log = logging.getLogger("lvslab.qemu")

QEMU = "qemu-system-x86_64"
Accelerator = Literal["kvm", "tcg"]

# A loaded two-core machine takes 5 s where an idle one takes 2.5 s, and longer without KVM.
DEADLINE: dict[Accelerator, float] = {"kvm": 20.0, "tcg": 60.0}

PATIENCE = 10.0
"""Seconds in which a guest's agent must answer a heartbeat. On a loaded machine it takes 1 s."""


@dataclass(frozen=True)
class Ports:
    """Descriptors that QEMU inherits: the guest's console and agent (serial ports), and QEMU's monitor."""

    console: int
    agent: int
    monitor: int


@dataclass(frozen=True)
class Memory:
    """A file that is the guest's memory.

    If ``shared``, what the guest writes goes to the file, for a snapshot to be made of it. Else the file is
    a snapshot's, which the guest resumes and does not change. A shared file that is ``filled`` holds the
    memory of a snapshot to be resumed.
    """

    file: Path
    shared: bool
    filled: bool = False

    @property
    def incoming(self) -> bool:
        """True if the guest waits for the state that belongs to this memory."""
        return self.filled or not self.shared


def version() -> str:
    """Return QEMU's version. Raises MachineError where QEMU is not installed."""
    said = run([QEMU, "--version"]).stdout.decode(errors="replace")
    return said.partition("\n")[0].removeprefix("QEMU emulator version ")


def which() -> list[Any]:
    """Return the path, size and time of change (JSON) of this machine's QEMU. Raises MachineError."""
    place = shutil.which(QEMU)
    if place is None:
        missing_program(QEMU)
    about = Path(place).stat()
    return [place, about.st_size, about.st_mtime_ns]


def command(
    guest: Guest, accelerator: Accelerator, ports: Ports, *, cards: bool = True, memory: Memory | None = None
) -> list[str]:
    """Return the QEMU command line for ``guest``; see `Machine`."""
    plugged = [(card.port, card.mac) for card in guest.cards]
    plugged.append((guest.management.tap, guest.management.mac))
    return [
        QEMU,
        *("-name", guest.name),
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *("-machine", "pc,memory-backend=memory" if memory else "pc"),
        # The emulator's cache of translated code grows to 1 GiB if it may, and is not faster for it.
        *("-accel", "tcg,tb-size=64" if accelerator == "tcg" else accelerator),
        # With rdrand the kernel has random numbers at once; without, the first SSH login waits a second
        # for them.
        *("-cpu", "host" if accelerator == "kvm" else "qemu64,+rdrand"),
        *("-m", str(guest.memory)),
        *(_backend(guest, memory) if memory else ()),
        *("-kernel", str(guest.boot.kernel)),
        *("-initrd", str(guest.boot.initrd)),
        *("-append", parameters(guest, accelerator)),
        *("-chardev", f"socket,id=console,fd={ports.console}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=agent,fd={ports.agent}"),
        *("-serial", "chardev:agent"),
        *("-chardev", f"socket,id=monitor,fd={ports.monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
        *(
            word
            for number, card in enumerate(plugged if cards else ())
            for word in _card(number, guest.boot.nic, *card)
        ),
    ]


def parameters(guest: Guest, accelerator: Accelerator) -> str:
    """Return the command line of the guest's kernel, short enough for the oldest kernels."""
    version = numbers(guest.boot.release)
    # Kernels restart after a panic, and -no-reboot turns that into QEMU's end, which is noticed at once.
    # Since 3.2 they can do so without waiting for a second first.
    words = ["console=ttyS0", "panic=-1" if version >= (3, 2) else "panic=1", "quiet"]
    if accelerator == "tcg" and version >= (3,):
        # The emulator translates code by its address, so libraries at new addresses in each process are
        # translated again: a program with four of them starts in 75 ms, and in 22 ms with this.
        words.append("norandmaps")
        # On a busy machine the emulator's timer misses the kernel's test of it, and the kernel gives up, or
        # goes on without ("8254 timer not connected to IO-APIC"). With KVM it skips the test by itself.
        words.append("no_timer_check")
    if guest.boot.image_kind == "initramfs" and version >= (3, 13):
        # Since 3.13 the root is a tmpfs of half the memory that is free beside the packed image, too small
        # for what is in it.
        words.append("rootfstype=ramfs")
    if guest.boot.image_kind == "ext2":
        size = guest.boot.initrd.stat().st_size >> 10
        words += ["root=/dev/ram0", "rw", "init=/init", f"ramdisk_size={size}"]
    return " ".join(words)


def _backend(guest: Guest, memory: Memory) -> list[str]:
    # A comma in a value of QEMU's is written twice.
    file, share = str(memory.file).replace(",", ",,"), "on" if memory.shared else "off"
    backend = f"memory-backend-file,id=memory,size={guest.memory}M,mem-path={file},share={share}"
    return ["-object", backend, *(("-incoming", "defer") if memory.incoming else ())]


def _card(number: int, model: str, tap: str, mac: str) -> list[str]:
    return [
        *("-netdev", f"tap,id=net{number},ifname={tap},script=no,downscript=no"),
        *("-device", f"{model},netdev=net{number},mac={mac},romfile="),
    ]


class Machine:
    """A guest that runs until ``end`` is called, or the supervisor's namespaces end."""

    def __init__(
        self,
        guest: Guest,
        accelerator: Accelerator,
        evidence: Path,
        *,
        cards: bool = True,
        wrapper: tuple[str, ...] = (),
        memory: Memory | None = None,
    ) -> None:
        """Start QEMU, behind the words of ``wrapper``. Its taps must exist unless it has no ``cards``.

        With ``memory`` of a snapshot it stands still until ``resume``. Raises MachineError where QEMU is
        not installed.
        """
        self.guest = guest
        self.accelerator: Accelerator = accelerator
        self._messages = evidence / f"qemu-{guest.name}.log"
        self._log = evidence / f"console-{guest.name}.log"
        console, console_end = socket.socketpair()
        agent, agent_end = socket.socketpair()
        monitor, monitor_end = socket.socketpair()
        ends = (console_end.fileno(), agent_end.fileno(), monitor_end.fileno())
        line = [*wrapper, *command(guest, accelerator, Ports(*ends), cards=cards, memory=memory)]
        with (
            console_end, agent_end, monitor_end, self._messages.open("ab") as messages,
            spawn(line, stdout=messages, stderr=messages, pass_fds=ends, outlives=True) as process,
        ):  # fmt: skip
            self._process = process
        self.started = time.monotonic()
        self.console = Console(console, self._log)
        self.agent = Agent(agent)
        self._monitor = Qmp(monitor)
        self._silent = 0.0

    def save(self, state: Path) -> None:
        """Stop the guest, and write the state of its devices to ``state``. Raises QmpError, OSError."""
        self._monitor.execute("stop")
        place = state.with_suffix(".socket")
        with socket.socket(socket.AF_UNIX) as listener, state.open("wb") as file:
            listener.settimeout(10.0)
            listener.bind(str(place))
            try:
                listener.listen(1)
                self._migrate("migrate", f"unix:{place}")
                stream, _ = listener.accept()
            finally:
                place.unlink()
            # QEMU says "completed" before all is written, and refuses "cont" for a moment then. Its end of
            # the stream comes after both.
            with stream:
                stream.settimeout(30.0)
                while data := stream.recv(1 << 20):
                    file.write(data)
        self._await_migrated("migrate")

    def go_on(self) -> None:
        """Let a guest that ``save`` stopped run on. Raises BootError."""
        try:
            self._monitor.execute("cont")
        except QmpError as refused:
            what = f"{self.guest.name} does not run on after it was stopped for a snapshot: {refused}"
            hint = str(self.ended or "") or last_lines(self._messages.read_bytes())
            raise self._error()(what, hint) from None

    def resume(self, state: Path) -> None:
        """Load the state that belongs to a snapshot's memory, and let the guest run. Raises QmpError."""
        self._migrate("migrate-incoming", f"exec:cat {shlex.quote(str(state))}")
        self._await_migrated("migrate-incoming")
        self._monitor.execute("cont")

    def _migrate(self, command: str, uri: str) -> None:
        # Memory that is a file stays where it is: only the state of the devices travels.
        wanted = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
        self._monitor.execute("migrate-set-capabilities", capabilities=wanted)
        self._monitor.execute(command, uri=uri)

    def _await_migrated(self, command: str) -> None:
        while (status := self._monitor.await_event("MIGRATION", 30.0).get("status")) != "completed":
            if status in ("failed", "cancelled"):
                raise QmpError(f"{command} {status}")

    def await_ready(self, seconds: float | None = None) -> None:
        """Block until the guest's agent answers. Raises BootError with the console's last lines."""
        seconds = DEADLINE[self.accelerator] if seconds is None else seconds
        with self._explained("boot", seconds):
            self.agent.await_greeting(seconds - (time.monotonic() - self.started))

    def await_answer(self, seconds: float = 10.0) -> None:
        """Block until the agent of a resumed guest answers. Raises BootError."""
        with self._explained("resume", seconds):
            self.agent.run("true", seconds)

    def set_up(self) -> None:
        """Make the guest the node of its plan. Raises BootError."""
        order = guest_setup(self.guest, seconds=int(time.time()), seed=secrets.token_hex(32))
        boot = self.guest.boot
        hint = f"has this kernel a driver for {boot.nic}, built in or as a module that lvslab found?"
        self._change("set-up", order, f"booted {boot.release}, but could not be set up", hint)
        if impaired := guest_impairments(self.guest):
            what = "booted, but cannot drop, delay or limit packets as lab.yaml says"
            hint = f"it takes tc in its image, and sch_netem and sch_tbf in the kernel {boot.release}"
            self._change("set-up", impaired, what, hint)

    def renew(self) -> None:
        """Give a copied guest its own clock and random numbers. Raises BootError."""
        order = guest_renewal(seconds=int(time.time()), seed=secrets.token_hex(32))
        self._change("renewal", order, "was copied, but its clock and seed could not be set")

    def _change(self, phase: str, order: str, failure: str, hint: str | None = None) -> None:
        done = self.observe(order, doing=phase)
        if done.status != 0:
            said = "\n  ".join(done.lines) or "it printed nothing"
            raise BootError(f"{self.guest.name} {failure}: {said}", hint)

    def observe(
        self, command: str, seconds: float = 30.0, *, turn: float | None = None, doing: str = "reading"
    ) -> Done:
        """Run a shell command through the agent, which needs no network of the guest.

        Raises BootError where the guest does not answer within ``seconds``, or where orders before this one
        take longer than ``turn`` seconds.
        """
        with self._explained(doing, seconds):
            return self.agent.run(command, seconds, turn=turn)

    def heartbeat(self, seconds: float = PATIENCE) -> None:
        """Ask the agent for a sign of life. Without one in time, ``trouble`` says that the guest hangs."""
        try:
            self.agent.run(":", seconds)
        except AgentSilent:
            self._silent = seconds
        else:
            self._silent = 0.0

    @property
    def trouble(self) -> Condition | None:
        """The guest's condition where it has ended or hangs, else None."""
        if (how := self.ended) is not None:
            return how
        return hanging(self._silent) if self._silent else None

    @property
    def ended(self) -> Condition | None:
        """The guest's condition after QEMU has ended; None while it runs."""
        status = self._process.poll()
        return None if status is None else exited(QEMU, status)

    def _error(self) -> type[BootError]:
        ended = self.ended
        return GuestKilled if ended and ended.state is State.KILLED else BootError

    @property
    def said(self) -> str:
        """The last line that QEMU itself printed, "" where there is none."""
        return last_lines(self._messages.read_bytes(), 1) or ""

    def power_off(self) -> None:
        """Stop the guest at once, as if its power had failed. ``trouble`` says so from now on."""
        self._process.kill()
        self._process.wait()
        self.console.ended(5)

    def end(self) -> None:
        """Stop the guest at once, and close its agent and monitor."""
        self.power_off()
        self.agent.close()
        self._monitor.close()

    @contextlib.contextmanager
    def _explained(self, phase: str, seconds: float) -> Iterator[None]:
        try:
            yield
        except AgentSilent as silent:
            if silent.closed:
                # The rest of the console and QEMU's own words arrive with its end.
                with contextlib.suppress(TimeoutExpired):
                    self._process.wait(5)
                self.console.ended(5)
                late = "QEMU closed its console"
            else:
                late = f"nothing came from it within {seconds:g} s"
            raise self.failure(phase, self.ended or late) from None

    def failure(self, phase: str, what: Condition | str) -> BootError:
        """Make the error for a guest that does not run: ``what`` happened, or the panic on its console.

        The hint has the last lines of the console, and where to look further.
        """
        guest = self.guest
        panic = self.console.panic()
        if panic:
            what = f"its kernel gave up: {panic}"
        said = [
            f"kernel {guest.boot.release} ({guest.boot.kernel}), {self.accelerator};"
            f" evidence in {self._log.parent}"
        ]
        if panic and guest.memory < guest.boot.memory:
            said.append(
                f"it has {guest.memory} MiB of memory; kernel and image want some {guest.boot.memory}"
            )
        if lines := self.console.last_lines():
            said += ["last lines of its console:", *(f"  {line}" for line in lines)]
        elif words := last_lines(self._messages.read_bytes()):
            said += ["QEMU said:", f"  {words}"]
        elif phase == "boot":
            said.append(
                "its console is empty: it has not come so far, or its kernel has no serial console (8250)"
            )
        else:
            said.append("its console is empty")  # as it is after a snapshot was resumed
        kind = BootError if panic else self._error()
        return kind(f"{guest.name} is not up ({phase}): {what}", "\n  ".join(said))
