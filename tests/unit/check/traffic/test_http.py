from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lvslab.check.traffic import ports
from lvslab.check.traffic.http import RequestFailed, get, new_request_id, requests_in_turn
from lvslab.errors import CheckFailed
from tests.unit.check.here import Here

Answer = Callable[[socket.socket, bytes], None]


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback that gives each connection's request to ``answer``: its URL and the requests."""
    seen: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.request.recv(65536)
            seen.append(head)
            answer(self.request, head)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", seen
        finally:
            server.shutdown()
            thread.join()


def page(name: str) -> Answer:
    def answer(connection: socket.socket, head: bytes) -> None:
        body = f"<p>{name}</p>".encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nX-Real-Server: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (name.encode(), len(body), body)
        )

    return answer


def header(head: bytes, name: str) -> str:
    lines = head.decode().split("\r\n")
    return next(line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name.lower()}: "))


def test_a_reply_names_the_server() -> None:
    with serving(page("real-server-1")) as (url, seen):
        reply = get(url)
    assert (reply.server, reply.status, reply.body) == ("real-server-1", 200, "<p>real-server-1</p>")
    assert reply.source_address == "127.0.0.1"
    assert 0 < reply.source_port < 65536
    assert 0 < reply.seconds < 5
    assert header(seen[0], "X-Request-ID") == reply.request_id
    assert header(seen[0], "Connection") == "close"


def test_a_proxy_of_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(page("real-server-1")) as (url, _):
        assert get(url).server == "real-server-1"


def test_each_request_has_its_own_connection_and_id() -> None:
    with serving(page("real-server-2")) as (url, seen):
        replies = requests_in_turn(Here(), url, 5)
    assert len({reply.source_port for reply in replies}) == 5
    assert len({reply.request_id for reply in replies}) == 5
    assert [header(head, "X-Request-ID") for head in seen] == [reply.request_id for reply in replies]
    assert [reply.request_id.rpartition("-")[2] for reply in replies] == ["0", "1", "2", "3", "4"]


def test_requests_come_from_fresh_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as free:
        taken, wanted = int(other.getsockname()[1]), int(free.getsockname()[1])
        free.close()
        given = iter([taken, wanted])
        monkeypatch.setattr(ports, "fresh", lambda: next(given))
        with serving(page("rs1")) as (url, _):
            reply = get(url)
    assert (reply.server, reply.source_port) == ("rs1", wanted)


def test_the_server_closes_first() -> None:
    order: list[str] = []

    def answer(connection: socket.socket, head: bytes) -> None:
        page("real-server-1")(connection, head)
        connection.settimeout(0.05)
        # The reply is whole, yet the client must keep its side open until ours is closed.
        try:
            order.append("client closed" if connection.recv(1) == b"" else "client sent more")
        except TimeoutError:
            order.append("client waits")

    with serving(answer) as (url, _):
        get(url)
    assert order == ["client waits"]


def test_any_status_is_a_reply() -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 503 Busy\r\n\r\nlater")

    with serving(answer) as (url, _):
        reply = get(url)
    assert (reply.server, reply.status, reply.body) == ("", 503, "later")


def test_connection_refused() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with pytest.raises(RequestFailed) as caught:
            get(f"http://127.0.0.1:{port}/")
    assert caught.value.kind == "refused"
    assert caught.value.message == f"connection refused by 127.0.0.1:{port}"
    assert "nothing listens there" in str(caught.value)
    assert isinstance(caught.value, CheckFailed)


def test_no_connection() -> None:
    # A listener whose queue is full drops the SYN, as a lost packet does.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        place = deaf.getsockname()
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(place)
            with pytest.raises(RequestFailed) as caught:
                get(f"http://127.0.0.1:{place[1]}/", connect_timeout=0.2)
        finally:
            for connection in waiting:
                connection.close()
    assert caught.value.kind == "no-connection"
    assert f"no answer from 127.0.0.1:{place[1]} within 0.2 s: the connection was never made" in str(
        caught.value
    )


def test_no_reply() -> None:
    done = threading.Event()
    with serving(lambda connection, head: void(done.wait(5))) as (url, _):
        with pytest.raises(RequestFailed) as caught:
            get(url, read_timeout=0.1)
        done.set()
    assert caught.value.kind == "no-reply"
    assert "within 0.1 s: the connection was made, but no reply came" in str(caught.value)


def test_half_a_reply() -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    with serving(answer) as (url, _), pytest.raises(RequestFailed) as caught:
        get(url)
    assert caught.value.kind == "broken-off"
    assert "broke off before the reply was whole" in str(caught.value)


def test_a_connection_that_stays_open() -> None:
    done = threading.Event()

    def answer(connection: socket.socket, head: bytes) -> None:
        page("real-server-1")(connection, head)
        done.wait(5)

    with serving(answer) as (url, _):
        with pytest.raises(RequestFailed) as caught:
            get(url, read_timeout=0.1)
        done.set()
    assert caught.value.kind == "not-closed"
    assert "did not close the connection within 0.1 s" in str(caught.value)


def test_the_failed_request_is_counted() -> None:
    turns = iter(range(5))

    def answer(connection: socket.socket, head: bytes) -> None:
        if next(turns) < 2:
            page("real-server-1")(connection, head)

    with serving(answer) as (url, _), pytest.raises(RequestFailed) as caught:
        requests_in_turn(Here(), url, 5)
    assert caught.value.message.startswith("request 3 of 5: the connection to 127.0.0.1:")
    assert [reply.server for reply in caught.value.before] == ["real-server-1"] * 2
    assert caught.value.request_id.endswith("-2")


def test_ids_are_unique() -> None:
    assert new_request_id(7) != new_request_id(7)


def void(_: object) -> None:
    return None
