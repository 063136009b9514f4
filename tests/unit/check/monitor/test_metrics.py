from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from lvslab.boot import control
from lvslab.check.monitor import metrics
from lvslab.errors import MachineError, StateError, UsageError
from tests.unit.check.monitor.monitored import Director, Lab, five, up

NAMES = ("connections", "incoming_packets", "outgoing_packets", "incoming_bytes", "outgoing_bytes")


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(control, "_peer_user", lambda _: 0)
    return f"unit-{secrets.token_hex(6)}"


def scrape(url: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The labels and values of all samples, by name; what is served must be what Prometheus reads."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 200
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def values(found: dict[str, list[tuple[dict[str, str], float]]], prefix: str) -> list[tuple[float, ...]]:
    """The five counters whose names begin so, one tuple for each set of labels."""
    columns = [[value for _, value in found[f"lvslab_ipvs_{prefix}{what}_total"]] for what in NAMES]
    return list(zip(*columns, strict=True))


@pytest.fixture
def director() -> Director:
    return Director(given=[3, 7])


@pytest.fixture
def url(name: str, director: Director) -> Iterator[str]:
    with up(name, Lab({"director": director})), metrics.served(name, 0) as url:
        yield url


def test_values_are_those_of_the_director_now(url: str, director: Director) -> None:
    for given in ([3, 7], [4, 9]):
        director.given = given
        found = scrape(url)
        assert values(found, "") == values(found, "service_") == [five(sum(given))]
        assert values(found, "server_") == [five(each) for each in given]
        assert [value for _, value in found["lvslab_ipvs_server_weight"]] == [1, 2]
        assert [value for _, value in found["lvslab_ipvs_server_active_connections"]] == [1, 1]
        assert [value for _, value in found["lvslab_ipvs_server_inactive_connections"]] == given


def test_labels_say_whose_they_are(url: str, name: str, director: Director) -> None:
    found = scrape(url)
    whose = {"lab": name, "director": "director"}
    service = whose | {"protocol": "tcp", "address": "192.0.2.1", "port": "80", "fwmark": ""}
    server = service | {"server": "real-server-2", "server_address": "10.0.0.101", "server_port": "80"}
    assert found["lvslab_lab_up"] == [({"lab": name}, 1)]
    assert found["lvslab_director_up"] == [(whose, 1)]
    assert found["lvslab_ipvs_connections_total"] == [(whose, 10)]
    assert found["lvslab_ipvs_service_connections_total"] == [(service, 10)]
    assert found["lvslab_ipvs_server_connections_total"][1] == (server, 7)
    assert found["lvslab_ipvs_service_info"] == [(service | {"scheduler": "wlc", "flags": ""}, 1)]
    assert found["lvslab_ipvs_server_info"][1] == (server | {"forwarding": "masquerading"}, 1)
    director.service = "FWM  7 IPv6"
    ((mark, _),) = scrape(url)["lvslab_ipvs_service_connections_total"]
    assert mark == whose | {"protocol": "fwmark-ipv6", "address": "", "port": "0", "fwmark": "7"}


def test_names_are_such_as_prometheus_wants(url: str) -> None:
    text = requests.get(url, timeout=10).text
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("lvslab_")
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
            assert family.name.endswith(tuple(NAMES))


def test_a_director_that_hangs_is_down_and_the_others_are_there(name: str) -> None:
    lab = Lab({"one": Director(given=[1, 1]), "two": Director(silent=True)})
    with up(name, lab), metrics.served(name, 0) as url:
        found = scrape(url)
        assert [(labels["director"], up) for labels, up in found["lvslab_director_up"]] == [
            ("one", 1),
            ("two", 0),
        ]
        assert [labels["director"] for labels, _ in found["lvslab_ipvs_connections_total"]] == ["one"]
        lab.directors["two"].silent = False
        assert [up for _, up in scrape(url)["lvslab_director_up"]] == [1, 1]


def test_a_lab_that_ends_is_down_until_it_comes_back(name: str) -> None:
    with up(name, Lab({"director": Director()})):
        served = metrics.served(name, 0)
        url = served.__enter__()
    try:
        found = scrape(url)
        assert found["lvslab_lab_up"] == [({"lab": name}, 0)]
        assert "lvslab_director_up" not in found
        with up(name, Lab({"another": Director()})):
            found = scrape(url)
            assert found["lvslab_lab_up"] == [({"lab": name}, 1)]
            assert [labels["director"] for labels, _ in found["lvslab_director_up"]] == ["another"]
    finally:
        served.__exit__(None, None, None)


def test_another_lab_of_the_same_name_between_two_scrapes(name: str) -> None:
    with up(name, Lab({"director": Director()})):
        served = metrics.served(name, 0)
        url = served.__enter__()
    try:
        with up(name, Lab({"another": Director()})):
            found = scrape(url)
            assert found["lvslab_director_up"] == [({"lab": name, "director": "another"}, 1)]
    finally:
        served.__exit__(None, None, None)


def test_only_loopback_listens_and_the_port_is_free_again(name: str) -> None:
    with up(name, Lab({"director": Director()})):
        with metrics.served(name, 0) as url:
            port = int(url.rpartition(":")[2].removesuffix("/metrics"))
            assert url == f"http://127.0.0.1:{port}/metrics"
            with pytest.raises(MachineError, match=f"cannot listen on 127.0.0.1 port {port}") as taken:
                metrics.served(name, port).__enter__()
            assert "Address already in use" in taken.value.message
            # Another address of this machine's own is not listened on.
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=5)
        with metrics.served(name, port) as url:
            assert scrape(url)


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port(name: str, port: int) -> None:
    with pytest.raises(UsageError, match=f"--port is {port}"), metrics.served(name, port):
        pytest.fail("it was served")


def test_no_lab(name: str) -> None:
    with pytest.raises(StateError, match=f"the lab '{name}' is not up"), metrics.served(name, 0):
        pytest.fail("it was served")
