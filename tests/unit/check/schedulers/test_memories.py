"""Forecasts for schedulers whose memory nobody has counted, and for connections that leave nothing."""

from __future__ import annotations

import pytest

from lvslab.check import schedulers
from lvslab.check.schedulers import Server, model_for


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
