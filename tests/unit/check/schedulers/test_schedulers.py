from __future__ import annotations

from functools import partial

import pytest

from lvslab.check import schedulers
from lvslab.check.schedulers import (
    NOBODY,
    Moment,
    Server,
    forecast,
    model_for,
    remembered,
)
from lvslab.check.schedulers.least_connection import wlc
from lvslab.check.schedulers.model import Choice

# The kernel's order: the tutorial adds real-server-1 first, so real-server-2 stands at the head of the list.
TUTORIAL = (Server("two", weight=2), Server("one", weight=1))


def test_wlc_with_the_tutorials_weights() -> None:
    assert forecast(wlc, TUTORIAL, 9).names == (
        "two",
        "one",
        "two",
        "two",
        "one",
        "two",
        "two",
        "one",
        "two",
    )


def test_the_order_decides_between_equals() -> None:
    assert forecast(wlc, TUTORIAL[::-1], 6).names == ("one", "two", "two", "one", "two", "two")


def test_equal_weights_take_turns() -> None:
    servers = [Server(name, weight=3) for name in "abc"]
    assert forecast(wlc, servers, 7).names == tuple("abcabca")


def test_old_connections_count() -> None:
    servers = (Server("two", weight=2, inactive=10), Server("one", weight=1))
    assert forecast(wlc, servers, 6).names == ("one", "one", "one", "one", "one", "two")


@pytest.mark.parametrize(("inactive", "chosen"), [(255, 1), (256, 0), (257, 0)])
def test_an_active_connection_weighs_256_inactive_ones(inactive: int, chosen: int) -> None:
    servers = (Server("busy", 1, active=1), Server("done", 1, inactive=inactive))
    assert wlc(Moment(servers)) == Choice(chosen)


def test_an_active_connection_weighs_257_where_total_connections_count() -> None:
    servers = (Server("busy", 1, active=1), Server("done", 1, inactive=256))
    assert partial(wlc, active_cost=257)(Moment(servers)) == Choice(1)


def test_weight_0_and_overload_are_passed_over() -> None:
    servers = (
        Server("drained", weight=0),
        Server("full", weight=9, overloaded=True),
        Server("busy", weight=1, active=9),
        Server("drained too", weight=0),
    )
    assert wlc(Moment(servers)) == Choice(2)


def test_nobody_to_choose() -> None:
    servers = (Server("drained", weight=0), Server("full", weight=1, overloaded=True))
    assert forecast(wlc, servers, 2).names == (NOBODY, NOBODY)
    assert forecast(wlc, (), 1).names == (NOBODY,)


def test_a_forecast_says_how_the_servers_stand_afterwards() -> None:
    after = forecast(model_for("wlc", "6.1").choose, TUTORIAL, 6).servers
    assert [(server.name, server.inactive) for server in after] == [("two", 4), ("one", 2)]
    assert TUTORIAL[0].inactive == 0


@pytest.mark.parametrize("weights", [(1, 1), (1, 2), (3, 5, 7), (2, 4, 6), (1, 1000)])
def test_finished_requests_are_shared_exactly_by_weight(weights: tuple[int, ...]) -> None:
    servers = [Server(str(index), weight) for index, weight in enumerate(weights)]
    names = forecast(wlc, servers, sum(weights) * 3).names
    assert [names.count(server.name) for server in servers] == [weight * 3 for weight in weights]


def test_a_scheduler_remembers_through_its_memory() -> None:
    def rotate(moment: Moment) -> Choice:
        last = moment.memory if isinstance(moment.memory, int) else -1
        chosen = (last + 1) % len(moment.servers)
        return Choice(chosen, chosen)

    assert forecast(rotate, TUTORIAL, 5).names == ("two", "one", "two", "one", "two")


@pytest.mark.parametrize("kernel", ["2.6.39", "6.1"])
def test_what_wrr_remembers_of_earlier_requests(kernel: str) -> None:
    model = model_for("wrr", kernel)
    # A cycle takes three: two, and in the round of weight 1 both.
    for past in range(7):
        memory = remembered(model, TUTORIAL, past)
        whole = forecast(model.choose, TUTORIAL, 9, memory=remembered(model, TUTORIAL, 0)).names
        assert forecast(model.choose, TUTORIAL, 2, memory=memory).names == whole[past : past + 2]


def test_what_lblc_remembers_of_earlier_requests() -> None:
    model = model_for("lblc", "6.1")
    memory = remembered(model, TUTORIAL, 1, destination="192.0.2.1")
    busy = [Server("two", 2, inactive=9), Server("one", 1)]
    assert forecast(model.choose, busy, 2, destination="192.0.2.1", memory=memory).names == ("two", "two")
    assert forecast(model.choose, busy, 2, destination="192.0.2.2", memory=memory).names == ("one", "one")


def test_connections_that_are_forgotten_at_once_do_not_count() -> None:
    servers = [Server("two", 2), Server("one", 1)]
    model = model_for("wlc", "6.1")
    found = schedulers.forecast(model.choose, servers, 4, forgotten=True)
    assert found.names == ("two",) * 4
    assert found.servers == tuple(servers)


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lblc", "lblcr"])
def test_each_sequence_of_a_scheduler_is_one_from_some_memory(scheduler: str) -> None:
    servers = [Server("two", 2), Server("one", 1), Server("three", 3)]
    model = model_for(scheduler, "6.1")
    known = list(schedulers.memories(model, servers, destination="10.0.0.1"))
    memory: object = None
    for _ in range(12):
        made = schedulers.forecast(model.choose, servers, 5, memory=memory, destination="10.0.0.1")
        later = (
            schedulers.forecast(model.choose, servers, 5, memory=each, destination="10.0.0.1").names
            for each in known
        )
        assert made.names in set(later)
        memory = schedulers.forecast(model.choose, servers, 1, memory=memory, destination="10.0.0.1").memory


def test_a_scheduler_without_a_memory_has_one_at_most() -> None:
    assert list(schedulers.memories(model_for("wlc", "6.1"), [Server("one", 1)])) == [None]
