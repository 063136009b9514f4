"""Command lines as text; endings with a stand-in for QEMU that speaks on the ports it is handed."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.boot.node import Observed
from lvslab.boot.plan import Guest
from lvslab.boot.states import Condition, State, hanging
from lvslab.boot.vm import qemu
from lvslab.boot.vm.agent import Done
from lvslab.boot.vm.node import VirtualMachine
from lvslab.boot.vm.qemu import Machine, Memory, Ports
from lvslab.boot.vm.qmp import QmpError
from lvslab.errors import BootError, GuestKilled, MachineError

if TYPE_CHECKING:
    from tests.unit.conftest import StandIn

PORTS = Ports(console=5, agent=6, monitor=7)

Starter = Callable[..., Machine]


@pytest.fixture
def start(guest: Guest, tmp_path: Path, stand_in: StandIn, machines: list[Machine]) -> Starter:
    """Starts a machine whose QEMU does what it is told, line for line."""

    def started(*script: str, memory: Memory | None = None) -> Machine:
        stand_in.script(guest.name, *script)
        stand_in.script(guest.name, *script, resumed=True)
        return Machine(guest, "tcg", tmp_path, memory=memory)

    return started


# --- the command line ------------------------------------------------------------------------------


def options(line: list[str]) -> dict[str, list[str]]:
    """The values of each option of a command line; "" for one that has none."""
    found: dict[str, list[str]] = {}
    for option, value in itertools.pairwise([*line[1:], "-"]):
        if option.startswith("-"):
            found.setdefault(option, []).append("" if value.startswith("-") else value)
    return found


def test_a_guest_as_a_command_line(guest: Guest) -> None:
    line = qemu.command(guest, "tcg", PORTS)
    found = options(line)
    assert line[0] == "qemu-system-x86_64"
    assert found["-name"] == ["director"]
    assert found["-m"] == ["192"]
    assert found["-kernel"] == [str(guest.boot.kernel)]
    assert found["-initrd"] == [str(guest.boot.initrd)]
    assert found["-accel"][0].split(",")[0] == "tcg"
    # Nothing of the user's own configuration, and no window.
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= found.keys()
    assert found["-display"] == ["none"]
    assert "console=ttyS0" in found["-append"][0].split()
    # A panic must end QEMU at once, and so be noticed.
    assert "panic=-1" in found["-append"][0].split()


def test_the_first_serial_port_is_the_console_and_the_second_the_agents(guest: Guest) -> None:
    found = options(qemu.command(guest, "tcg", PORTS))
    assert found["-chardev"] == [
        "socket,id=console,fd=5",
        "socket,id=agent,fd=6",
        "socket,id=monitor,fd=7",
    ]
    assert found["-serial"] == ["chardev:console", "chardev:agent"]
    assert found["-mon"] == ["chardev=monitor,mode=control"]


def test_cards_are_plugged_in_order_and_management_last(guest: Guest) -> None:
    found = options(qemu.command(guest, "tcg", PORTS))
    taps = [dict(pair.split("=") for pair in value.split(",")[1:]) for value in found["-netdev"]]
    assert [tap["ifname"] for tap in taps] == ["internet-0.0", "lan-0.1", guest.management.tap]
    assert all(tap["script"] == tap["downscript"] == "no" for tap in taps)
    cards = [dict(pair.split("=") for pair in value.split(",")[1:]) for value in found["-device"]]
    assert [card["mac"] for card in cards] == [*(card.mac for card in guest.cards), guest.management.mac]
    assert [card["netdev"] for card in cards] == [tap["id"] for tap in taps]


def test_a_guest_without_cards_needs_no_taps(guest: Guest) -> None:
    assert not {"-netdev", "-device"} & options(qemu.command(guest, "kvm", PORTS, cards=False)).keys()


def test_each_accelerator_has_its_processor(guest: Guest) -> None:
    def processor(accelerator: qemu.Accelerator) -> str:
        return options(qemu.command(guest, accelerator, PORTS))["-cpu"][0].split(",")[0]

    assert (processor("kvm"), processor("tcg")) == ("host", "qemu64")
    assert qemu.DEADLINE["kvm"] < qemu.DEADLINE["tcg"]


def test_only_an_emulated_kernel_keeps_its_addresses(guest: Guest) -> None:
    def words(accelerator: qemu.Accelerator) -> list[str]:
        return options(qemu.command(guest, accelerator, PORTS))["-append"][0].split()

    assert set(words("tcg")) - set(words("kvm")) == {"norandmaps", "no_timer_check"}


def old(guest: Guest, release: str = "2.4.37.11") -> Guest:
    """The same with an old kernel and a RAM disk of 2 MiB."""
    guest.boot.initrd.write_bytes(bytes(2 << 20))
    boot = replace(guest.boot, release=release, image_kind="ext2", nic="e1000", memory=32)
    return replace(guest, boot=boot, memory=32)


def test_an_old_kernel_has_its_root_in_a_ram_disk_and_cards_that_it_knows(guest: Guest) -> None:
    found = options(qemu.command(old(guest), "tcg", PORTS))
    words = found["-append"][0].split()
    assert {"root=/dev/ram0", "rw", "init=/init", "ramdisk_size=2048"} <= set(words)
    assert all(device.startswith("e1000,") for device in found["-device"])
    assert found["-m"] == ["32"]
    # COMMAND_LINE_SIZE in include/asm-i386/setup.h of 2.4.37 is 256, with the zero at the end.
    assert len(found["-append"][0]) < 256


@pytest.mark.parametrize(
    ("release", "panic", "addresses_kept"),
    [
        ("2.4.37.11", "panic=1", False),
        ("2.6.39.4", "panic=1", False),
        ("3.2.0", "panic=-1", True),
        ("6.1.0-56-cloud-amd64", "panic=-1", True),
    ],
)
def test_a_kernel_is_told_what_it_understands(
    guest: Guest, release: str, panic: str, addresses_kept: bool
) -> None:
    words = qemu.parameters(replace(guest, boot=replace(guest.boot, release=release)), "tcg").split()
    assert panic in words
    assert ("norandmaps" in words) == addresses_kept
    assert ("rootfstype=ramfs" in words) == (release >= "6")
    assert not any(word.startswith("root=") for word in words)


def test_a_snapshots_memory_is_mapped_privately_and_waits_for_its_state(guest: Guest) -> None:
    file = Path("/a,b/memory")
    found = options(qemu.command(guest, "tcg", PORTS, memory=Memory(file, shared=False)))
    assert found["-object"] == ["memory-backend-file,id=memory,size=192M,mem-path=/a,,b/memory,share=off"]
    assert found["-machine"] == ["pc,memory-backend=memory"]
    assert found["-incoming"] == ["defer"]


def test_memory_of_which_a_snapshot_is_made_is_written_to(guest: Guest) -> None:
    found = options(qemu.command(guest, "tcg", PORTS, memory=Memory(Path("/memory"), shared=True)))
    assert found["-object"] == ["memory-backend-file,id=memory,size=192M,mem-path=/memory,share=on"]
    assert "-incoming" not in found
    assert not {"-object", "-incoming"} & options(qemu.command(guest, "tcg", PORTS)).keys()


# --- coming up, or not -----------------------------------------------------------------------------


def test_a_guest_that_comes_up(start: Starter, tmp_path: Path) -> None:
    machine = start(
        "console booting\n", "agent lvslab-agent 1\n", "order", "answer : said", "answer  = 0", "stay"
    )
    machine.await_ready(10)
    assert machine.ended is None
    assert machine.trouble is None
    machine.set_up()
    machine.end()
    assert machine.ended == Condition(State.KILLED, "qemu-system-x86_64 was ended by SIGKILL")
    assert machine.console.ended(10)
    assert (tmp_path / "console-director.log").read_text() == "booting\n"


def test_a_panic_is_the_reason(start: Starter, guest: Guest, tmp_path: Path) -> None:
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    machine = start("console booting\n", f"console [ 1.0] {panic}\r\n", "console Rebooting\r\n", "status 0")
    with pytest.raises(BootError) as caught:
        machine.await_ready(10)
    assert caught.value.message == f"director is not up (boot): its kernel gave up: [ 1.0] {panic}"
    assert (caught.value.hint or "").splitlines() == [
        f"kernel 6.1.0 ({guest.boot.kernel}), tcg; evidence in {tmp_path}",
        "  last lines of its console:",
        "    booting",
        f"    [ 1.0] {panic}",
        "    Rebooting",
    ]


def test_a_silent_guest(start: Starter) -> None:
    machine = start("stay")
    with pytest.raises(BootError) as caught:
        machine.await_ready(0.1)
    assert caught.value.message == "director is not up (boot): nothing came from it within 0.1 s"
    assert "its console is empty: it has not come so far, or its kernel has no serial console" in str(
        caught.value
    )


def test_a_qemu_that_refuses_says_why(start: Starter) -> None:
    machine = start("stderr qemu-system-x86_64: could not configure /dev/net/tun\n", "status 1")
    with pytest.raises(BootError) as caught:
        machine.await_ready(10)
    assert not isinstance(caught.value, GuestKilled)
    assert caught.value.message == ("director is not up (boot): qemu-system-x86_64 ended with status 1")
    assert "QEMU said:\n    qemu-system-x86_64: could not configure /dev/net/tun" in str(caught.value)


def test_a_qemu_that_is_killed(start: Starter) -> None:
    machine = start("console booting\n", f"signal {signal.SIGKILL.value}")
    with pytest.raises(GuestKilled, match=r"\(boot\): qemu-system-x86_64 was ended by SIGKILL"):
        machine.await_ready(10)


def test_a_guest_whose_power_is_cut_says_so_to_whoever_asks(start: Starter) -> None:
    machine = start("agent lvslab-agent 1\n", "order", "answer  = 0", "stay")
    machine.await_ready(10)
    machine.power_off()
    assert machine.trouble == Condition(State.KILLED, "qemu-system-x86_64 was ended by SIGKILL")
    machine.heartbeat(0.1)
    with pytest.raises(GuestKilled, match="was ended by SIGKILL"):
        machine.observe("true", 0.1)


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
    with pytest.raises(BootError, match=r"is not up \(set-up\): its kernel gave up: BUG: scheduling"):
        machine.set_up()


# --- looking at it while it runs ---------------------------------------------------------------------


def test_what_a_guest_is_asked_is_answered_with_status_and_lines(start: Starter) -> None:
    machine = start("order", "answer : first", "answer : second", "answer  = 3", "stay")
    assert machine.observe("ipvsadm -Ln") == Done(3, ("first", "second"))


def test_a_guest_that_does_not_answer_what_it_is_asked(start: Starter, tmp_path: Path) -> None:
    machine = start("console nf_conntrack: table full\n", "order", "stay")
    with machine.console.attach() as viewer:
        viewer.settimeout(10)
        assert viewer.recv(100) == b"nf_conntrack: table full\n"
    with pytest.raises(BootError) as caught:
        machine.observe("ipvsadm -Ln", 0.01)
    assert caught.value.message == "director is not up (reading): nothing came from it within 0.01 s"
    hint = (caught.value.hint or "").splitlines()
    assert hint[0].endswith(f"tcg; evidence in {tmp_path}")
    assert hint[1:] == ["  last lines of its console:", "    nf_conntrack: table full"]


def test_a_guest_that_ends_while_it_is_asked(start: Starter) -> None:
    machine = start("order", "console BUG: kernel NULL pointer dereference\n", "status 0")
    with pytest.raises(BootError, match=r"\(reading\): its kernel gave up: BUG: kernel NULL pointer"):
        machine.observe("ipvsadm -Ln", 10)
    assert machine.trouble == Condition(State.EXITED, "qemu-system-x86_64 ended with status 0")


def test_a_guest_that_gives_no_sign_of_life_hangs_until_it_gives_one(start: Starter) -> None:
    machine = start("order", "answer  = 0", "order", "serve")
    machine.heartbeat(10)
    assert machine.trouble is None
    machine.heartbeat(0.01)
    assert machine.trouble == hanging(0.01)
    assert machine.ended is None
    machine.heartbeat(10)
    assert machine.trouble is None


def test_a_guest_that_hangs_is_not_glanced_at(start: Starter) -> None:
    machine = start("order", "answer : seen", "answer  = 0", "order", "order", "answer  = 0", "stay")
    node = VirtualMachine(machine.guest, copyable=False)
    node.came_up(machine, "booted", 0.1, 0.2)
    assert node.observe("first", 10) == Observed(0, "seen\n")
    machine.heartbeat(0.01)
    with pytest.raises(BootError, match=r"\(running\): it hangs: no sign of life from its agent"):
        node.observe("second", 10)
    # That order has never been given: the next one that the guest reads is this.
    assert machine.observe("third", 10).status == 0


def test_that_a_guest_has_ended_says_more_than_that_it_is_silent(start: Starter) -> None:
    machine = start("order", "signal 9")
    machine.heartbeat(10)
    machine._process.wait(10)
    assert machine.trouble == Condition(State.KILLED, "qemu-system-x86_64 was ended by SIGKILL")


def test_what_is_the_matter_with_a_guest_that_hangs(start: Starter, guest: Guest, tmp_path: Path) -> None:
    machine = start("console one\n\n", "console two\r\n", "agent lvslab-agent 1\n", "status 0")
    machine.await_ready(10)
    assert machine.console.ended(10)
    told = machine.failure("running", "it hangs")
    assert told.message == "director is not up (running): it hangs"
    assert told.exit_code == 4
    assert (told.hint or "").splitlines() == [
        f"kernel 6.1.0 ({guest.boot.kernel}), tcg; evidence in {tmp_path}",
        "  last lines of its console:",
        "    one",
        "    two",
    ]


def test_an_empty_console_is_strange_only_after_a_boot(start: Starter) -> None:
    machine = start("status 0")
    assert machine.console.ended(10)
    assert str(machine.failure("boot", "it hangs")).endswith(
        "its console is empty: it has not come so far, or its kernel has no serial console (8250)"
    )
    assert str(machine.failure("running", "it hangs")).endswith("its console is empty")


def test_a_panic_for_want_of_memory(start: Starter, guest: Guest, tmp_path: Path, stand_in: StandIn) -> None:
    panic = "Kernel panic - not syncing: System is deadlocked on memory"
    stand_in.script("director", f"console {panic}\n", "status 0")
    machine = Machine(replace(guest, memory=64), "tcg", tmp_path)
    assert machine.console.ended(10)
    assert "it has 64 MiB of memory" in str(machine.failure("boot", "it ended"))
    enough = start(f"console {panic}\n", "status 0")
    assert enough.console.ended(10)
    assert "MiB" not in str(enough.failure("boot", "it ended"))


# --- snapshots -----------------------------------------------------------------------------------------


def test_a_guest_is_stopped_while_its_state_is_written_and_runs_on(
    start: Starter, tmp_path: Path, stand_in: StandIn
) -> None:
    machine = start("monitor", "serve", memory=Memory(tmp_path / "memory", shared=True))
    machine.save(tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == b"state of director"
    machine.go_on()
    asked = ["qmp_capabilities", "stop", "migrate-set-capabilities", "migrate", "cont"]
    assert stand_in.asked("director") == asked
    # The socket that the state came by has gone.
    assert not list(tmp_path.glob("*.socket"))


def test_a_guest_is_resumed_with_its_state(start: Starter, tmp_path: Path, stand_in: StandIn) -> None:
    machine = start("monitor", "serve", memory=Memory(tmp_path / "memory", shared=False))
    machine.resume(tmp_path / "state")
    machine.await_answer(10)
    asked = ["qmp_capabilities", "migrate-set-capabilities", "migrate-incoming", "cont"]
    assert stand_in.asked("director") == asked


@pytest.mark.parametrize(
    ("goes_wrong", "words"),
    [
        ("refuses=migrate-incoming", "migrate-incoming: not today"),
        ("fails=migrate-incoming", "migrate-incoming failed"),
        ("refuses=cont", "cont: not today"),
    ],
)
def test_a_state_that_qemu_does_not_take(
    goes_wrong: str, words: str, start: Starter, tmp_path: Path
) -> None:
    machine = start(f"monitor {goes_wrong}", "serve", memory=Memory(tmp_path / "memory", shared=False))
    with pytest.raises(QmpError, match=words):
        machine.resume(tmp_path / "state")


def test_a_state_that_qemu_does_not_write(start: Starter, tmp_path: Path) -> None:
    machine = start("monitor refuses=migrate", "serve")
    with pytest.raises(QmpError, match="migrate: not today"):
        machine.save(tmp_path / "state")
    assert not list(tmp_path.glob("*.socket"))


def test_a_guest_that_does_not_run_on_after_it_was_saved(start: Starter) -> None:
    machine = start("monitor refuses=cont", "stderr out of memory\n", "serve")
    with pytest.raises(BootError, match=r"director does not run on .*: cont: not today"):
        machine.go_on()


# --- what is left --------------------------------------------------------------------------------------


def test_no_qemu(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(MachineError, match="qemu-system-x86_64 is not installed"):
            Machine(guest, "tcg", tmp_path)
        gc.collect()


def test_a_machine_that_has_ended_leaves_no_descriptor(start: Starter) -> None:
    before = len(os.listdir("/proc/self/fd"))
    machine = start("monitor", "agent lvslab-agent 1\n", "stay")
    machine.await_ready(10)
    machine.go_on()
    machine.end()
    assert machine.console.ended(10)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_wrapper_stands_before_qemu(guest: Guest, tmp_path: Path, machines: list[Machine]) -> None:
    machine = Machine(guest, "tcg", tmp_path, cards=False, wrapper=("echo", "wrapped"))
    with pytest.raises(BootError):
        machine.await_ready(10)
    assert (tmp_path / "qemu-director.log").read_text().startswith("wrapped qemu-system-x86_64 -name ")


@pytest.mark.skipif(shutil.which(qemu.QEMU) is None, reason="qemu-system-x86_64 is not installed")
def test_the_real_qemu_takes_the_command_line_and_refuses_what_is_no_kernel(
    guest: Guest, tmp_path: Path, machines: list[Machine]
) -> None:
    guest.boot.kernel.write_bytes(b"no kernel\n" * 1000)
    guest.boot.initrd.write_bytes(bytes(512))
    machine = Machine(guest, "tcg", tmp_path, cards=False)
    with pytest.raises(BootError, match="qemu-system-x86_64 ended with status 1") as caught:
        machine.await_ready(10)
    # Any complaint about the command line would come before the one about the kernel.
    assert "kernel" in (tmp_path / "qemu-director.log").read_text()
    assert "QEMU said:" in str(caught.value)
