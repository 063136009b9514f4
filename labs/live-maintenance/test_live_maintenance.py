"""Does maintenance as howto.md has it cost no request? And is it noticed where it does?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from signal import SIGINT

import pytest

from lvslab.apply.transcript import StepRecord
from lvslab.check import load, steady, verdict
from lvslab.check.ipvs import director as directors
from lvslab.check.ipvs.listing import ListedServer
from lvslab.check.steady import Outcome, Steady
from lvslab.check.testbed import Testbed
from lvslab.check.traffic import access_log, http
from lvslab.check.traffic.http import new_request_id
from lvslab.check.traffic.wrk import WrkResult
from lvslab.errors import CheckFailed

VIP, PORT = "66.199.240.50", 80
SERVICE = f"{VIP}:{PORT}"
READY = "ipvsadm -a -t $Vip -r 10.0.0.101:80 -m"
"""The last step of the first section: the service has its servers."""
ADD = "ipvsadm -a -t $Vip -r 10.0.0.102:80 -m"
DRAIN = "ipvsadm -e -t $Vip -r 10.0.0.101:80 -m -w 0"
REMOVE = "ipvsadm -d -t $Vip -r 10.0.0.101:80"
PUT_BACK = READY
DRAIN_FIRST = "ipvsadm -e -t $Vip -r 10.0.0.100:80 -m -w 0"
AND_THEN = ", and while the next step was typed"
BACK_IN_USE = "ipvsadm -e -t $Vip -r 10.0.0.100:80 -m -w 1"


def traffic(lab: Testbed, **options: float) -> Steady:
    """Steady traffic from the first client."""
    return Steady(lab.clients[0].namespace, VIP, PORT, **options)  # type: ignore[arg-type]


def names(lab: Testbed) -> dict[str, str]:
    """The real servers' names by address."""
    return {server.address: server.name for server in lab.real_servers}


def on(lab: Testbed, server: str, entries: dict[str, str], outcomes: tuple[Outcome, ...]) -> int:
    """How many long requests were with ``server`` when the director had these ``entries``."""
    address = lab.node(server).address
    return sum(
        entries.get(outcome.source) == f"{address}:80" for outcome in outcomes if outcome.kind == "long"
    )


def await_that(lab: Testbed, server: str, what: Callable[[ListedServer], bool]) -> None:
    """Return when the director has the connections for ``server`` that ``what`` asks for."""
    deadline, place = time.monotonic() + 60, f"{lab.node(server).address}:80"
    while time.monotonic() < deadline:
        (row,) = directors.read_director(lab.cluster, lab.directors[0].name, ("listing",)).connections
        if any(str(found) == place and what(found) for found in row.servers):
            return
    pytest.fail(f"{server} did not get its connections within 60 s")


def await_held(lab: Testbed, server: str) -> None:
    """Return when a long request is with ``server``."""
    await_that(lab, server, lambda found: found.active > 0)


def await_all_held(lab: Testbed, running: Steady, server: str) -> None:
    """Return when every long request has its connection, and one of them is with ``server``. One that is
    only on its way there would ask anew, and get another server: the director knows it, and still may have
    lost its first packet, since of those that wait for a server's hardware address it keeps three."""
    running.await_long()
    await_held(lab, server)


def await_given(lab: Testbed, server: str) -> None:
    """Return when ``server`` was given connections, be they over: short ones are too short to be seen."""
    before: list[int] = []

    def more(found: ListedServer) -> bool:
        before.append(found.active + found.inactive)
        return before[-1] > min(before)

    await_that(lab, server, more)


def by_the_book(lab: Testbed) -> tuple[Outcome, ...]:
    """Type the how-to with traffic from the moment on that the service has servers: what came of it."""
    with ExitStack() as opened:
        running: list[Steady] = []

        def typed(entry: StepRecord) -> None:
            if running:
                running[0].mark(entry.command)
                running[0].await_answers(6)
                if entry.command == BACK_IN_USE:
                    # Those that were put back before have fewer connections, and catch up first.
                    await_given(lab, "real-server-1")
                # What begins while the next step is typed may see the cluster before it or after it.
                running[0].mark(f"{entry.command}{AND_THEN}")
            elif entry.command == READY:
                running.append(opened.enter_context(traffic(lab)))
                running[0].await_answers(6)

        lab.cluster.apply(typed)
        outcomes = running[0].finish()
    return steady.named(outcomes, lab.reading().entries, names(lab))


def in_order(outcomes: tuple[Outcome, ...]) -> list[str]:
    """The marks in the order of the traffic."""
    return list(dict.fromkeys(outcome.after for outcome in outcomes))


def marks(outcomes: tuple[Outcome, ...], first: str, last: str) -> list[str]:
    """The marks from ``first`` on until the step ``last`` was typed, without the time when it was."""
    order = in_order(outcomes)
    found = order[order.index(first) : order.index(last)]
    return found[:-1] if found[-1].endswith(AND_THEN) else found


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_sequence_is_that_of_wlc(lab: Testbed) -> None:
    taken = lab.round(count=12)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def test_no_request_fails_by_the_book(bare_lab: Testbed) -> None:
    outcomes = by_the_book(bare_lab)
    steady.nothing_failed(outcomes)
    assert {outcome.kind for outcome in outcomes} == {"short", "long"}
    # A server that was drained got nothing until it was back, and the others' changes took effect.
    steady.none_went_to(outcomes, "real-server-3", [""])
    steady.some_went_to(outcomes, "real-server-3", marks(outcomes, ADD, DRAIN))
    steady.none_went_to(outcomes, "real-server-2", marks(outcomes, DRAIN, PUT_BACK))
    steady.some_went_to(outcomes, "real-server-2", marks(outcomes, PUT_BACK, BACK_IN_USE))
    steady.none_went_to(outcomes, "real-server-1", marks(outcomes, DRAIN_FIRST, BACK_IN_USE))
    steady.some_went_to(outcomes, "real-server-1", [BACK_IN_USE])
    # The upgrade has come, and not before its time.
    order = in_order(outcomes)
    for outcome in outcomes:
        if outcome.server == "real-server-1":
            upgraded = order.index(outcome.after) >= order.index(DRAIN_FIRST)
            assert (b"version 2" in outcome.body) == upgraded
    everybody_counts_the_same(bare_lab, outcomes)


def everybody_counts_the_same(lab: Testbed, outcomes: tuple[Outcome, ...]) -> None:
    """Client and servers agree on every request, and the director on those whose entries it still has.

    An entry in LAST_ACK is gone after 30 s.
    """
    logged = list[access_log.LogEntry]()
    for server in lab.real_servers:
        logged += access_log.parse_access_log(lab.cluster.access_log(server.name))

    def by_log(some: list[Outcome]) -> dict[str, int]:
        found = access_log.with_ids(logged, {outcome.request_id for outcome in some})
        return access_log.requests_by_server(found)

    known, by_address = lab.reading().entries, names(lab)
    remembered = [outcome for outcome in outcomes if outcome.source in known]
    given = [by_address[known[outcome.source].partition(":")[0]] for outcome in remembered]
    counts = {name: given.count(name) for name in given}
    assert counts
    verdict.counts_agree(steady.answered_by_server(remembered), by_log(remembered), counts)
    assert steady.answered_by_server(outcomes) == by_log([*outcomes])


def under_load(lab: Testbed, what: Callable[[], None]) -> WrkResult:
    """What came of the requests that wrk made, one after the other, while ``what`` was done. With more at a
    time an emulated director has no time left for its own commands."""
    client = lab.clients[-1].name
    with load.generators(lab.cluster, [client], f"http://{SERVICE}/", load.MOST_SECONDS, 1) as (process,):
        await_given(lab, "real-server-1")
        what()
        process.send_signal(SIGINT)  # wrk sums up
        return load.await_result(process, load.MOST_SECONDS)


def test_no_request_fails_under_load(fresh_lab: Testbed) -> None:
    director = fresh_lab.directors[0]

    def leave_and_come_back() -> None:
        director.execute(f"ipvsadm -e -t {SERVICE} -r 10.0.0.101:80 -m -w 0")
        drained = """[ "$(ipvsadm -Ln | awk '$2 == "10.0.0.101:80" { print $5 }')" = 0 ]"""
        director.execute(f"until {drained}; do sleep 1; done")
        await_given(fresh_lab, "real-server-1")
        director.execute(f"ipvsadm -d -t {SERVICE} -r 10.0.0.101:80")
        await_given(fresh_lab, "real-server-1")
        director.execute(f"ipvsadm -a -t {SERVICE} -r 10.0.0.101:80 -m")
        await_given(fresh_lab, "real-server-2")

    sent = under_load(fresh_lab, leave_and_come_back)
    assert sent.requests > 10
    assert not any(sent.errors.values()), sent


def test_a_server_that_is_put_back_at_once_keeps_its_connections(fresh_lab: Testbed) -> None:
    director = fresh_lab.directors[0]
    with traffic(fresh_lab, long_at_once=6, long_seconds=60.0) as running:
        await_held(fresh_lab, "real-server-2")
        entries = fresh_lab.reading().entries
        director.execute(
            f"ipvsadm -d -t {SERVICE} -r 10.0.0.101:80; sleep 1; ipvsadm -a -t {SERVICE} -r 10.0.0.101:80 -m"
        )
        running.mark("put back")
        running.await_answers(6)
        outcomes = running.finish()
    assert on(fresh_lab, "real-server-2", entries, outcomes) > 0
    steady.nothing_failed(outcomes)


@pytest.mark.parametrize(
    "removed",
    [
        pytest.param(False, marks=pytest.mark.known_bug("port-reuse-drained"), id="drained"),
        pytest.param(True, marks=pytest.mark.known_bug("port-reuse-removed"), id="removed"),
    ],
)
def test_a_client_port_that_comes_again(fresh_lab: Testbed, removed: bool) -> None:
    """The director still knows the finished connection from that port, and must not take it for the same."""

    def ask() -> http.Attempt:
        place, port = fresh_lab.clients[0].namespace, 50123
        return http.attempt(place, VIP, PORT, new_request_id(), source_port=port, patience=2.0)

    first, director = ask(), fresh_lab.directors[0]
    server = f"-t {SERVICE} -r {fresh_lab.node(first.server).address}:80"
    director.execute(f"ipvsadm -d {server}" if removed else f"ipvsadm -e {server} -m -w 0")
    second = ask()
    assert second.failure is None, f"the second connection from that port: {second.failure}"
    assert second.server != first.server, f"{first.server} got the second connection from that port too"


# --- what the checks must notice --------------------------------------------------------------------------


@pytest.mark.parametrize(("expire", "how"), [(0, "got no reply"), (1, "broken off")])
def test_removing_without_draining_is_noticed(fresh_lab: Testbed, expire: int, how: str) -> None:
    director = fresh_lab.directors[0]
    director.execute(f"echo {expire} > /proc/sys/net/ipv4/vs/expire_nodest_conn")
    with traffic(fresh_lab, long_at_once=6, long_seconds=60.0, patience=3.0) as running:
        await_all_held(fresh_lab, running, "real-server-2")
        entries = fresh_lab.reading().entries
        director.execute(f"ipvsadm -d -t {SERVICE} -r 10.0.0.101:80")
        running.mark("removed")
        running.await_answers(9)
        outcomes = steady.named(running.finish(), entries, names(fresh_lab))
    held = on(fresh_lab, "real-server-2", entries, outcomes)
    assert held > 0
    with pytest.raises(CheckFailed) as noticed:
        steady.nothing_failed(outcomes)
    assert f"{held} long {how} (real-server-2)" in noticed.value.message
    # Nobody else is harmed: whoever came later got another server.
    assert not [outcome for outcome in outcomes if outcome.failure and outcome.after == "removed"]
    steady.none_went_to(outcomes, "real-server-2", ["removed"])


def test_stopping_without_draining_is_noticed(fresh_lab: Testbed) -> None:
    with traffic(fresh_lab, long_at_once=6, long_seconds=60.0) as running:
        await_all_held(fresh_lab, running, "real-server-2")
        entries = fresh_lab.reading().entries
        fresh_lab.cluster.stop_service("real-server-2")
        running.mark("stopped")
        running.await_answers(12)
        entries = {**entries, **fresh_lab.reading().entries}
        outcomes = steady.named(running.finish(), entries, names(fresh_lab))
    with pytest.raises(CheckFailed) as noticed:
        steady.nothing_failed(outcomes)
    held = on(fresh_lab, "real-server-2", entries, outcomes)
    refused = sum(outcome.failure == "refused" and outcome.kind == "short" for outcome in outcomes)
    assert refused > 0
    assert f"{refused} short refused" in noticed.value.message
    assert held > 0
    assert f"{held} long broken off (real-server-2)" in noticed.value.message
    assert "drain it before it is stopped" in str(noticed.value)


def test_stopping_without_draining_is_noticed_under_load(fresh_lab: Testbed) -> None:
    def stop() -> None:
        fresh_lab.cluster.stop_service("real-server-2")
        with traffic(fresh_lab, long_at_once=0) as running:
            running.await_answers(6)

    sent = under_load(fresh_lab, stop)
    assert sum(sent.errors.values()) > 0


def test_persistence_that_keeps_a_drained_server_busy_is_noticed(fresh_lab: Testbed) -> None:
    director = fresh_lab.directors[0]
    director.execute(f"ipvsadm -E -t {SERVICE} -s wlc -p 300")
    (first,) = fresh_lab.clients[0].get(f"http://{SERVICE}/")
    address = fresh_lab.node(first.server).address
    director.execute(f"ipvsadm -e -t {SERVICE} -r {address}:80 -m -w 0")
    with traffic(fresh_lab, long_at_once=0) as running:
        running.await_answers(6)
        director.execute("echo 1 > /proc/sys/net/ipv4/vs/expire_quiescent_template")
        running.mark("expire_quiescent_template")
        running.await_answers(6)
        outcomes = running.finish()
    steady.nothing_failed(outcomes)
    with pytest.raises(CheckFailed, match=f"requests went to {first.server}, which was to get none"):
        steady.none_went_to(outcomes, first.server, [""])
    steady.none_went_to(outcomes, first.server, ["expire_quiescent_template"])
