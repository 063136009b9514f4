from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from lvslab.check.traffic import plain_http
from lvslab.check.traffic.plain_http import Answer, Reply
from tests.unit.check.here import Here

PAGE = b"HTTP/1.1 200 OK\r\nX-Real-Server: rs1\r\nContent-Length: 4\r\n\r\npage"


class Server:
    """Takes one connection, reads a request to its end, and does with it what the test says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.request = b""
        self._thread: threading.Thread | None = None

    def serve(self, reply: Callable[[socket.socket], None]) -> None:
        def once() -> None:
            connection, _ = self.listener.accept()
            with connection:
                while not self.request.endswith(b"\r\n\r\n"):
                    if not (part := connection.recv(4096)):
                        return
                    self.request += part
                reply(connection)

        self._thread = threading.Thread(target=once, daemon=True)
        self._thread.start()

    def ask(self, **options: object) -> Answer:
        port = self.listener.getsockname()[1]
        return plain_http.ask(Here(), "127.0.0.1", port, "id-1", patience=0.2, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        self.listener.close()
        if self._thread:
            self._thread.join(5)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def test_an_answer(server: Server) -> None:
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(path="/news")
    assert (answer.failure, answer.status, answer.server, answer.body) == (None, 200, "rs1", b"page")
    assert answer.source.startswith("127.0.0.1:")
    assert answer.began < answer.ended
    assert server.request.startswith(b"GET /news HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Request-ID: id-1\r\nConnection: close\r\n" in server.request


def test_an_answer_to_a_port_of_ones_choice(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(source_port=port)
    assert (answer.failure, answer.source) == (None, f"127.0.0.1:{port}")


def test_a_long_request_takes_its_time(server: Server) -> None:
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(seconds=0.3)
    assert answer.failure is None
    assert answer.ended - answer.began >= 0.3
    assert server.request.count(b"X-Slow: yes\r\n") >= 2


def test_a_long_request_ends_when_it_is_told_to(server: Server) -> None:
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(seconds=60.0, enough=lambda: True)
    assert answer.failure is None
    assert answer.ended - answer.began < 5


def test_an_error_of_the_server_is_a_failure_with_its_body(server: Server) -> None:
    server.serve(lambda connection: connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\nno such page"))
    answer = server.ask()
    assert (answer.failure, answer.status, answer.body) == ("status", 404, b"no such page")


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (b"", "broken-off"),
        (PAGE[:-1], "broken-off"),
        (b"HTTP/1.1 200 OK\r\nX-Real-Server: rs1\r\n", "broken-off"),
        (b"something else\r\n\r\n", "broken-off"),
    ],
)
def test_a_connection_that_ends_early(server: Server, said: bytes, how: str) -> None:
    server.serve(lambda connection: connection.sendall(said))
    assert server.ask().failure == how


@pytest.mark.parametrize(
    ("said", "how"), [(b"", "no-reply"), (PAGE[:-1], "broken-off"), (PAGE, "not-closed")]
)
def test_a_connection_that_does_not_end(server: Server, said: bytes, how: str) -> None:
    over = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.sendall(said)
        over.wait(5)

    server.serve(hold)
    answer = server.ask()
    over.set()
    assert answer.failure == how


def test_a_refused_connection(server: Server) -> None:
    server.listener.close()
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    answer = plain_http.ask(Here(), "127.0.0.1", port, "id-1")
    assert (answer.failure, answer.source, answer.server, answer.status) == ("refused", "", "", 0)


@pytest.mark.parametrize(
    ("error", "connected", "how"),
    [
        (TimeoutError("timed out"), False, "no-connection"),
        (OSError(errno.ETIMEDOUT, ""), True, "no-reply"),
        (OSError(errno.EHOSTUNREACH, ""), False, "unreachable"),
        (OSError(errno.ENETUNREACH, ""), False, "unreachable"),
        (OSError(errno.EPIPE, ""), True, "broken-off"),
        (OSError(errno.ECONNRESET, ""), True, "broken-off"),
        (OSError(errno.EMFILE, ""), False, "other"),
    ],
)
def test_how_a_request_failed(error: OSError, connected: bool, how: str) -> None:
    assert plain_http.reason(error, connected=connected, received=b"") == how


def test_a_reply() -> None:
    assert plain_http.parse(PAGE) == Reply(200, "rs1", 4, b"page")
    assert plain_http.parse(b"HTTP/1.0 204 No Content\r\n\r\n") == Reply(204, "", None, b"")
    assert plain_http.parse(PAGE[:30]) is None
    assert not Reply(200, "rs1", 5, b"page").whole
