from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

import pytest

from lvslab.boot import control
from lvslab.check.ipvs.listing import Rates
from lvslab.check.monitor import watch as monitor
from lvslab.check.monitor.watch import DirectorSeen, Watch
from lvslab.errors import StateError, UsageError
from tests.unit.check.monitor.monitored import Director, Lab, up


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(control, "_peer_user", lambda _: 0)
    monkeypatch.setattr(monitor, "_EARLY", 0.0)
    return f"unit-{secrets.token_hex(6)}"


@pytest.fixture
def director() -> Director:
    return Director()


@pytest.fixture
def watch(name: str, director: Director) -> Iterator[Iterator[DirectorSeen]]:
    """Readings of a lab's only director."""
    with up(name, Lab({"director": director})), Watch(name, 0) as watched:
        yield (seen.directors[0] for seen in watched)


def shares(seen: DirectorSeen) -> list[float | None]:
    return [server.share for server in seen.services[0].servers]


def test_a_first_reading_has_no_rates(watch: Iterator[DirectorSeen], director: Director) -> None:
    director.given = [4, 8]
    seen = next(watch)
    (service,) = seen.services
    assert (seen.state, seen.seconds, service.rates) == ("up", None, None)
    assert (service.service, service.scheduler) == ("192.0.2.1:80", "wlc")
    assert [(server.server, server.address) for server in service.servers] == [
        ("real-server-1", "10.0.0.100:80"),
        ("real-server-2", "10.0.0.101:80"),
    ]
    assert [(server.weight, server.active, server.inactive) for server in service.servers] == [
        (1, 1, 4),
        (2, 1, 8),
    ]
    assert [server.rates for server in service.servers] == [None, None]
    # What there was before counts for the shares.
    assert shares(seen) == [0.3333, 0.6667]
    assert [server.by_weight for server in service.servers] == [0.3333, 0.6667]


def test_rates_are_differences_over_the_directors_own_time(
    watch: Iterator[DirectorSeen], director: Director
) -> None:
    director.given = [4, 8]
    next(watch)
    director.given = [6, 13]
    seen = next(watch)
    assert seen.seconds == 0.5
    (service,) = seen.services
    assert service.rates == Rates(14, 70, 56, 7000, 56000)
    assert [server.rates.connections for server in service.servers if server.rates] == [4, 10]
    assert shares(seen) == [round(6 / 19, 4), round(13 / 19, 4)]
    still = next(watch)
    assert still.services[0].rates == Rates(0, 0, 0, 0, 0)


def test_shares_begin_again_when_weights_change(watch: Iterator[DirectorSeen], director: Director) -> None:
    director.given = [10, 20]
    next(watch)
    director.weights = [3, 1]
    changed = next(watch)
    assert shares(changed) == [None, None]
    assert [server.by_weight for server in changed.services[0].servers] == [0.75, 0.25]
    director.given = [13, 21]
    assert shares(next(watch)) == [0.75, 0.25]


def test_counters_that_were_zeroed(watch: Iterator[DirectorSeen], director: Director) -> None:
    director.given = [10, 20]
    next(watch)
    director.given = [1, 1]
    zeroed = next(watch)
    assert zeroed.services[0].rates is None
    assert shares(zeroed) == [0.5, 0.5]
    director.given = [2, 4]
    again = next(watch).services[0]
    assert again.rates is not None
    assert again.rates.connections == 8


def test_nothing_to_be_shared(watch: Iterator[DirectorSeen], director: Director) -> None:
    director.weights = [0, 0]
    seen = next(watch)
    assert shares(seen) == [None, None]
    assert [server.by_weight for server in seen.services[0].servers] == [None, None]


def test_a_firewall_mark(watch: Iterator[DirectorSeen], director: Director) -> None:
    director.service = "FWM  7"
    (service,) = next(watch).services
    assert (service.service, service.protocol, service.mark) == ("firewall mark 7", "fwmark", 7)


def test_a_director_that_hangs_keeps_nobody_from_seeing_the_others(name: str) -> None:
    lab = Lab({"one": Director(), "two": Director(silent=True), "three": Director()})
    with up(name, lab), Watch(name, 0) as watched:
        readings = iter(watched)
        one, two, three = next(readings).directors
        assert [one.director, two.director, three.director] == ["one", "two", "three"]
        assert [one.state, three.state] == ["up", "up"]
        assert (two.state, two.services) == ("director is not up (running): it hangs", ())
        lab.directors["two"].silent = False
        one, two, _ = next(readings).directors
        assert one.services[0].rates is not None
        # Its rates begin when it has come to itself.
        assert (two.state, two.services[0].rates) == ("up", None)
    assert {seconds for _, seconds in lab.asked} == {monitor.PATIENCE}


def test_the_end_of_the_lab_ends_the_watch(name: str) -> None:
    with ExitStack() as running:
        running.enter_context(up(name, Lab({"director": Director()})))
        with Watch(name, 3600) as watched:
            readings = iter(watched)
            next(readings)
            # While it waits for the next reading, an hour from now.
            ends = threading.Timer(0.05, running.close)
            ends.start()
            with pytest.raises(StateError, match=f"the lab '{name}' has ended"):
                next(readings)
            ends.join()


def test_leaving_ends_the_wait_of_others(name: str) -> None:
    with up(name, Lab({"director": Director()})):
        with Watch(name, 3600) as watched:
            next(iter(watched))
            waiting = watched._workers.submit(watched._look, "director")
            deadline = time.monotonic() + 10
            while not waiting.running():
                assert time.monotonic() < deadline
        with pytest.raises(StateError):
            waiting.result(10)


def test_no_lab(name: str) -> None:
    with pytest.raises(StateError, match=f"the lab '{name}' is not up"):
        Watch(name)


def test_the_document(name: str) -> None:
    with up(name, Lab({"director": Director(given=[1, 2])})), Watch(name, 0) as watched:
        _, seen = islice(watched, 2)
    document = json.loads(json.dumps(seen.as_json()))
    (director,) = document["directors"]
    (service,) = director["services"]
    assert service["total"]["bytes_out"] == 12000
    assert service["servers"][1]["rates"]["connections"] == 0.0


@pytest.mark.parametrize(
    ("interval", "count", "says"), [(0, 0, "--interval"), (3601, 0, "3601"), (1, -1, "-1")]
)
def test_bounds(interval: int, count: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        monitor.check_bounds(interval, count)
    monitor.check_bounds(1, 0)
    monitor.check_bounds(3600, 10)
