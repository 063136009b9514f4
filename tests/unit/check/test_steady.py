from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from lvslab.check import steady
from lvslab.check.steady import Kind, Outcome, Steady
from lvslab.check.traffic import http
from lvslab.check.traffic.http import Attempt, Here, Place
from lvslab.errors import CheckFailed


def outcome(
    server: str = "rs1", failure: http.Failure | None = None, after: str = "", kind: Kind = "short"
) -> Outcome:
    source = f"192.0.2.1:{4000 + len(after)}"
    return Outcome("id", source, server, 200, b"", 0.0, 1.0, failure, kind=kind, after=after)


# --- the traffic ------------------------------------------------------------------------------------------


class Service:
    """What is asked, in place of a service: says which server answers, and how long a long request takes."""

    def __init__(self) -> None:
        self.server = "rs1"
        self.failure: http.Failure | None = None
        self.fault: Exception | None = None
        self.asked: list[tuple[str, int, float]] = []
        self.accepts = threading.Event()
        self.accepts.set()

    def ask(
        self,
        place: Place,
        address: str,
        port: int,
        request_id: str,
        *,
        seconds: float,
        enough: threading.Event,
        patience: float,
        connected: Callable[[], None],
    ) -> Attempt:
        self.asked.append((address, port, seconds))
        if self.fault:
            raise self.fault
        self.accepts.wait(5)
        connected()
        began = time.monotonic()
        while seconds and not enough():  # type: ignore[operator]
            time.sleep(0.001)
        return Attempt(
            request_id, "192.0.2.1:4000", self.server, 200, b"", began, time.monotonic(), self.failure
        )


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    monkeypatch.setattr(http, "attempt", service.ask)
    yield service


def test_every_request_is_accounted_for(service: Service) -> None:
    with Steady(Here(), "192.0.2.50", 80, pace=500.0, long_at_once=2, long_seconds=60.0) as running:
        running.await_answers(3)
        service.server = "rs2"
        running.mark("changed")
        running.await_answers(3)
        outcomes = running.finish()
    assert len(outcomes) == len(service.asked) == len({each.request_id for each in outcomes})
    assert [each.kind for each in outcomes].count("long") == 2
    assert {each.server for each in outcomes if each.after == "changed" and each.kind == "short"} == {"rs2"}
    assert sum(each.after == "" and each.kind == "short" for each in outcomes) >= 3
    assert [each.began for each in outcomes] == sorted(each.began for each in outcomes)
    assert {(address, port) for address, port, _ in service.asked} == {("192.0.2.50", 80)}


def test_a_mark_waits_for_connections_that_are_being_made(service: Service) -> None:
    service.accepts.clear()
    with Steady(Here(), "192.0.2.50", 80, long_at_once=1, long_seconds=60.0) as running:
        while not service.asked:
            time.sleep(0.001)
        marking = threading.Thread(target=running.mark, args=("removed",))
        marking.start()
        marking.join(0.1)
        assert marking.is_alive()
        service.accepts.set()
        marking.join(5)
        assert not marking.is_alive()  # though the long request goes on
        outcomes = running.finish()
    assert "" in {each.after for each in outcomes}


def test_all_long_requests_have_their_connections(service: Service) -> None:
    service.accepts.clear()
    options = {"long_at_once": 3, "long_seconds": 60.0}
    with Steady(Here(), "192.0.2.50", 80, patience=0.05, **options) as running:  # type: ignore[arg-type]
        with pytest.raises(CheckFailed, match="0 of 3 long requests have a connection"):
            running.await_long()
        service.accepts.set()
        running.await_long()
        assert [seconds for _, _, seconds in service.asked].count(60.0) == 3


def test_nothing_is_sent_after_the_end(service: Service) -> None:
    with Steady(Here(), "192.0.2.50", 80, pace=500.0) as running:
        running.await_answers(1)
    asked = len(service.asked)
    assert asked == len(running.finish())
    assert not any(thread.name.startswith("requests") for thread in threading.enumerate())


def test_answers_that_do_not_come(service: Service) -> None:
    with Steady(Here(), "192.0.2.50", 80, pace=0.1, long_at_once=0) as running:
        running.mark("removed")
        with pytest.raises(CheckFailed, match=r"3 requests after `removed` did not end within 0\.01 s"):
            running.await_answers(3, 0.01)
        # Its pace is no reason to wait.
        began = time.monotonic()
        running.finish()
        assert time.monotonic() - began < 5


def test_a_fault_is_not_swallowed(service: Service) -> None:
    service.fault = ValueError("a fault")
    running = Steady(Here(), "192.0.2.50", 80, pace=500.0, long_at_once=1)
    with pytest.raises(ValueError, match="a fault"), running:
        pass


# --- the checks -------------------------------------------------------------------------------------------


def test_nothing_failed() -> None:
    steady.nothing_failed([outcome(), outcome("rs2")])


def test_no_request_is_no_success() -> None:
    with pytest.raises(CheckFailed, match="no request at all"):
        steady.nothing_failed([])


def test_failures_are_counted_by_mark_kind_and_server() -> None:
    with pytest.raises(CheckFailed) as noticed:
        steady.nothing_failed(
            [
                outcome(),
                outcome("rs2", "no-reply", kind="long"),
                outcome("rs2", "no-reply", kind="long"),
                outcome("", "refused", after="stop rs1"),
                outcome("rs2", after="stop rs1"),
                outcome("rs1", "broken-off", after="stop rs1"),
            ]
        )
    assert noticed.value.message.splitlines() == [
        "4 of 6 requests failed: 1 short broken off (rs1), 2 long got no reply (rs2), 1 short refused",
        "  2 of the 3 that began before anything was done: 2 long got no reply (rs2)",
        "  2 of the 3 that began after `stop rs1`: 1 short broken off (rs1), 1 short refused",
    ]
    assert noticed.value.hint is not None
    assert "expire_nodest_conn 0" in noticed.value.hint
    assert "expire_nodest_conn 1" in noticed.value.hint
    assert "before it is stopped" in noticed.value.hint


def test_each_kind_of_failure_has_words() -> None:
    for failure in steady._WORDS:
        with pytest.raises(CheckFailed, match="1 of 1 requests failed"):
            steady.nothing_failed([outcome(failure=failure)])


def test_a_server_that_was_to_get_nothing() -> None:
    outcomes = [outcome("rs1"), outcome("rs2", after="drain"), outcome("rs1", after="remove")]
    steady.none_went_to(outcomes, "rs1", ["drain"])
    steady.none_went_to(outcomes, "rs3", ["", "drain", "remove"])
    with pytest.raises(CheckFailed, match="1 of 2 requests went to rs1"):
        steady.none_went_to(outcomes, "rs1", ["drain", "remove"])
    with pytest.raises(CheckFailed, match="no request began after `upgrade`"):
        steady.none_went_to(outcomes, "rs1", ["upgrade"])


def test_a_server_that_was_to_get_something() -> None:
    outcomes = [outcome("rs1"), outcome("rs2", after="add")]
    steady.some_went_to(outcomes, "rs2", ["add"])
    with pytest.raises(CheckFailed, match="none of 1 requests went to rs1"):
        steady.some_went_to(outcomes, "rs1", ["add"])


def test_failed_requests_are_named_by_the_directors_connections() -> None:
    lost, answered = outcome("", "no-reply"), outcome("rs2", after="add")
    entries = {lost.source: "10.0.0.100:80", answered.source: "10.0.0.100:80"}
    found = steady.named([lost, answered], entries, {"10.0.0.100": "rs1"})
    assert [each.server for each in found] == ["rs1", "rs2"]
    assert steady.named([lost], {}, {}) == (lost,)
    (other,) = steady.named([lost], {lost.source: "[fd00::1]:80"}, {"fd00::1": "rs6"})
    assert other.server == "rs6"


def test_who_answered() -> None:
    outcomes = [outcome("rs1"), outcome("rs2"), outcome("rs2"), outcome("rs1", "broken-off")]
    assert steady.answered_by_server(outcomes) == {"rs1": 1, "rs2": 2}
