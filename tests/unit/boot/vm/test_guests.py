"""Guests side by side, each with a stand-in for QEMU that does what its script says, and no real taps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.boot import plan
from lvslab.boot.events import GuestUp
from lvslab.boot.plan import Guest
from lvslab.boot.states import Condition, State
from lvslab.boot.vm import guests, snapshot
from lvslab.boot.vm.guests import Guests
from lvslab.boot.vm.qemu import Machine
from lvslab.errors import BootError, CommandFailed

if TYPE_CHECKING:
    from tests.unit.conftest import StandIn

DEADLINE = 10.0
COMES_UP = ("agent lvslab-agent 1\n", "serve")


def states(found: Guests) -> dict[str, str]:
    """The state of each guest."""
    return {name: str(node.condition) for name, node in found.nodes.items()}


@pytest.fixture
def three(guest: Guest) -> tuple[Guest, ...]:
    """Guests no two of which could have one snapshot."""
    return tuple(
        replace(guest, name=f"d{number}", cards=(), memory=192 + number, management=plan._management(number))
        for number in range(3)
    )


@pytest.fixture
def heard() -> queue.Queue[GuestUp]:
    """The events that were told."""
    return queue.Queue()


Maker = Callable[..., Guests]


@pytest.fixture
def make(
    heard: queue.Queue[GuestUp],
    stand_in: StandIn,
    machines: list[Machine],
    program: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Maker]:
    """Makes guests that boot cold. Their ends, and those of all their threads, come with the test's."""
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(guests, "HEARTBEAT", 0.0)
    program("ip", f"#!/bin/sh\ncat >> {tmp_path}/taps\n")
    made: list[Guests] = []

    def maker(*each: Guest) -> Guests:
        planned = plan.Plan("a", "web", tmp_path, (), (), each, {}, b"", "", tmp_path, cold=True)
        made.append(Guests(planned, heard.put))
        return made[-1]

    yield maker
    for machine in machines:
        machine._process.kill()
    for one in made:
        one._pool.shutdown()
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(DEADLINE)
            assert not thread.is_alive(), "the heart of a guest that has ended is still listened to"


def test_without_guests_there_is_nothing_to_wait_for(make: Maker) -> None:
    found = make()
    found.start("tcg")
    found.await_up()
    assert states(found) == {}
    make().await_up()


def test_guests_come_up_and_are_announced(
    make: Maker,
    three: tuple[Guest, ...],
    heard: queue.Queue[GuestUp],
    stand_in: StandIn,
    machines: list[Machine],
) -> None:
    for guest in three:
        stand_in.script(guest.name, *COMES_UP)
    found = make(*three)
    assert states(found) == dict.fromkeys(("d0", "d1", "d2"), "booting")
    assert found.nodes["d1"].machine is None
    found.start("tcg")
    found.await_up()
    assert list(found.nodes) == ["d0", "d1", "d2"]
    assert states(found) == dict.fromkeys(("d0", "d1", "d2"), "up")
    assert {found.nodes[guest.name].machine for guest in three} == set(machines)
    events = [heard.get_nowait() for _ in three]
    assert heard.empty()
    assert sorted(event.node for event in events) == list(found.nodes)
    for event in events:
        assert event.way == "booted cold"
        assert 0 < event.seconds < 60


def test_a_guest_is_up_only_when_it_has_been_set_up(
    make: Maker,
    guest: Guest,
    heard: queue.Queue[GuestUp],
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in.script("director", *COMES_UP)
    found = make(guest)
    seen = []
    set_up = Machine.set_up

    def look(machine: Machine) -> None:
        set_up(machine)
        seen.append((states(found), found.nodes["director"].machine, heard.empty()))

    monkeypatch.setattr(Machine, "set_up", look)
    found.start("tcg")
    found.await_up()
    assert seen == [({"director": "booting"}, None, True)]
    assert states(found) == {"director": "up"}
    assert not heard.empty()


def test_taps_are_there_before_the_first_guest_is_started(
    make: Maker, guest: Guest, program: Callable[[str, str], Path], machines: list[Machine]
) -> None:
    program("ip", "#!/bin/sh\ncat >/dev/null\necho 'no tun' >&2\nexit 1\n")
    found = make(guest)
    with pytest.raises(CommandFailed, match="ip ended with status 1"):
        found.start("tcg")
    assert machines == []


def test_guests_start_in_the_same_order_in_every_lab(
    make: Maker, three: tuple[Guest, ...], stand_in: StandIn, machines: list[Machine]
) -> None:
    """Each may hold the lock of its snapshot while it waits for that of the next one's."""
    for guest in three:
        stand_in.script(guest.name, *COMES_UP)
    orders = []
    for each in (three, three[::-1], (three[1], three[2], three[0])):
        found = make(*each)
        found.start("tcg")
        found.await_up()
        orders.append([machine.guest.name for machine in machines[-3:]])
    assert orders[0] == orders[1] == orders[2]
    assert orders[0] == sorted(orders[0], key=lambda name: snapshot.key(three[int(name[1])], "tcg"))


def test_no_guest_waits_for_another(
    make: Maker, three: tuple[Guest, ...], heard: queue.Queue[GuestUp], stand_in: StandIn
) -> None:
    """The one that is started last is up first, and the first last."""
    order = sorted(three, key=lambda guest: snapshot.key(guest, "tcg"))
    for guest in order:
        stand_in.gate(f"gate {guest.name}")
        stand_in.script(guest.name, f"await gate {guest.name}", *COMES_UP)
    found = make(*three)
    found.start("tcg")
    for guest in reversed(order):
        stand_in.open(f"gate {guest.name}")
        assert heard.get(timeout=DEADLINE).node == guest.name
        assert states(found)[guest.name] == "up"
    found.await_up()


def test_the_first_failure_is_raised_while_others_are_still_on_their_way(
    make: Maker, three: tuple[Guest, ...], stand_in: StandIn
) -> None:
    stand_in.gate("never")
    stand_in.script("d0", "await never")
    stand_in.script("d1", "console Kernel panic - not syncing: VFS\n", "status 0")
    stand_in.script("d2", *COMES_UP)
    found = make(*three)
    found.start("tcg")
    with pytest.raises(BootError, match=r"d1 is not up \(boot\): its kernel gave up: Kernel panic"):
        # In a thread, so that to wait for the others is a failure and not a test without an end.
        ThreadPoolExecutor(1).submit(found.await_up).result(DEADLINE)
    assert states(found)["d0"] == states(found)["d1"] == "booting"


def test_a_guest_that_cannot_be_set_up(
    make: Maker, guest: Guest, heard: queue.Queue[GuestUp], stand_in: StandIn
) -> None:
    stand_in.script(
        "director", "agent lvslab-agent 1\n", "order", "answer : no such device", "answer  = 1", "stay"
    )
    found = make(guest)
    found.start("tcg")
    with pytest.raises(BootError, match="could not be set up: no such device"):
        found.await_up()
    assert found.nodes["director"].machine is None
    assert heard.empty()


def test_what_keeps_a_guest_from_being_started_is_raised(
    make: Maker, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make(guest)

    def refuse(*_: object, **__: object) -> None:
        raise BootError("no room for another machine")

    monkeypatch.setattr(guests.warm, "Starter", refuse)
    found.start("tcg")
    with pytest.raises(BootError, match="no room for another machine"):
        found.await_up()


# --- the heartbeat ----------------------------------------------------------------------------------------


@pytest.fixture
def beats(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[Condition | None]:
    """What is the matter with a guest after each time that its pulse was felt, None where nothing is. It has
    little time for a sign of life.
    """
    felt: queue.Queue[Condition | None] = queue.Queue()
    feel = Machine.heartbeat

    def note(machine: Machine) -> None:
        feel(machine, 0.05)
        felt.put(machine.trouble)

    monkeypatch.setattr(Machine, "heartbeat", note)
    return felt


def await_beat(beats: queue.Queue[Condition | None], wanted: Condition | None) -> None:
    """Return when ``wanted`` is the matter; some beats may say otherwise before, on a loaded machine."""
    for _ in range(200):
        if beats.get(timeout=DEADLINE) == wanted:
            return
    pytest.fail(f"200 beats, and none of them {wanted!r}")


HANGS = Condition(State.HANGS, "it hangs: no sign of life from its agent within 0.05 s")


def test_a_silent_guest_is_marked_and_taken_back_when_it_speaks_again(
    make: Maker, guest: Guest, beats: queue.Queue[Condition | None], stand_in: StandIn
) -> None:
    stand_in.gate("wakes up")
    well = ("order", "answer  = 0")
    stand_in.script("director", "agent lvslab-agent 1\n", *well, *well, "await wakes up", "serve")
    found = make(guest)
    found.start("tcg")
    found.await_up()
    await_beat(beats, HANGS)
    assert states(found) == {"director": HANGS.text}
    # It is not given up: whoever wants its console gets it.
    assert found.nodes["director"].machine is not None
    stand_in.open("wakes up")
    await_beat(beats, None)
    await_beat(beats, None)
    assert states(found) == {"director": "up"}


def test_one_guest_that_hangs_does_not_keep_another_from_being_felt(
    make: Maker, three: tuple[Guest, ...], monkeypatch: pytest.MonkeyPatch, stand_in: StandIn
) -> None:
    stand_in.gate("never")
    stand_in.script("d0", "agent lvslab-agent 1\n", "order", "answer  = 0", "await never")
    stand_in.script("d1", *COMES_UP)
    felt: queue.Queue[str] = queue.Queue()
    feel = Machine.heartbeat

    def note(machine: Machine) -> None:
        feel(machine, 1000.0)  # for ever, as far as this test goes
        felt.put(machine.guest.name)

    monkeypatch.setattr(Machine, "heartbeat", note)
    found = make(*three[:2])
    found.start("tcg")
    found.await_up()
    assert [felt.get(timeout=DEADLINE) for _ in range(5)] == ["d1"] * 5


def test_a_guest_that_ends_is_said_to_have_ended(
    make: Maker,
    guest: Guest,
    beats: queue.Queue[Condition | None],
    stand_in: StandIn,
    machines: list[Machine],
) -> None:
    stand_in.gate("dies")
    stand_in.script("director", "agent lvslab-agent 1\n", "order", "answer  = 0", "await dies", "status 3")
    found = make(guest)
    found.start("tcg")
    found.await_up()
    stand_in.open("dies")
    machines[0]._process.wait(DEADLINE)
    assert states(found) == {"director": "qemu-system-x86_64 ended with status 3"}
    # The thread that felt its pulse ends with it.
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(DEADLINE)
            assert not thread.is_alive()
