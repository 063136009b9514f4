"""Visits to a web server of the test's own, on loopback; what chance and death make of them is the lab's."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from lvslab.check.traffic import visits
from lvslab.check.traffic.http import Here
from lvslab.check.traffic.visits import Visit, Visits
from lvslab.errors import CheckFailed
from tests.unit.check.traffic.test_http import header, page, serving


def made(*servers: str) -> Visits:
    """Visits that these servers answered; "" for one that failed."""
    return Visits(
        tuple(
            Visit(f"192.0.2.{number}", server, 0.1 * number, None if server else "no answer")
            for number, server in enumerate(servers, 1)
        )
    )


def owner(visit: Visit) -> str:
    return visit.server[:1]


def test_what_came_of_visits() -> None:
    some = made("a1", "b1", "", "a2")
    assert (len(some.answered), len(some.failed)) == (3, 1)
    assert some.by(owner) == {"a": 2, "b": 1}
    assert some.slowest == pytest.approx(0.4)
    assert made().slowest == 0


def test_failed_visits_are_counted_by_address() -> None:
    visits.all_answered(made("a1", "b1"))
    with pytest.raises(
        CheckFailed, match=r"2 of 3 visits failed: 1 to 192\.0\.2\.1, 1 to 192\.0\.2\.3"
    ) as caught:
        visits.all_answered(made("", "a1", ""))
    assert caught.value.hint == "no answer"


def test_even_shares() -> None:
    visits.shared_evenly(made("a1", "b1", "b2", "a2"), owner, ["a", "b"])
    for wrong, told in (
        (("a1", "a1", "a1", "b2"), "a 3, b 1, and each should have had 2"),
        (("a1", "b1", "b1", ""), "a 1, b 2, and each should have had 2"),
        (("a1", "a2", "b1", "c1"), "a 2, b 1, c 1, and each should have had 2"),
    ):
        with pytest.raises(CheckFailed, match=told):
            visits.shared_evenly(made(*wrong), owner, ["a", "b"])


def test_a_name_is_looked_up() -> None:
    assert visits.look_up("127.0.0.1", "IPv4") == ("127.0.0.1",)
    with pytest.raises(CheckFailed, match="getaddrinfo finds no address of"):
        visits.look_up("no such name", "IPv4")


def test_a_client_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen: connections are refused
        port = taken.getsockname()[1]
        monkeypatch.setattr(visits, "endpoint", lambda address, _: f"{address}:{port}")
        for at_once in (1, 3):
            some = visits.first_address(Here(), "127.0.0.1", 3, family="IPv4", timeout=1, at_once=at_once)
            assert [visit.address for visit in some.failed] == ["127.0.0.1"] * 3
            assert all("connection refused" in str(visit.failure) for visit in some.failed)
        chosen = iter(["127.0.0.1", "127.0.0.1"])
        assert len(visits.one_of(Here(), lambda: next(chosen), 2, timeout=1).failed) == 2


def test_requests_tries_the_addresses_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, port: int, *_: int) -> list[tuple[object, ...]]:
        assert host == "www.example.test"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (9, 1)]

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    with serving(page("rs1")) as (url, seen):
        monkeypatch.setattr(socket, "getaddrinfo", found)
        some = visits.by_requests(Here(), f"www.example.test:{url.split(':')[-1].rstrip('/')}", 2, timeout=1)
    assert [(visit.server, visit.address, visit.failure) for visit in some.all] == [("rs1", "", None)] * 2
    assert [header(head, "User-Agent").partition("/")[0] for head in seen] == ["python-requests"] * 2


def test_requests_without_an_answer() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen: connections are refused
        (visit,) = visits.by_requests(Here(), f"127.0.0.1:{taken.getsockname()[1]}", 1).failed
    assert (visit.server, visit.address) == ("", "")
    assert "Connection refused" in str(visit.failure)


def test_what_curl_says(monkeypatch: pytest.MonkeyPatch, program: Callable[[str, str], None]) -> None:
    program(
        "curl", "#!/bin/sh\nprintf 'HTTP/1.1 200 OK\\r\\nX-Real-Server: rs1\\r\\n\\r\\npage\\n192.0.2.1'\n"
    )
    (visit,) = visits.by_curl(Here(), "www.example.test", 1).all
    assert (visit.server, visit.address, visit.failure) == ("rs1", "192.0.2.1", None)
    program("curl", "#!/bin/sh\necho 'curl: (7) no way' >&2\nexit 7\n")
    (visit,) = visits.by_curl(Here(), "www.example.test", 1).failed
    assert visit.failure == "curl: (7) no way"
