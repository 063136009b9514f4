from __future__ import annotations

from hashlib import sha256
from itertools import cycle

import pytest

from lvslab.check import content
from lvslab.check.traffic import http
from lvslab.check.traffic.http import Attempt, Here, Place
from lvslab.errors import CheckFailed

SERVERS = ["rs1", "rs2", "rs3"]
ONE, TWO = (sha256(text).hexdigest() for text in (b"one", b"two"))


class Cluster:
    """Servers that take turns; ``files`` are each one's own, by path."""

    def __init__(self, files: dict[str, dict[str, bytes]], answering: list[str] = SERVERS) -> None:
        self.files = files
        self.turns = cycle(answering)
        self.asked: list[str] = []
        self.failure: http.Failure | None = None

    def ask(self, place: Place, address: str, port: int, request_id: str, *, path: str) -> Attempt:
        self.asked.append(path)
        server = next(self.turns)
        body = self.files[server].get(path)
        failure = self.failure or (None if body is not None else "status")
        return Attempt(
            request_id, "", server, 200 if body is not None else 404, body or b"gone", 0, 1, failure
        )


def look(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *paths: str) -> dict[str, dict[str, str]]:
    monkeypatch.setattr(http, "attempt", cluster.ask)
    return content.presented(Here(), "192.0.2.50", 80, paths, SERVERS)


def test_each_server_is_asked_for_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({server: {"/a": b"one", "/b": b"two"} for server in SERVERS})
    found = look(cluster, monkeypatch, "/a", "/b")
    assert found == {"/a": dict.fromkeys(SERVERS, ONE), "/b": dict.fromkeys(SERVERS, TWO)}
    assert cluster.asked == ["/a"] * 3 + ["/b"] * 3
    content.all_alike(found, "rs1", SERVERS)


def test_a_server_that_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {server: {"/a": b"one", "/b": b"two"} for server in SERVERS}
    files["rs2"] = {"/a": b"two"}
    found = look(Cluster(files), monkeypatch, "/a", "/b")
    with pytest.raises(CheckFailed) as noticed:
        content.all_alike(found, "rs1", SERVERS)
    assert noticed.value.message.splitlines() == [
        "the servers do not present the same content as rs1",
        f"  /a: rs2 has another one, {TWO[:12]}... instead of {ONE[:12]}...",
        "  /b: rs2 does not have it (status 404)",
    ]
    assert "has rsync been run on rs2 since" in str(noticed.value.hint)


def test_a_file_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {server: dict[str, bytes]() for server in SERVERS} | {"rs3": {"/old": b"one"}}
    found = look(Cluster(files), monkeypatch, "/old")
    with pytest.raises(CheckFailed, match=r"/old: rs3 has it, and rs1 does not have it \(status 404\)"):
        content.all_alike(found, "rs1", SERVERS)


def test_a_file_that_no_server_has() -> None:
    found = {"/a": {"rs1": "status 404", "rs2": "status 403"}}
    with pytest.raises(CheckFailed) as noticed:
        content.all_alike(found, "rs1", ("rs1", "rs2"))
    assert "  /a: rs2 says status 403, and rs1 does not have it (status 404)" in noticed.value.message


def test_a_server_that_is_never_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({server: {"/a": b"one"} for server in SERVERS}, ["rs1", "rs2"])
    found = look(cluster, monkeypatch, "/a")
    assert len(cluster.asked) == content.CATCHING_UP
    with pytest.raises(CheckFailed, match="/a: rs3 was never seen"):
        content.all_alike(found, "rs1", SERVERS)
    with pytest.raises(CheckFailed) as noticed:
        content.all_alike(found, "rs3", SERVERS)
    assert noticed.value.message.splitlines()[1:] == [
        "  /a: rs3 was never seen; does the director give it connections?"
    ]


def test_a_request_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({server: {"/a": b"one"} for server in SERVERS})
    cluster.failure = "refused"
    with pytest.raises(CheckFailed, match=r"a request for /a was not answered \(refused\)"):
        look(cluster, monkeypatch, "/a")


def test_nothing_to_compare() -> None:
    with pytest.raises(CheckFailed, match="no files to compare"):
        content.all_alike({}, "rs1", SERVERS)


def test_a_long_list_of_differences_is_cut() -> None:
    found = {f"/{number:02}": {"rs1": ONE, "rs2": TWO, "rs3": ONE} for number in range(20)}
    with pytest.raises(CheckFailed) as noticed:
        content.all_alike(found, "rs1", SERVERS)
    assert len(noticed.value.message.splitlines()) == 14
    assert noticed.value.message.endswith("and 8 more")


def test_paths() -> None:
    assert [*content.paths_of(["./b\n./a/c\n", "./b\n./d"])] == ["/a/c", "/b", "/d"]
