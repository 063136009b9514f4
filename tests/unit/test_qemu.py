"""Command lines as text; endings with a stand-in for QEMU that speaks on the ports it is handed."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lvslab.boot import plan, qemu
from lvslab.boot.plan import Card, Guest
from lvslab.boot.qemu import Machine, Ports
from lvslab.errors import BootError, MachineError

CARDS = (
    Card("eth0", "internet", "internet-0.0", "02:4c:56:00:00:00", "192.0.2.1/24", None),
    Card("eth1", "lan", "lan-0.1", "02:4c:56:00:00:01", "10.0.0.1/24", None),
)

# Speaks as ``script`` says: "console TEXT", "agent TEXT", "stderr TEXT", "order" (await one), "status N",
# "signal N", "stay".
QEMU = f"""#!{sys.executable} -SE
import os, re, signal, socket, sys, time
ports = re.findall(r"id=(console|agent),fd=(\\d+)", " ".join(sys.argv))
fd = {{name: int(number) for name, number in ports}}
for line in SCRIPT:
    what, _, rest = line.partition(" ")
    if what in fd: os.write(fd[what], rest.encode())
    elif what == "stderr": os.write(2, rest.encode())
    elif what == "order": number = os.read(fd["agent"], 65536).split()[0].decode()
    elif what == "answer": os.write(fd["agent"], f"{{number}}{{rest}}\\n".encode())
    elif what == "status": os._exit(int(rest))
    elif what == "signal": os.kill(os.getpid(), int(rest))
    elif what == "stay": time.sleep(1000)
"""


def leave(machine: Machine) -> None:
    machine.end()
    assert machine.console.ended(10)
    machine.console._stream.close()
    machine.agent._stream.close()


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(
        "director", CARDS, tmp_path / "bzImage", "6.1.0", tmp_path / "image", 192, plan._management(0)
    )


Starter = Callable[..., Machine]


@pytest.fixture
def start(guest: Guest, tmp_path: Path, program: Callable[[str, str], Path]) -> Iterator[Starter]:
    """Starts a machine whose QEMU does what it is told, line for line."""
    with ExitStack() as ends:

        def started(*script: str) -> Machine:
            program(qemu.QEMU, QEMU.replace("SCRIPT", repr(script)))
            machine = Machine(guest, "tcg", tmp_path)
            ends.callback(leave, machine)
            return machine

        yield started


# --- the command line ------------------------------------------------------------------------------


def options(line: list[str]) -> dict[str, list[str]]:
    """The values of each option of a command line; "" for one that has none."""
    found: dict[str, list[str]] = {}
    for option, value in itertools.pairwise([*line[1:], "-"]):
        if option.startswith("-"):
            found.setdefault(option, []).append("" if value.startswith("-") else value)
    return found


def test_a_guest_as_a_command_line(guest: Guest) -> None:
    line = qemu.command(guest, "tcg", Ports(console=5, agent=6))
    found = options(line)
    assert line[0] == "qemu-system-x86_64"
    assert found["-name"] == ["director"]
    assert found["-m"] == ["192"]
    assert found["-kernel"] == [str(guest.kernel)]
    assert found["-initrd"] == [str(guest.initrd)]
    assert found["-accel"][0].split(",")[0] == "tcg"
    # Nothing of the user's own configuration, and no window.
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= found.keys()
    assert found["-display"] == ["none"]
    assert "console=ttyS0" in found["-append"][0].split()
    # A panic must end QEMU at once, and so be noticed.
    assert "panic=-1" in found["-append"][0].split()


def test_the_first_serial_port_is_the_console_and_the_second_the_agents(guest: Guest) -> None:
    found = options(qemu.command(guest, "tcg", Ports(console=5, agent=6)))
    backends = dict(zip(("console", "agent"), found["-chardev"], strict=True))
    assert backends["console"] == "socket,id=console,fd=5"
    assert backends["agent"] == "socket,id=agent,fd=6"
    assert found["-serial"] == ["chardev:console", "chardev:agent"]


def test_cards_are_plugged_in_order_and_management_last(guest: Guest) -> None:
    found = options(qemu.command(guest, "tcg", Ports(5, 6)))
    taps = [dict(pair.split("=") for pair in value.split(",")[1:]) for value in found["-netdev"]]
    assert [tap["ifname"] for tap in taps] == ["internet-0.0", "lan-0.1", guest.management.tap]
    assert all(tap["script"] == tap["downscript"] == "no" for tap in taps)
    cards = [dict(pair.split("=") for pair in value.split(",")[1:]) for value in found["-device"]]
    assert [card["mac"] for card in cards] == [*(card.mac for card in CARDS), guest.management.mac]
    assert [card["netdev"] for card in cards] == [tap["id"] for tap in taps]


def test_a_guest_without_cards_needs_no_taps(guest: Guest) -> None:
    assert not {"-netdev", "-device"} & options(qemu.command(guest, "kvm", Ports(5, 6), cards=False)).keys()


def test_each_accelerator_has_its_processor(guest: Guest) -> None:
    def processor(accelerator: qemu.Accelerator) -> str:
        return options(qemu.command(guest, accelerator, Ports(5, 6)))["-cpu"][0].split(",")[0]

    assert (processor("kvm"), processor("tcg")) == ("host", "qemu64")
    assert qemu.DEADLINE["kvm"] < qemu.DEADLINE["tcg"]


# --- coming up, or not -----------------------------------------------------------------------------


def test_a_guest_that_comes_up(start: Starter, tmp_path: Path) -> None:
    machine = start(
        "console booting\n", "agent lvslab-agent 1\n", "order", "answer : said", "answer  = 0", "stay"
    )
    machine.await_ready(10)
    assert machine.ended is None
    machine.set_up()
    machine.end()
    assert machine.ended == "qemu-system-x86_64 was ended by SIGKILL"
    assert machine.console.ended(10)
    assert (tmp_path / "console-director.log").read_text() == "booting\n"


def test_a_panic_is_the_reason(start: Starter, guest: Guest, tmp_path: Path) -> None:
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    machine = start("console booting\n", f"console [ 1.0] {panic}\r\n", "console Rebooting\r\n", "status 0")
    with pytest.raises(BootError) as caught:
        machine.await_ready(10)
    assert caught.value.message == f"director did not come up (boot): its kernel gave up: [ 1.0] {panic}"
    assert (caught.value.hint or "").splitlines() == [
        f"kernel 6.1.0 ({guest.kernel}), tcg; evidence in {tmp_path}",
        "  last lines of its console:",
        "    booting",
        f"    [ 1.0] {panic}",
        "    Rebooting",
    ]


def test_a_silent_guest(start: Starter) -> None:
    machine = start("stay")
    with pytest.raises(BootError) as caught:
        machine.await_ready(0.1)
    assert caught.value.message == "director did not come up (boot): nothing came from it within 0.1 s"
    assert "its console is empty: is this kernel one with a serial console" in str(caught.value)


def test_a_qemu_that_refuses_says_why(start: Starter) -> None:
    machine = start("stderr qemu-system-x86_64: could not configure /dev/net/tun\n", "status 1")
    with pytest.raises(BootError) as caught:
        machine.await_ready(10)
    assert caught.value.message == (
        "director did not come up (boot): qemu-system-x86_64 ended with status 1"
    )
    assert "QEMU said:\n    qemu-system-x86_64: could not configure /dev/net/tun" in str(caught.value)


def test_a_qemu_that_is_killed(start: Starter) -> None:
    machine = start("console booting\n", f"signal {signal.SIGKILL.value}")
    with pytest.raises(BootError, match=r"\(boot\): qemu-system-x86_64 was ended by SIGKILL"):
        machine.await_ready(10)


def test_a_guest_that_cannot_be_set_up(start: Starter) -> None:
    machine = start(
        "agent lvslab-agent 1\n", "order", 'answer : Cannot find device "eth0"', "answer  = 1", "stay"
    )
    machine.await_ready(10)
    with pytest.raises(BootError) as caught:
        machine.set_up()
    assert "could not be set up" in caught.value.message
    assert 'Cannot find device "eth0"' in str(caught.value)


def test_a_guest_that_ends_while_it_is_set_up(start: Starter) -> None:
    machine = start("agent lvslab-agent 1\n", "order", "console BUG: scheduling while atomic\n", "status 0")
    machine.await_ready(10)
    with pytest.raises(BootError, match=r"did not come up \(set-up\): its kernel gave up: BUG: scheduling"):
        machine.set_up()


def test_no_qemu(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(MachineError, match="qemu-system-x86_64 is not installed"):
            Machine(guest, "tcg", tmp_path)
        gc.collect()


def test_a_machine_that_has_ended_leaves_no_descriptor(start: Starter) -> None:
    before = len(os.listdir("/proc/self/fd"))
    machine = start("agent lvslab-agent 1\n", "stay")
    machine.await_ready(10)
    machine.end()
    assert machine.console.ended(10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_wrapper_stands_before_qemu(guest: Guest, tmp_path: Path) -> None:
    machine = Machine(guest, "tcg", tmp_path, cards=False, wrapper=("echo", "wrapped"))
    with pytest.raises(BootError):
        machine.await_ready(10)
    leave(machine)
    assert (tmp_path / "qemu-director.log").read_text().startswith("wrapped qemu-system-x86_64 -name ")


@pytest.mark.skipif(shutil.which(qemu.QEMU) is None, reason="qemu-system-x86_64 is not installed")
def test_the_real_qemu_takes_the_command_line_and_refuses_what_is_no_kernel(
    guest: Guest, tmp_path: Path
) -> None:
    guest.kernel.write_bytes(b"no kernel\n" * 1000)
    guest.initrd.write_bytes(bytes(512))
    machine = Machine(guest, "tcg", tmp_path, cards=False)
    try:
        with pytest.raises(BootError, match="qemu-system-x86_64 ended with status 1") as caught:
            machine.await_ready(10)
    finally:
        leave(machine)
    # Any complaint about the command line would come before the one about the kernel.
    assert "kernel" in (tmp_path / "qemu-director.log").read_text()
    assert "QEMU said:" in str(caught.value)
