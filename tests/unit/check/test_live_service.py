"""A live service whose director is a list of commands, and whose connections reach whom they are told to."""

from __future__ import annotations

from typing import cast

import pytest

from lvslab.apply.ssh import Executed
from lvslab.check.forwarding import Method
from lvslab.check.ipvs.director import ENTRIES
from lvslab.check.live_service import LiveService, Place
from lvslab.check.schedulers import NOBODY
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.held import HeldConnection, HeldConnections
from lvslab.check.traffic.http import RequestFailed
from lvslab.errors import CheckFailed
from tests.unit.fake_cluster import FakeCluster

SERVERS = {"one": "10.0.0.100", "two": "10.0.0.101"}
HEAD = (
    "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
)


class Director(FakeCluster):
    """A cluster that notes what is typed on its director, which lists ``counts`` of connections."""

    def __init__(self) -> None:
        super().__init__()
        self.typed: list[str] = []
        self.counts: dict[str, tuple[int, int]] = {}
        self.row = "TCP  66.199.240.50:9001 rr"
        self.entries = ""

    def execute(self, node: str, command: str, *, timeout: float | None = 30.0) -> Executed:
        assert node == "director"
        self.typed += command.split(" && ")
        return Executed(b"", b"", 0)

    def prints(self, node: str, command: str) -> str:
        assert node == "director"
        if command == ENTRIES:
            return self.entries
        assert command == "ipvsadm -Ln"
        rows = [f"  -> {SERVERS[name]}:80  Masq  1  {a}  {i}" for name, (a, i) in self.counts.items()]
        return HEAD + "\n".join([self.row, *rows]) + "\n"


class Connection:
    def __init__(self, server: str) -> None:
        self.server = server
        self.source_address, self.source_port = "66.199.240.10", 40000
        self.finished = self.dropped = False

    def finish(self) -> None:
        self.finished = True

    def close(self) -> None:
        self.dropped = True


class Held:
    """The servers that the next connections reach: "" refuses."""

    def __init__(self, *servers: str) -> None:
        self.servers = list(servers)
        self.asked: list[tuple[str, int, str]] = []
        self.made: list[Connection] = []

    def open(self, address: str, port: int, *, source: str = "") -> HeldConnection:
        self.asked.append((address, port, source))
        server = self.servers.pop(0)
        if not server:
            raise RequestFailed("refused", "", "connection refused")
        if server == "lost":
            raise RequestFailed("no-connection", "", "no answer")
        self.made.append(Connection(server))
        return cast(HeldConnection, self.made[-1])


def live_service(director: Director, held: Held, place: Place | None = None) -> LiveService:
    return LiveService(
        director,
        Testbed(director).node("director"),
        place or Place("66.199.240.50", 9001),
        SERVERS,
        cast(HeldConnections, held),
        kernel="6.1.176",
    )


def test_connections_of_an_earlier_service_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    director, paused = Director(), list[float]()
    director.counts = {"one": (0, 1)}
    director.entries = "TCP 00:07 TIME_WAIT 66.199.240.10:4 66.199.240.50:9001 10.0.0.100:80\n"

    def pause(seconds: float) -> None:
        paused.append(seconds)
        director.counts, director.entries = {"one": (0, 0)}, ""

    monkeypatch.setattr("time.sleep", pause)
    with live_service(director, Held("one")) as live:
        live.make("rr", {"one": 1})
        assert [server.inactive for server in live.model.servers] == [0]
    assert paused == [8.0]


def test_what_is_typed_and_what_the_model_makes_of_it() -> None:
    director, held = Director(), Held("two", "one", "two", "one", "one", "two")
    director.counts = {"one": (0, 0), "two": (0, 0)}
    with live_service(director, held) as live:
        live.make("rr", {"one": 1, "two": 3})
        live.connect(3, source="66.199.240.100")
        live.finish(0)
        live.edit("one", 2)
        live.connect()
        live.remove("two")
        live.connect()
        live.add("two", 1)
        live.schedule_by("lc")
        live.connect()
        # The connections of two outlast its removal: one of them is over.
        director.counts = {"one": (3, 0), "two": (2, 1)}
        live.check()
        assert live.observed == ["two", "one", "two", "one", "one", "two"]
        assert held.asked[0] == ("66.199.240.50", 9001, "66.199.240.100")
        assert [connection.finished for connection in held.made] == [True, *[False] * 5]
    option = "-t 66.199.240.50:9001"
    assert director.typed == [
        f"ipvsadm -A {option} -s rr",
        f"ipvsadm -a {option} -r 10.0.0.100:80 -m -w 1",
        f"ipvsadm -a {option} -r 10.0.0.101:80 -m -w 3",
        f"ipvsadm -e {option} -r 10.0.0.100:80 -m -w 2",
        f"ipvsadm -d {option} -r 10.0.0.101:80",
        f"ipvsadm -a {option} -r 10.0.0.101:80 -m -w 1",
        f"ipvsadm -E {option} -s lc",
        f"ipvsadm -D {option}",
    ]
    assert [connection.dropped for connection in held.made] == [False, *[True] * 5]


def test_a_refused_connection_went_to_nobody() -> None:
    director, held = Director(), Held("", "lost")
    director.counts = {"one": (0, 0)}
    with live_service(director, held) as live:
        live.make("sh", {"one": 0}, flags=["sh-port", "sh-fallback"])
        live.connect(source="66.199.240.100")
        assert live.observed == live.expected == [NOBODY]
        live.check()
        with pytest.raises(RequestFailed, match="no answer"):
            live.connect(source="66.199.240.100")
    assert director.typed[0] == "ipvsadm -A -t 66.199.240.50:9001 -s sh -b sh-port,sh-fallback"


def test_a_service_for_marked_packets() -> None:
    director, held = Director(), Held("one", "one")
    director.row, director.counts = "FWM  7 lblc", {"one": (0, 4)}
    with live_service(director, held, Place("66.199.240.64", 80, mark=7)) as live:
        live.make("lblc", {"one": 1})
        live.connect(to="66.199.240.65")
        live.connect()
        # Four connections of an earlier service of that mark.
        director.counts = {"one": (2, 4)}
        live.check()
        live.finish_all()
        director.counts = {"one": (0, 6)}
        live.check()
    assert [address for address, _, _ in held.asked] == ["66.199.240.65", "66.199.240.64"]
    assert director.typed[0] == "ipvsadm -A -f 7 -s lblc"


def test_another_server_than_the_models_is_noticed() -> None:
    director, held = Director(), Held("one", "two")
    director.counts = {"one": (0, 0), "two": (0, 0)}
    with live_service(director, held) as live:
        live.make("rr", {"one": 1, "two": 1}, thresholds={"two": 7})
        live.connect(2)
        with pytest.raises(CheckFailed, match="request 1 is the first"):
            live.check()
    assert director.typed[2] == "ipvsadm -a -t 66.199.240.50:9001 -r 10.0.0.101:80 -m -w 1 -x 7"


def test_other_connections_than_the_models_are_noticed() -> None:
    director, held = Director(), Held("one")
    director.counts = {"one": (0, 0)}
    with live_service(director, held) as live:
        live.make("rr", {"one": 1})
        live.connect()
        director.counts = {"one": (1, 1), "two": (0, 0)}
        with pytest.raises(CheckFailed) as failed:
            live.check()
    assert "one: 1 active and 0 inactive made, 1 active and 1 inactive on the director" in str(failed.value)
    assert "two: not there made, 0 active and 0 inactive on the director" in str(failed.value)


def test_before_it_is_made() -> None:
    director = Director()
    with live_service(director, Held()) as live, pytest.raises(CheckFailed, match="has not been made yet"):
        live.connect()
    assert director.typed == []


def test_a_forwarding_method_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lvslab.check.live_service.method_for", Method)
    director = Director()
    with pytest.raises(CheckFailed, match="lvslab has no model of tunneling yet"):
        LiveService(
            director,
            Testbed(director).node("director"),
            Place("66.199.240.50", 9001),
            SERVERS,
            cast(HeldConnections, Held()),
            kernel="6.1.176",
            forwarding="tunneling",
        )


# --- a scheduler that draws -------------------------------------------------------------------------------


def drawn(*servers: str) -> LiveService:
    """A service of two servers, of which the last one added has one connection that stays, and then the
    finished connections that went to ``servers``. So the idle one has 5 of 9 chances."""
    director, held = Director(), Held("two", *servers)
    director.counts = {"one": (0, 0), "two": (0, 0)}
    live = live_service(director, held)
    live.make("twos", {"one": 0, "two": 1})
    live.connect()
    live.edit("one", 1)
    for _ in servers:
        live.connect()
        live.finish(-1)
    director.counts = {"one": (0, servers.count("one")), "two": (1, servers.count("two"))}
    return live


def test_what_was_drawn_is_as_likely_as_the_model_says() -> None:
    live = drawn(*["one"] * 50, *["two"] * 40)
    live.check()
    assert live.expected == live.observed


@pytest.mark.parametrize("ones", [0, 10, 90])
def test_draws_that_are_not_likely(ones: int) -> None:
    with pytest.raises(CheckFailed, match=rf"of 90 connections: one {ones}, two {90 - ones}; the shares"):
        drawn(*["one"] * ones, *["two"] * (90 - ones)).check()


def test_a_server_of_weight_0_that_was_drawn() -> None:
    director, held = Director(), Held("two", "one")
    director.counts = {"one": (0, 0), "two": (0, 0)}
    with live_service(director, held) as live:
        live.make("twos", {"one": 0, "two": 1})
        live.connect(2)
        with pytest.raises(CheckFailed, match="some went where none should: one 1"):
            live.check()
