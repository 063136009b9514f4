"""Does each scheduler choose the servers that its model does, connection by connection?"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest

from lvslab.check import verdict
from lvslab.check.ipvs import director
from lvslab.check.live_service import LiveService, Place
from lvslab.check.schedulers import NOBODY, TUTORIAL, later
from lvslab.check.seed import random_for
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.held import HeldConnections
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue

VIP = "66.199.240.50"
CACHED = [f"66.199.240.{last}" for last in range(64, 80)]
SOURCES = [f"66.199.240.{last}" for last in range(100, 132)]
SILENT = SOURCES[-1]
"""The client that servers do not reply to where they shall not."""
ONE, TWO, THREE = "real-server-1", "real-server-2", "real-server-3"
SERVERS = {ONE: "10.0.0.100", TWO: "10.0.0.101", THREE: "10.0.0.102"}
BY_DESTINATION = ("lblc", "lblcr", "dh")

each_scheduler = pytest.mark.parametrize(
    "scheduler", [*TUTORIAL, *(pytest.param(name, marks=pytest.mark.needs(name)) for name in later())]
)

NewService = Callable[[str], LiveService]


@pytest.fixture(scope="module")
def kernel(lab: Testbed) -> str:
    """The version of the director's kernel."""
    return director.kernel(lab.cluster, lab.directors[0].name)


@pytest.fixture(scope="module")
def ports() -> Iterator[int]:
    """Ports of services that nobody has had yet, in an earlier check of this lab either: connections of a
    service that is gone are remembered for two minutes."""
    return count(100 * random_for("ports of services").randrange(90, 600))


@pytest.fixture
def service_for(lab: Testbed, kernel: str, ports: Iterator[int]) -> Iterator[NewService]:
    """Services of the test's own, for one scheduler or another."""
    node = lab.directors[0]
    with ExitStack() as opened:

        def new(scheduler: str) -> LiveService:
            port = next(ports)
            mark = port if scheduler in BY_DESTINATION else 0
            rule = f"PREROUTING -p tcp -d {CACHED[0]}/28 --dport {port} -j MARK --set-mark {port}"
            if mark:
                node.execute(f"iptables -t mangle -A {rule}")
                opened.callback(node.execute, f"iptables -t mangle -D {rule}")
            held = opened.enter_context(HeldConnections(lab.clients[0].namespace))
            place = Place(CACHED[0] if mark else VIP, port, mark)
            return opened.enter_context(LiveService(lab.cluster, node, place, SERVERS, held, kernel=kernel))

        yield new


def connect(live: LiveService, number: int) -> None:
    """So many connections, each from another address than the one before, and to another where it can be."""
    for _ in range(number):
        done = len(live.observed)
        to = CACHED[done * 3 % 5] if live.place.mark else ""
        # The port's last digits count the services: the director refuses a client only so often in a second.
        source = SOURCES[(done * 5 + live.place.port % 100) % len(SOURCES)]
        live.connect(source=source, to=to)


# --- the how-to's own services -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


@pytest.mark.parametrize("port", [80, 8080])
def test_finished_requests_take_turns_by_weight(lab: Testbed, port: int) -> None:
    taken = lab.round(count=12, service=f"{VIP}:{port}")
    verdict.sequence_matches(taken.forecast, taken.observed)
    assert taken.observed_counts == {ONE: 6, TWO: 3, THREE: 3}


def test_a_second_round_goes_on_where_the_first_one_ended(lab: Testbed) -> None:
    for number in (1, 2):
        taken = lab.round(count=number, service=f"{VIP}:8080")
        verdict.sequence_matches(taken.forecast, taken.observed)


# --- every scheduler ---------------------------------------------------------------------------------------


@each_scheduler
def test_servers_come_and_go_under_load(service_for: NewService, scheduler: str, kernel: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 2, TWO: 1, THREE: 3})
    connect(live, 9)
    live.finish(0, 3, 4)
    connect(live, 5)
    live.edit(ONE, 4)
    connect(live, 6)
    live.remove(THREE)
    connect(live, 5)
    live.add(THREE, 2)
    live.finish(1, 2)
    connect(live, 5)
    live.edit(TWO, 0)
    connect(live, 6)
    if not is_nq_of_2_4(scheduler, kernel):
        assert TWO not in live.observed[-6:], "a server of weight 0 got a connection"
    live.edit(TWO, 6)
    connect(live, 4)
    live.finish_all()
    connect(live, 4)
    live.check()


@each_scheduler
def test_nobody_is_left(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 1, TWO: 2})
    connect(live, 2)
    live.edit(ONE, 0)
    live.edit(TWO, 0)
    connect(live, 2)
    assert live.observed[-2:] == [NOBODY] * 2
    live.edit(TWO, 1)
    connect(live, 3)
    live.remove(ONE)
    live.remove(TWO)
    connect(live, 1)
    assert live.observed[-1] == NOBODY
    live.check()


@each_scheduler
def test_a_single_server_gets_everything(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {TWO: 5})
    connect(live, 4)
    live.finish(0)
    connect(live, 1)
    assert live.observed == [TWO] * 5
    live.check()


@pytest.mark.needs("thresholds")
@each_scheduler
def test_a_server_at_its_threshold_is_passed_over(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 2, TWO: 1, THREE: 3}, thresholds={ONE: 2, THREE: 3})
    connect(live, 9)
    if scheduler != "lblc":  # it asks no such question about the server of an address
        assert live.observed.count(ONE) <= 2 and live.observed.count(THREE) <= 3
    live.edit(THREE, 3)
    connect(live, 3)
    live.check()


def test_the_scheduler_is_changed_under_load(service_for: NewService, kernel: str) -> None:
    live = service_for("dh")
    live.make("wlc", {ONE: 3, TWO: 1, THREE: 2})
    connect(live, 5)
    newer = [name for name in later() if catalogue.lacking(kernel, name) is None]
    for scheduler in (*TUTORIAL, *newer, "rr", "wrr"):
        live.schedule_by(scheduler)
        connect(live, 3)
    live.check()


def is_nq_of_2_4(scheduler: str, kernel: str) -> bool:
    """The one scheduler that gives connections to a server of weight 0; its model knows."""
    return scheduler == "nq" and catalogue.numbers(kernel) < (2, 6)


# --- what some of them do besides --------------------------------------------------------------------------


@pytest.mark.known_bug("nq-weight-0")
def test_an_idle_server_of_weight_0_and_nq(service_for: NewService) -> None:
    live = service_for("nq")
    live.make("nq", {TWO: 0, ONE: 1})
    connect(live, 3)
    live.check()
    assert TWO not in live.observed, f"nq gave {TWO}, of weight 0, a connection"


@pytest.mark.known_bug("wrr-weights-fall")
def test_wrr_when_the_greatest_weight_falls(service_for: NewService) -> None:
    live = service_for("wrr")
    live.make("wrr", {ONE: 1, TWO: 5})
    connect(live, 1)
    live.edit(TWO, 1)
    connect(live, 6)
    live.check()
    assert NOBODY not in live.observed, "wrr gave a connection to nobody"


def test_what_an_active_connection_costs(service_for: NewService) -> None:
    # Active at weight 257 against inactive at weight 1: 256/257 is less than 1, 257/257 is not.
    live = service_for("wlc")
    live.make("wlc", {ONE: 257, TWO: 1})
    connect(live, 1)
    live.finish(0)
    live.edit(TWO, 0)
    connect(live, 1)
    live.edit(TWO, 1)
    connect(live, 1)
    live.check()


@pytest.mark.known_bug("weight-overflow")
def test_wlc_with_great_weights_and_many_connections(service_for: NewService) -> None:
    # 257 active connections, of 256 each, times 65535 is more than 32 bits hold. What these do hold of it is
    # less than 256 times 65535, which stands for one active connection.
    live = service_for("wlc")
    live.make("wlc", {TWO: 65535, ONE: 0})
    connect(live, 1)
    live.edit(TWO, 0)
    live.edit(ONE, 65535)
    connect(live, 257)
    live.edit(TWO, 65535)
    connect(live, 1)
    assert live.observed[:258] == [TWO] + [ONE] * 257
    assert live.observed[258] == TWO, (
        f"wlc gave {live.observed[258]} its 258th connection, and {TWO} has one"
    )
    live.check()


@pytest.mark.known_bug("half-open-inactive")
@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_connections_that_are_half_open_count(service_for: NewService, lab: Testbed, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 1})
    connect(live, 2)
    live.add(TWO, 1)
    with half_open(lab, live.place, 6) as given:
        assert given == [TWO, TWO, TWO, ONE, TWO, ONE], f"{given.count(TWO)} of 6 went to {TWO}"


@contextmanager
def half_open(lab: Testbed, place: Place, number: int) -> Iterator[list[str]]:
    """Connections to ``place`` that no server replies to, and the servers that the director chose."""
    (source, client), names = (SILENT, lab.clients[0]), {address: name for name, address in SERVERS.items()}
    with ExitStack() as opened:
        for name in SERVERS:
            lab.node(name).execute(f"ip route add blackhole {source}")
            opened.callback(lab.node(name).execute, f"ip route del blackhole {source}")
        wanted = []
        for _ in range(number):
            stream = opened.enter_context(client.namespace.call(socket.socket))
            stream.setblocking(False)
            stream.bind((source, 0))
            assert stream.connect_ex((place.address, place.port)) == errno.EINPROGRESS
            wanted.append(f"{source}:{stream.getsockname()[1]}")
        deadline = time.monotonic() + 5
        while not set(wanted) <= (known := lab.reading().entries).keys():
            assert time.monotonic() < deadline, "the director does not know of all connections"
        yield [names[known[client].rpartition(":")[0]] for client in wanted]


@pytest.mark.known_bug("hash-low-bits")
@pytest.mark.parametrize("scheduler", ["sh", "dh"])
def test_hashes_spread_addresses_that_are_all_even(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 1, TWO: 1})
    for number in range(8):
        if live.place.mark:
            live.connect(to=CACHED[2 * number])
        else:
            live.connect(source=SOURCES[2 * number])
    live.check()
    assert set(live.observed) == {ONE, TWO}, f"all 8 went to {live.observed[0]}"


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr"])
def test_an_address_stays_with_its_server_until_that_is_overloaded(
    service_for: NewService, scheduler: str
) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 2, TWO: 5, THREE: 5})
    live.edit(TWO, 0)
    live.edit(THREE, 0)
    for address in (*CACHED[:2], *CACHED[:2]):
        live.connect(to=address)
    assert live.observed == [ONE] * 4
    live.edit(TWO, 5)
    live.connect(to=CACHED[2])
    live.connect(8, to=CACHED[0])
    assert live.observed[4:6] == [TWO, TWO], "more active connections than weight, and TWO is idle"
    live.edit(THREE, 5)
    live.connect(8, to=CACHED[0])
    live.connect(3, to=CACHED[1])
    live.finish_all()
    for address in CACHED[:4]:
        live.connect(to=address)
    live.check()


@pytest.mark.parametrize("scheduler", ["sh", pytest.param("mh", marks=pytest.mark.needs("mh"))])
def test_a_client_stays_with_its_server(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 3, TWO: 1, THREE: 2})
    for source in (*SOURCES, *SOURCES[::-1]):
        live.connect(source=source)
        live.finish_all()
    assert live.observed[:32] == live.observed[:31:-1]
    assert set(live.observed) == set(SERVERS)
    live.check()


@pytest.mark.needs("sh_port", "ipvsadm_sched_flags")
@pytest.mark.parametrize("scheduler", ["sh", pytest.param("mh", marks=pytest.mark.needs("mh"))])
def test_flags_of_hashing(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 3, TWO: 1, THREE: 2}, flags=[f"{scheduler}-port", f"{scheduler}-fallback"])
    live.connect(10, source=SOURCES[0])
    live.edit(ONE, 0)
    live.connect(10, source=SOURCES[0])
    assert NOBODY not in live.observed
    assert ONE not in live.observed[10:]
    live.check()


@pytest.mark.needs("mh")
def test_mh_moves_few_clients(service_for: NewService) -> None:
    live = service_for("mh")
    live.make("mh", {ONE: 1, TWO: 1, THREE: 1})
    for source in SOURCES:
        live.connect(source=source)
        live.finish_all()
    live.remove(THREE)
    for source in SOURCES:
        live.connect(source=source)
    before, after = live.observed[:32], live.observed[32:]
    stayed = [old == new for old, new in zip(before, after, strict=True) if old != THREE]
    assert sum(stayed) > 0.8 * len(stayed)
    live.check()


# --- twos, which draws -------------------------------------------------------------------------------------

DRAWN = 100
HELD = {THREE: 3, ONE: 2, TWO: 1}
WEIGHTS = {THREE: 20, ONE: 10, TWO: 10}
"""TWO has the fewest connections for its weight, then THREE, then ONE. That stays so while each of DRAWN
finished ones counts as 1 and each of HELD as 256, whoever gets them: so all draws are alike. ONE would be
chosen far oftener if one server were drawn and not two, or if they were compared without their weights."""


@pytest.fixture
def has_twos(lab: Testbed) -> None:
    """Skips where the kernel is new enough for twos and was built without it."""
    node = lab.directors[0]
    if node.execute("modprobe ip_vs_twos", check=False).status != 0:
        pytest.skip(f"kernel {lab.cluster.versions['kernel']} was built without the module ip_vs_twos")


def draw(live: LiveService, scheduler: str, *, modelled: Mapping[str, int] = WEIGHTS) -> None:
    """DRAWN finished connections in turn, while HELD connections stay open; ``modelled`` are the weights
    that the model is told."""
    live.make(scheduler, dict.fromkeys(WEIGHTS, 0), modelled="twos")
    for name, number in HELD.items():
        live.edit(name, 1)
        live.connect(number)
        live.edit(name, 0)
    for name, weight in WEIGHTS.items():
        live.edit(name, weight, modelled=modelled[name])
    for _ in range(DRAWN):
        live.connect()
        live.finish(-1)


@pytest.mark.needs("twos")
@pytest.mark.usefixtures("has_twos")
def test_twos_takes_the_less_loaded_of_two_that_it_draws(service_for: NewService) -> None:
    live = service_for("twos")
    draw(live, "twos")
    live.check()


@pytest.mark.needs("twos")
@pytest.mark.usefixtures("has_twos")
def test_twos_passes_over(service_for: NewService) -> None:
    live = service_for("twos")
    live.make("twos", {ONE: 2, TWO: 1, THREE: 30}, thresholds={THREE: 2})
    connect(live, 12)
    assert live.observed.count(THREE) <= 2
    live.edit(TWO, 0)
    connect(live, 8)
    assert TWO not in live.observed[-8:]
    live.edit(ONE, 0)
    live.edit(THREE, 0)
    connect(live, 1)
    assert live.observed[-1] == NOBODY
    live.check()


@pytest.mark.needs("twos")
@pytest.mark.parametrize("scheduler", ["wrr", "wlc"])
def test_servers_that_were_not_drawn_by_twos_are_noticed(service_for: NewService, scheduler: str) -> None:
    live = service_for("twos")
    draw(live, scheduler)
    with pytest.raises(CheckFailed, match=f"of {DRAWN} connections: .* the shares should be"):
        live.check()


@pytest.mark.needs("twos")
@pytest.mark.usefixtures("has_twos")
def test_a_wrong_weight_of_twos_is_noticed(service_for: NewService) -> None:
    live = service_for("twos")
    draw(live, "twos", modelled={**WEIGHTS, ONE: 40})
    with pytest.raises(CheckFailed, match=r"connections: .* the shares should be"):
        live.check()


# --- what the checks must notice ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "believed"),
    [
        ("rr", "wrr"),
        ("wrr", "rr"),
        ("wlc", "lc"),
        ("lc", "wlc"),
        ("sed", "nq"),
        ("nq", "sed"),
        ("lblc", "wlc"),
        ("lblcr", "dh"),
        ("dh", "sh"),
        ("sh", "dh"),
    ],
)
def test_another_scheduler_is_noticed(service_for: NewService, scheduler: str, believed: str) -> None:
    live = service_for("dh")
    live.make(scheduler, {ONE: 3, TWO: 1, THREE: 5}, modelled=believed)
    connect(live, 10)
    with pytest.raises(CheckFailed, match="not answer in the order that the scheduler gives"):
        live.check()


@pytest.mark.parametrize("scheduler", ["wrr", "wlc", "sed"])
def test_a_wrong_weight_is_noticed(service_for: NewService, scheduler: str) -> None:
    live = service_for(scheduler)
    live.make(scheduler, {ONE: 1, TWO: 1, THREE: 1})
    live.edit(ONE, 3, modelled=1)
    connect(live, 6)
    with pytest.raises(CheckFailed, match=r"request \d is the first"):
        live.check()


def test_a_server_that_was_not_drained_is_noticed(service_for: NewService) -> None:
    live = service_for("lc")
    live.make("lc", {ONE: 1, TWO: 1})
    live.edit(TWO, 1, modelled=0)
    connect(live, 4)
    with pytest.raises(CheckFailed, match="real-server-2 should not have answered"):
        live.check()


@pytest.mark.needs("thresholds")
def test_a_missing_threshold_is_noticed(service_for: NewService, lab: Testbed) -> None:
    live = service_for("rr")
    live.make("rr", {ONE: 1, TWO: 1}, thresholds={ONE: 1})
    lab.directors[0].execute(f"ipvsadm -e {live.place.option} -r {SERVERS[ONE]}:80 -m")
    connect(live, 4)
    with pytest.raises(CheckFailed, match="request 4 is the first"):
        live.check()


def test_a_scheduler_that_was_not_changed_is_noticed(service_for: NewService) -> None:
    live = service_for("wrr")
    live.make("wrr", {ONE: 1, TWO: 1, THREE: 4})
    connect(live, 2)
    live.schedule_by("rr", modelled="sed")
    connect(live, 6)
    with pytest.raises(CheckFailed, match=r"request \d is the first"):
        live.check()


def test_a_server_too_many_is_noticed(service_for: NewService, lab: Testbed) -> None:
    live = service_for("rr")
    live.make("rr", {ONE: 1, TWO: 1})
    lab.directors[0].execute(f"ipvsadm -a {live.place.option} -r {SERVERS[THREE]}:80 -m")
    connect(live, 4)
    with pytest.raises(CheckFailed, match="real-server-3 should not have answered"):
        live.check()


def test_servers_in_another_order_are_noticed(service_for: NewService, lab: Testbed) -> None:
    live = service_for("rr")
    live.make("rr", {ONE: 1, TWO: 1, THREE: 1})
    option = f"{live.place.option} -r {SERVERS[ONE]}:80"
    lab.directors[0].execute(f"ipvsadm -d {option} && ipvsadm -a {option} -m")
    connect(live, 6)
    with pytest.raises(CheckFailed, match="were the servers added in another order"):
        live.check()


def test_a_foreign_connection_is_noticed(service_for: NewService, lab: Testbed) -> None:
    live = service_for("lc")
    live.make("lc", {ONE: 1})
    connect(live, 2)
    with HeldConnections(lab.clients[0].namespace) as foreign:
        foreign.open(VIP, live.place.port)
        with pytest.raises(CheckFailed, match="real-server-1: 2 active and 0 inactive made, 3 active"):
            live.check()


def test_a_round_notices_another_scheduler(fresh_lab: Testbed) -> None:
    fresh_lab.directors[0].execute(f"ipvsadm -E -t {VIP}:8080 -s rr")
    taken = fresh_lab.round(count=8, service=f"{VIP}:8080")
    with pytest.raises(CheckFailed, match="check the weights"):
        verdict.sequence_matches(taken.forecast, taken.observed)
