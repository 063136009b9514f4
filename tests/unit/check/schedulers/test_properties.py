"""What must hold of the schedulers' models, and where one must do as another, whatever the servers are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import gcd

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lvslab.check.schedulers import (
    NOBODY,
    TUTORIAL,
    Moment,
    Server,
    SimulatedService,
    forecast,
    later,
    model_for,
)
from lvslab.kernel import catalogue

settings.register_profile("lvslab", database=None, deadline=None, max_examples=40, derandomize=True)
settings.load_profile("lvslab")

KERNELS = ("2.4.37.11", "2.6.11.12", "2.6.18.8", "2.6.32.71", "2.6.39.4", "4.19.79", "6.1.176", "6.12.118")
MODELS = [
    (scheduler, kernel)
    for kernel in KERNELS
    for scheduler in (*TUTORIAL, *later())
    if scheduler in TUTORIAL or catalogue.lacking(kernel, scheduler) is None
]

models = st.sampled_from(MODELS)
kernels = st.sampled_from(KERNELS)
connections = st.integers(0, 40)
addresses = st.ip_addresses(v=4).map(str)


@st.composite
def servers(
    draw: st.DrawFn,
    *,
    weights: st.SearchStrategy[int] | None = None,
    least: int = 1,
    busy: bool = True,
) -> tuple[Server, ...]:
    """Some servers with connections, in the kernel's order."""
    number = draw(st.integers(least, 6))
    counts = connections if busy else st.just(0)
    return tuple(
        Server(
            str(index),
            draw(st.integers(0, 9) if weights is None else weights),
            draw(counts),
            draw(counts),
            address=f"10.0.0.{index}",
            port=80,
        )
        for index in range(number)
    )


def choose(scheduler: str, kernel: str, there: tuple[Server, ...], client: str, destination: str) -> str:
    chosen = (
        model_for(scheduler, kernel).choose(Moment(there, client=client, destination=destination)).server
    )
    return NOBODY if chosen is None else there[chosen].name


@given(models, servers(), addresses, addresses)
def test_weight_0_never_chosen(
    model: tuple[str, str], there: tuple[Server, ...], client: str, destination: str
) -> None:
    assume(model != ("nq", "2.4.37.11"))  # it does: see test_scheduler_models
    name = choose(*model, there, client, destination)
    assert name not in {server.name for server in there if server.weight == 0}


@given(models, servers(weights=st.just(0), least=0), addresses, addresses)
def test_all_weights_0_and_nobody_is_chosen(
    model: tuple[str, str], there: tuple[Server, ...], client: str, destination: str
) -> None:
    assert choose(*model, there, client, destination) == NOBODY


@given(models, st.integers(1, 9), addresses, addresses)
def test_one_server_is_chosen(model: tuple[str, str], weight: int, client: str, destination: str) -> None:
    there = (Server("only", weight, address="10.0.0.1", port=80),)
    assert choose(*model, there, client, destination) == "only"


@given(models, servers(), addresses, addresses)
def test_nobody_but_an_overloaded_server_is_passed_over(
    model: tuple[str, str], there: tuple[Server, ...], client: str, destination: str
) -> None:
    full = tuple(replace(server, overloaded=True) for server in there)
    scheduler, kernel = model
    name = choose(scheduler, kernel, full, client, destination)
    # 2.4 has no thresholds, so nobody is overloaded there.
    assert name == (choose(*model, there, client, destination) if kernel < "2.6" else NOBODY)


@given(kernels, servers(weights=st.just(3)), st.integers(1, 9))
def test_wlc_with_equal_weights_is_lc(kernel: str, there: tuple[Server, ...], count: int) -> None:
    lc, wlc = (model_for(name, kernel).choose for name in ("lc", "wlc"))
    assert forecast(wlc, there, count).names == forecast(lc, there, count).names


@given(kernels, servers(), st.integers(1, 20))
def test_lblc_chooses_a_new_addresss_server_as_wlc_does(
    kernel: str, there: tuple[Server, ...], count: int
) -> None:
    if kernel < "2.6.39":  # there an active connection costs wlc more
        there = tuple(replace(server, active=0) for server in there)
    for scheduler in ("lblc", "lblcr"):
        name = choose(scheduler, kernel, there, "", f"10.0.0.{count}")
        assert name == choose("wlc", kernel, there, "", "")


@given(kernels, servers(weights=st.integers(1, 9)), st.integers(0, 5))
def test_nq_is_sed_where_nobody_is_idle(kernel: str, there: tuple[Server, ...], more: int) -> None:
    busy = tuple(replace(server, active=server.active + 1 + more) for server in there)
    assert choose("nq", kernel, busy, "", "") == choose("sed", kernel, busy, "", "")


def begun(scheduler: str, kernel: str, there: tuple[Server, ...]) -> SimulatedService:
    service = SimulatedService(model_for(scheduler, kernel))
    for server in reversed(there):
        service = service.add(server)
    return service


def names_of(service: SimulatedService, count: int) -> list[str]:
    names = []
    for _ in range(count):
        name, service = service.connect()
        names.append(name)
    return names


@given(kernels, st.integers(1, 9), servers())
def test_wrr_with_equal_weights_is_a_rotation(kernel: str, weight: int, there: tuple[Server, ...]) -> None:
    equal = tuple(replace(server, weight=weight) for server in there)
    names = names_of(begun("wrr", kernel, equal), 2 * len(equal))
    assert names == [server.name for server in equal] * 2
    assert names == names_of(begun("rr", kernel, equal), 2 * len(equal))


@given(kernels, servers())
def test_a_cycle_of_wrr_is_shared_exactly_by_weight(kernel: str, there: tuple[Server, ...]) -> None:
    weights = {server.name: server.weight for server in there if server.weight}
    assume(weights)
    divisor = gcd(*weights.values())
    cycle = sum(weights.values()) // divisor
    names = names_of(begun("wrr", kernel, there), 3 * cycle)
    for start in range(2 * cycle):
        shares = Counter(names[start : start + cycle])
        # Wherever it begins: the state comes round.
        assert shares == {name: weight // divisor for name, weight in weights.items()}


@given(kernels, servers(weights=st.integers(1, 9), busy=False))
def test_finished_requests_to_wlc_are_shared_exactly_by_weight(
    kernel: str, there: tuple[Server, ...]
) -> None:
    weights = {server.name: server.weight for server in there}
    names = forecast(model_for("wlc", kernel).choose, there, 2 * sum(weights.values())).names
    assert Counter(names) == {name: 2 * weight for name, weight in weights.items()}


@given(kernels, servers(least=2), st.data())
def test_wrr_shares_by_weight_again_after_any_changes(
    kernel: str, there: tuple[Server, ...], data: st.DataObject
) -> None:
    service = begun("wrr", kernel, there)
    for _ in range(data.draw(st.integers(1, 4))):
        for _ in range(data.draw(st.integers(0, 9))):
            _, service = service.connect()
        name = data.draw(st.sampled_from([server.name for server in service.servers]))
        service = service.edit(name, data.draw(st.integers(0, 9)))
        if data.draw(st.booleans()):
            old = service.server(name)
            service = service.remove(name).add(old)
    weights = {server.name: server.weight for server in service.servers if server.weight}
    assume(weights)
    divisor = gcd(*weights.values())
    cycle = sum(weights.values()) // divisor
    # At most one incomplete cycle, and on 2.6.11 the refused connections of levels that nobody has.
    names = names_of(service, 3 * cycle + 10)[-2 * cycle :]
    assert Counter(names) == {name: 2 * weight // divisor for name, weight in weights.items()}


@given(st.sampled_from([model for model in MODELS if model[0] in ("dh", "sh", "mh")]), servers(), addresses)
def test_hashing_gives_the_same_answer_every_time(
    model: tuple[str, str], there: tuple[Server, ...], address: str
) -> None:
    quiet = tuple(replace(server, active=0) for server in there)
    assert (
        len(set(forecast(model_for(*model).choose, quiet, 5, client=address, destination=address).names))
        == 1
    )


@given(servers(weights=st.integers(1, 9)), addresses)
def test_mh_drains_without_moving_anybody(there: tuple[Server, ...], client: str) -> None:
    service = begun("mh", "6.1", there)
    before, _ = service.connect(client)
    after, _ = service.edit("0", 0).connect(client)
    assert after == (NOBODY if before == "0" else before)
