"""When and how a round begins on a director that was in use before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from lvslab.check import schedulers
from lvslab.check.ipvs.listing import Connection
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.schedulers import Forecast, Server, model_for
from lvslab.check.services import start

WLC = model_for("wlc", "6.1")


def foresee(servers: Sequence[Server], count: int) -> Forecast:
    return schedulers.forecast(WLC.choose, servers, count)


def servers(one: int, two: int) -> list[Server]:
    """The second server has twice the first one's weight; the one added last comes first."""
    return [Server("two", 2, inactive=two), Server("one", 1, inactive=one)]


def test_an_idle_cluster_needs_no_request_before_a_round() -> None:
    assert start.leading(servers(0, 0), 12, foresee) == 0


def test_a_cluster_that_is_shared_by_weight_needs_none_either() -> None:
    assert start.leading(servers(960, 1920), 12, foresee) == 0


def test_requests_bring_a_cluster_to_the_shares_of_its_weights() -> None:
    uneven = servers(100, 180)
    ahead = start.leading(uneven, 12, foresee)
    # 20 more on the second server make both equal for their weights: 100 and 200.
    assert ahead is not None and 18 <= ahead <= 21
    names = foresee(uneven, ahead + 12).names[ahead:]
    assert (names.count("one"), names.count("two")) == (4, 8)


def test_too_uneven_a_cluster_is_not_brought_there_by_requests() -> None:
    assert start.leading(servers(1000, 0), 12, foresee) is None


def test_a_server_at_its_threshold_takes_part_again_when_its_connections_are_gone() -> None:
    full = [Server("two", 1, inactive=5, threshold=5, overloaded=True), Server("one", 1)]
    assert start.leading(full, 4, foresee) is None


def entry(server: str, expires: int, client: str = "192.0.2.9:40000") -> Connection:
    return Connection("tcp", "TIME_WAIT", client, "192.0.2.1:80", server, expires)


def test_only_connections_of_the_services_servers_count() -> None:
    (service,) = parse_rules("-A -t 192.0.2.1:80\n-a -t 192.0.2.1:80 -r 10.0.0.100:80 -m")
    own, template = entry("10.0.0.100:80", 9), entry("10.0.0.100:80", 9, "192.0.2.9:0")
    assert start.of_service([own, template, entry("10.0.0.101:80", 9)], service) == [own]


def test_a_round_waits_for_a_time_without_an_expiry() -> None:
    at = partial(entry, "10.0.0.100:80")
    known = [at(3), at(4), at(90), at(899)]
    assert start.delay(known, 2) == 0
    assert start.delay(known, 4) == 5
    assert start.delay(known, 100) == 91  # the one that is open does not expire
    assert start.delay(known, 2, all_gone=True) == 91
    assert start.delay([], 2, all_gone=True) == 0


def test_a_server_of_port_0_has_the_connections_of_every_port() -> None:
    (service,) = parse_rules("-A -f 3\n-a -f 3 -r 10.0.0.100:0 -g\n-a -f 3 -r 10.0.0.101:8080 -m")
    web, other = entry("10.0.0.100:80", 9), entry("10.0.0.100:443", 9)
    template = entry("10.0.0.100:0", 9, "192.0.2.9:0")
    masked = entry("10.0.0.101:8080", 9)
    connections = [web, other, template, masked, entry("10.0.0.101:80", 9), entry("10.0.0.102:80", 9)]
    assert start.of_service(connections, service) == [web, other, masked]
    (six,) = parse_rules("-A -f 3 -6\n-a -f 3 -6 -r [fd00::1]:0 -g")
    assert start.of_service([entry("[fd00::1]:80", 9)], six) == [entry("[fd00::1]:80", 9)]
