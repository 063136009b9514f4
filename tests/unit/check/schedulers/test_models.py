"""Each scheduler's model against sequences worked out by hand from the kernel's source."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest

from lvslab.check.schedulers import NOBODY, Model, Moment, Server, SimulatedService, model_for
from lvslab.check.schedulers.hashing import folded, high_bits, low_bits
from lvslab.check.schedulers.least_connection import active_cost
from lvslab.check.schedulers.locality import lblcr
from lvslab.check.schedulers.maglev import hash_1u32
from lvslab.errors import CheckFailed, LvsLabError

OLD = ("2.4.37.11", "2.6.11.12", "2.6.18.8", "2.6.32.71", "2.6.39.4")
NEW = ("4.19.79", "5.10.262", "6.1.176", "6.12.118")


def service(scheduler: str, kernel: str, **weights: int) -> SimulatedService:
    """With servers that were added in this order, so that the last one is the head of the list."""
    simulated = SimulatedService(model_for(scheduler, kernel))
    for number, (name, weight) in enumerate(weights.items()):
        simulated = simulated.add(Server(name, weight, address=f"10.0.0.{100 + number}", port=80))
    return simulated


def run(simulated: SimulatedService, count: int, **where: str) -> tuple[str, SimulatedService]:
    """The names, of one letter each, that ``count`` connections get which stay; "-" for nobody."""
    names = []
    for _ in range(count):
        name, simulated = simulated.connect(**where)
        names.append("-" if name == NOBODY else name)
    return "".join(names), simulated


# --- rr ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", OLD + NEW)
def test_rr_goes_round_from_the_last_one_added(kernel: str) -> None:
    assert run(service("rr", kernel, a=1, b=5, c=2), 7)[0] == "cbacbac"


@pytest.mark.parametrize(
    ("kernel", "after_edit", "after_removal"),
    [
        ("2.4.37.11", "cba", "cac"),
        ("2.6.39", "cba", "cac"),
        ("4.19.79", "acb", "aca"),
        ("6.12.118", "acb", "aca"),
    ],
)
def test_rr_after_a_change(kernel: str, after_edit: str, after_removal: str) -> None:
    _, simulated = run(service("rr", kernel, a=1, b=1, c=1), 2)  # c and b had one
    assert run(simulated.edit("c", 2), 3)[0] == after_edit
    assert run(simulated.remove("b"), 3)[0] == after_removal


@pytest.mark.parametrize("kernel", ["2.6.39", "6.1"])
def test_rr_begins_with_a_new_server_only_on_old_kernels(kernel: str) -> None:
    _, simulated = run(service("rr", kernel, a=1, b=1), 1)
    assert run(simulated.add(Server("c", 1)), 3)[0] == ("cba" if kernel == "2.6.39" else "acb")


def test_rr_keeps_its_place_when_nobody_is_there() -> None:
    _, simulated = run(service("rr", "6.1", a=1, b=1, c=1), 1)
    drained = simulated.edit("a", 0).edit("b", 0).edit("c", 0)
    refused, drained = run(drained, 2)
    assert refused == "--"
    assert run(drained.edit("a", 1).edit("b", 1).edit("c", 1), 2)[0] == "ba"


# --- wrr ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", OLD)
def test_wrr_begins_with_the_greatest_weight_on_old_kernels(kernel: str) -> None:
    # Rounds for 3, 2 and 1 of the list c, b, a.
    assert run(service("wrr", kernel, a=3, b=1, c=2), 12)[0] == "acacbaacacba"


@pytest.mark.parametrize("kernel", NEW)
def test_wrr_begins_where_the_order_of_adding_leaves_it(kernel: str) -> None:
    # A server of weight 3 alone has a single round, for 1 or more, and that stays the first one.
    assert run(service("wrr", kernel, a=3, b=1, c=2), 12)[0] == "cba" + "acacba" + "aca"
    # The same for a first server of weight 1.
    assert run(service("wrr", kernel, a=1, b=3), 9)[0] == "babbbabbb"
    # With a divisor, 2, the rounds are for 5, 3 and 1.
    assert run(service("wrr", kernel, a=2, b=6), 9)[0] == "babbbabbb"


@pytest.mark.parametrize(
    ("kernel", "names"),
    [("2.4.37.11", "baba"), ("2.6.11.12", "---b"), ("2.6.18.8", "baba"), ("6.1.176", "baba")],
)
def test_wrr_when_the_greatest_weight_falls(kernel: str, names: str) -> None:
    # The round for 5 has begun, then nobody has more than 1: 2.6.11 goes through 4, 3 and 2 in vain.
    first, simulated = run(service("wrr", kernel, a=1, b=5), 1)
    assert first == "b"
    assert run(simulated.edit("b", 1), 4)[0] == names


@pytest.mark.parametrize("kernel", ["2.6.18.8", "2.6.39.4", "4.19.79"])
@pytest.mark.parametrize("place", range(5))
def test_wrr_gives_up_when_all_are_overloaded(kernel: str, place: int) -> None:
    _, simulated = run(service("wrr", kernel, a=2, b=4), place)
    full = tuple(replace(server, overloaded=True) for server in simulated.servers)
    assert run(replace(simulated, servers=full), 2)[0] == "--"
    one = (replace(full[0], overloaded=False), full[1])
    assert run(replace(simulated, servers=one), 3)[0] == "bbb"


# --- connections -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", OLD + NEW)
def test_lc_ignores_weights(kernel: str) -> None:
    assert run(service("lc", kernel, a=9, b=1, z=0), 4)[0] == "baba"


@pytest.mark.parametrize("kernel", OLD + NEW)
def test_sed_counts_the_connection_to_come(kernel: str) -> None:
    # (1/1, 1/2, 1/3) for (a, b, c): c, then b (1/2 < 2/3), then c (2/3 < 1), and a and the others tie at 1.
    assert run(service("sed", kernel, a=1, b=2, c=3), 6)[0] == "cbccba"


@pytest.mark.parametrize("kernel", OLD + NEW)
def test_nq_takes_an_idle_server_first(kernel: str) -> None:
    assert run(service("nq", kernel, a=1, b=2, c=3), 6)[0] == "cbaccb"


@pytest.mark.parametrize("scheduler", ["sed", "nq"])
def test_inactive_connections_do_not_count(scheduler: str) -> None:
    simulated = service(scheduler, "6.1", a=1, b=1)
    for _ in range(3):
        name, simulated = simulated.connect()
        assert name == "b"
        simulated = simulated.finish(name)


def test_nq_of_2_4_gives_connections_to_a_drained_server() -> None:
    # The list is b, a: a of weight 0 comes after another, and is idle.
    assert run(service("nq", "2.4.37.11", a=0, b=1), 4)[0] == "babb"
    assert run(service("nq", "2.6.11", a=0, b=1), 4)[0] == "bbbb"
    # At the head it is passed over.
    assert run(service("nq", "2.4.37.11", b=1, a=0), 3)[0] == "bbb"
    assert run(service("nq", "2.4.37.11", a=0, b=0), 2)[0] == "--"


@pytest.mark.parametrize(
    ("version", "cost"),
    [
        ((2, 4, 37, 11), 256),
        ((5, 10, 262), 256),
        ((6, 1, 182), 256),
        ((6, 1, 183), 257),
        ((6, 6, 126), 256),
        ((6, 12, 103), 256),
        ((6, 12, 118), 257),
        ((7, 2, 13), 257),
    ],
)
def test_what_an_active_connection_costs(version: tuple[int, ...], cost: int) -> None:
    assert active_cost(version) == cost
    kernel = ".".join(map(str, version))
    servers = (Server("done", 1, inactive=256), Server("busy", 1, active=1))
    for scheduler in ("lc", "wlc"):
        # 256 and 256 tie, and the first wins; 257 is more than 256.
        assert model_for(scheduler, kernel).choose(Moment(servers)).server == 0
        swapped = model_for(scheduler, kernel).choose(Moment(servers[::-1])).server
        assert swapped == (0 if cost == 256 else 1)


def test_fo_gives_all_to_the_greatest_weight() -> None:
    simulated = service("fo", "6.1", a=2, b=9, c=9)
    assert run(simulated, 3)[0] == "ccc"
    assert run(simulated.edit("c", 0), 2)[0] == "bb"


def test_ovf_spills_when_there_are_more_than_the_weight() -> None:
    assert run(service("ovf", "6.1", a=1, b=3), 8)[0] == "bbbbaa--"


# --- addresses ---------------------------------------------------------------------------------------------


def test_hashes() -> None:
    assert [low_bits(number, 8) for number in (0, 1, 2, 256)] == [0, 0xB1, 0x62, 0]
    assert [high_bits(number, 8) for number in (0, 1, 2, 3)] == [0, 0x61, 0xC3, 0x25]
    assert folded("10.0.0.1") == 0x0A000001
    assert folded("2001:db8::1") == 0x20010DB8 ^ 1
    # Of all addresses of a /16 with the same last byte, the old hash makes one place.
    assert len({low_bits(folded(f"10.0.{net}.7"), 8) for net in range(256)}) == 1
    assert len({high_bits(folded(f"10.0.{net}.7"), 8) for net in range(256)}) > 100


def test_dh_deals_its_places_in_turn() -> None:
    # 66.199.240.64: place 0x40 * 0xb1 & 0xff = 0x40 = 64, and 64 % 3 = 1 is the second of c, b, a.
    simulated = service("dh", "2.6.39", a=1, b=7, c=1)
    assert run(simulated, 2, destination="66.199.240.64")[0] == "bb"
    assert run(simulated.edit("b", 0), 1, destination="66.199.240.64")[0] == "-"
    assert run(simulated, 1, client="66.199.240.64", destination="66.199.240.66")[0] == "c"  # 0xa2 % 3


def test_dh_of_2_4_refuses_beyond_twice_the_weight() -> None:
    assert run(service("dh", "2.4.37.11", a=1), 5, destination="10.0.0.1")[0] == "aaa--"
    assert run(service("dh", "2.6.11", a=1), 5, destination="10.0.0.1")[0] == "aaaaa"


def test_sh_deals_its_places_by_weight_since_3_4() -> None:
    def shares(kernel: str) -> dict[str, int]:
        # 1, 3 and 4 in the order a, b, c: 256 clients that differ in the last byte.
        simulated = service("sh", kernel, a=1, b=3, c=4)
        names = [run(simulated, 1, client=f"10.0.0.{last}")[0] for last in range(256)]
        return {name: names.count(name) for name in "abc"}

    assert shares("3.4.0") == {"a": 32, "b": 96, "c": 128}
    assert shares("3.3.0") == {"a": 85, "b": 85, "c": 86}
    assert shares("2.4.37.11") == {"a": 85, "b": 85, "c": 86}


def test_sh_keeps_a_place_for_a_drained_server() -> None:
    simulated = service("sh", "6.1", a=3, b=1)
    at = next(
        f"10.0.0.{last}" for last in range(256) if run(simulated, 1, client=f"10.0.0.{last}")[0] == "a"
    )
    drained = simulated.edit("a", 0)
    clients = [f"10.0.{net}.9" for net in range(200)]
    assert "-" in {run(drained, 1, client=client)[0] for client in (at, *clients)}
    falling = replace(drained, model=model_for("sh", "6.1", ["sh-fallback"]))
    assert {run(falling, 1, client=client)[0] for client in (at, *clients)} == {"b"}


def test_sh_by_port() -> None:
    model = model_for("sh", "6.1", ["sh-port"])
    servers = (Server("a", 1), Server("b", 1))
    chosen = {model.choose(Moment(servers, "10.0.0.1", client_port=port)).server for port in range(1, 99)}
    assert chosen == {0, 1}


def test_siphash() -> None:
    # SipHash-1-3 with a key of zeros, by an implementation of its own in C.
    assert hash_1u32(0, 0) == 0x9AC48AF0
    assert hash_1u32(0x0A000001, 2654435761) == 0x03080CE4


def test_mh_shares_by_weight_and_moves_little() -> None:
    clients = [f"10.{net}.{net}.{last}" for net in range(4) for last in range(250)]

    def chosen(simulated: SimulatedService) -> list[str]:
        return [run(simulated, 1, client=client)[0] for client in clients]

    simulated = service("mh", "6.1", a=1, b=1, c=2)
    before = chosen(simulated)
    assert 200 < before.count("a") < 300 and 440 < before.count("c") < 560
    after = chosen(simulated.remove("a"))
    assert sum(old != new for old, new in zip(before, after, strict=True) if old != "a") < 60
    drained = simulated.edit("a", 0)
    assert chosen(drained) == [name if name != "a" else "-" for name in before]
    falling = replace(drained, model=model_for("mh", "6.1", ["mh-fallback"]))
    assert "-" not in chosen(falling) and "a" not in chosen(falling)
    assert chosen(service("mh", "6.1", a=0)) == ["-"] * 1000


# --- locality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr"])
@pytest.mark.parametrize("kernel", OLD + NEW)
def test_an_address_stays_until_its_server_is_overloaded(scheduler: str, kernel: str) -> None:
    names, simulated = run(service(scheduler, kernel, a=8, b=2), 3, destination="10.0.0.1")
    assert names == "bbb"
    # More active connections (3) than weight (2), and a has less than half of its own: it moves.
    names, simulated = run(simulated, 3, destination="10.0.0.1")
    assert names == "aaa"
    assert run(simulated.edit("a", 0), 1, destination="10.0.0.1")[0] == "b"
    assert run(simulated.remove("a"), 1, destination="10.0.0.1")[0] == "b"


def test_lblcr_comes_back_to_a_server_of_the_set_and_lblc_does_not() -> None:
    def after(scheduler: str) -> str:
        _, simulated = run(service(scheduler, "6.1", a=8, b=2), 4, destination="10.0.0.1")  # b b b a
        for _ in range(3):
            simulated = simulated.finish("b")
        return run(simulated, 3, destination="10.0.0.1")[0]

    assert after("lblc") == "aaa"
    assert after("lblcr") == "baa"


@pytest.mark.parametrize(("kernel", "names"), [("2.6.32", "b"), ("2.6.39", "a")])
def test_lblc_counts_active_connections_as_50_before_2_6_39(kernel: str, names: str) -> None:
    simulated = service("lblc", kernel, a=1, b=1)
    busy = (replace(simulated.servers[0], active=1), replace(simulated.servers[1], inactive=100))
    assert run(replace(simulated, servers=busy), 1, destination="10.0.0.1")[0] == names


def test_lblcr_drops_the_most_loaded_when_the_set_has_not_changed_for_long() -> None:
    servers = (Server("b", 2, active=3), Server("a", 8))
    for last in (False, True):
        choice = lblcr(Moment(servers, destination="x"), shrinks_last=last)
        assert choice.server == 1  # a, which has nothing
        joined = lblcr(
            Moment((servers[0], Server("a", 8, active=9)), destination="x", memory=choice.memory, now=5)
        )
        assert joined.server == 1, "b has more than half of its weight"
    idle = (Server("b", 2), Server("a", 1, active=2))
    grown = lblcr(Moment(idle, destination="x", memory=choice.memory, now=5.0))
    assert grown.server == 0
    later = Moment(idle, destination="x", memory=grown.memory, now=90000.0)
    assert lblcr(later).memory == lblcr(later, shrinks_last=True).memory
    assert lblcr(replace(later, now=86405.0)).memory == grown.memory


# --- twos --------------------------------------------------------------------------------------------------


def drawn_by_number(servers: tuple[Server, ...], first: int, second: int) -> int:
    """The server that two numbers lead to, step by step as ip_vs_twos.c has it."""
    found: list[int] = []
    for number in (first, second):
        left = number
        for place, server in enumerate(servers):
            left -= server.weight
            if server.weight > 0 and not server.overloaded and left <= 0:
                found.append(place)
                break
    one, other = servers[found[0]], servers[found[1]]
    overheads = [256 * server.active + server.inactive for server in (one, other)]
    return found[1] if other.weight * overheads[0] > one.weight * overheads[1] else found[0]


@pytest.mark.parametrize(
    "servers",
    [
        (Server("a", 2), Server("b", 1), Server("c", 3)),
        (Server("a", 2, active=1), Server("b", 1), Server("c", 3, active=1)),
        (Server("a", 2, active=1, inactive=5), Server("b", 0), Server("c", 3, inactive=400)),
        (Server("a", 4, active=2), Server("b", 2, active=1), Server("c", 1, active=1)),
    ],
)
def test_twos_is_as_likely_as_its_numbers(servers: tuple[Server, ...]) -> None:
    numbers = range(sum(server.weight for server in servers) + 1)
    counted = Counter(drawn_by_number(servers, *pair) for pair in product(numbers, repeat=2))
    chances = model_for("twos", "6.1").chances
    assert chances is not None
    assert {place: chance for place, chance in chances(Moment(servers)).items() if chance} == {
        place: Fraction(count, len(numbers) ** 2) for place, count in counted.items()
    }


def test_twos_passes_over() -> None:
    simulated = service("twos", "6.1", a=1, b=0, c=2)
    assert simulated.chances() == {"a": Fraction(1, 4), "c": Fraction(3, 4)}
    assert simulated.give("c").chances() == {"a": Fraction(7, 16), "c": Fraction(9, 16)}
    assert simulated.edit("a", 0).chances() == {"c": 1}
    nobody = simulated.edit("a", 0).edit("c", 0)
    assert nobody.chances() == {NOBODY: 1}
    assert nobody.give(NOBODY) == nobody
    full = SimulatedService(model_for("twos", "6.1")).add(Server("a", 1, threshold=1)).add(Server("b", 1))
    assert full.give("a").chances() == {"b": 1}


def test_twos_foresees_no_sequence() -> None:
    with pytest.raises(CheckFailed, match="chooses at random"):
        service("twos", "6.1", a=1, b=2).connect()
    assert service("rr", "6.1", a=1).chances() is None


# --- which model ------------------------------------------------------------------------------------------


def test_no_model() -> None:
    with pytest.raises(CheckFailed, match=r"kernel 2\.6\.39 has no fo scheduler: it came with 3\.18"):
        model_for("fo", "2.6.39")
    with pytest.raises(CheckFailed, match=r"kernel 5\.10 has no twos scheduler: it came with 5\.12"):
        model_for("twos", "5.10")
    with pytest.raises(CheckFailed, match="the scheduler wlb has no model"):
        model_for("wlb", "6.1")


def test_which_ones_remember() -> None:
    remembering = {name for name in ("rr", "wrr", "lblc", "lblcr") if model_for(name, "6.1").remembers}
    assert remembering == {"rr", "wrr", "lblc", "lblcr"}
    assert not any(model_for(name, "6.1").remembers for name in ("lc", "wlc", "sed", "nq", "dh", "sh", "mh"))


# --- the simulated service ---------------------------------------------------------------------------------


def test_a_removed_server_has_its_connections_again() -> None:
    name, simulated = service("lc", "6.1", a=1).connect()
    gone = simulated.remove("a")
    assert gone.servers == ()
    back = gone.finish(name).add(Server("a", 4))
    assert back.server("a") == Server("a", 4, active=0, inactive=1, last_weight=4)
    assert back.removed == ()


def test_a_server_at_its_threshold_gets_nothing() -> None:
    def at_threshold(scheduler: str, kernel: str) -> SimulatedService:
        empty = SimulatedService(model_for(scheduler, kernel))
        return empty.add(Server("a", 1)).add(Server("b", 9, threshold=2))

    names, full = run(at_threshold("wlc", "2.6.11"), 4)
    assert names == "baba"
    assert full.server("b").overloaded
    # Finished connections count as well, and a server that is edited has no threshold any more.
    assert run(full.finish("b"), 1)[0] == "a"
    assert run(full.edit("b", 9), 2)[0] == "bb"
    assert run(at_threshold("wlc", "2.4.37.11"), 4)[0] == "babb"
    # lblc asks for thresholds only when it looks for a new server.
    assert run(at_threshold("lblc", "6.1"), 4, destination="10.0.0.1")[0] == "bbbb"
    assert run(at_threshold("lblcr", "6.1"), 4, destination="10.0.0.1")[0] == "bbaa"


def test_servers_that_are_there_or_not() -> None:
    simulated = service("lc", "6.1", a=1)
    with pytest.raises(LvsLabError, match="a is among the servers already"):
        simulated.add(Server("a", 1))
    with pytest.raises(LvsLabError, match="b is not among the servers: a"):
        simulated.edit("b", 1)


def test_another_scheduler_has_no_memory() -> None:
    _, simulated = run(service("rr", "6.1", a=1, b=1), 1)
    other = simulated.scheduled_by(model_for("wrr", "6.1")).scheduled_by(model_for("rr", "6.1"))
    assert run(other, 2)[0] == "ba"
    assert isinstance(other.model, Model)
