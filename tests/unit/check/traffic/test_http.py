from __future__ import annotations

import errno
import ipaddress
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lvslab.boot.services.https import certificate
from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import http, ports
from lvslab.check.traffic.http import Attempt, Here, RequestFailed, get, new_request_id, requests_in_turn
from lvslab.errors import CheckFailed

Responder = Callable[[socket.socket, bytes], None]


@contextmanager
def serving(answer: Responder) -> Iterator[tuple[str, list[bytes]]]:
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


def page(name: str) -> Responder:
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


@pytest.mark.parametrize("size", [1, 5000, 30000])
def test_a_large_request_has_lines_that_servers_take(size: int) -> None:
    with serving(page("real-server-1")) as (url, seen):
        assert get(url, padding=size).server == "real-server-1"
        get(url)
    large, usual = seen
    assert size <= len(large) - len(usual) <= size + 1100 and len(large) < 32768
    assert max(map(len, large.split(b"\r\n"))) < 8192


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


def test_half_a_head_is_not_a_reply() -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Real-Server: real-server-1\r\n")

    with serving(answer) as (url, _), pytest.raises(RequestFailed) as caught:
        get(url)
    assert caught.value.kind == "broken-off"


def test_a_reply_that_stops_halfway_is_not_taken_for_silence() -> None:
    done = threading.Event()

    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        done.wait(5)

    with serving(answer) as (url, _):
        with pytest.raises(RequestFailed) as caught:
            get(url, read_timeout=0.1)
        done.set()
    assert caught.value.kind == "broken-off"


def test_a_url_that_is_not_of_http() -> None:
    for url in ("ftp://127.0.0.1/", "127.0.0.1"):
        with pytest.raises(RequestFailed, match="not an http URL"):
            get(url)


def test_the_path_and_the_query_are_asked_for() -> None:
    with serving(page("real-server-1")) as (url, seen):
        get(f"{url}a b/%20\u00e4?c=1&d")
        get(url.rstrip("/"))
    assert [head.split(b"\r\n")[0] for head in seen] == [
        b"GET /a%20b/%20%C3%A4?c=1&d HTTP/1.1",
        b"GET / HTTP/1.1",
    ]


def test_a_redirect_is_a_reply() -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    with serving(answer) as (url, seen):
        assert get(url).status == 302
    assert len(seen) == 1


def test_a_chunked_reply_is_put_together() -> None:
    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"2\r\npa\r\n2\r\nge\r\n0\r\n\r\n")

    with serving(answer) as (url, _):
        assert get(url).body == "page"


def test_the_addresses_of_a_name_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        assert host == "www.example.test"
        return [(socket.AF_INET, type, 6, "", (f"127.0.0.{last}", port)) for last in (9, 1)]

    with serving(page("real-server-1")) as (url, seen):
        monkeypatch.setattr(socket, "getaddrinfo", found)
        assert get(url.replace("127.0.0.1", "www.example.test")).server == "real-server-1"
        with pytest.raises(RequestFailed) as caught:
            get("http://www.example.test:1/", connect_timeout=1.0)
    assert header(seen[0], "Host").startswith("www.example.test:")
    assert caught.value.kind == "refused"


def test_a_name_without_an_address() -> None:
    with pytest.raises(RequestFailed) as caught:
        get("http://no such name/")
    assert caught.value.kind == "other"
    assert caught.value.message.startswith("the request to no such name:80 failed: ")


def test_ids_are_unique() -> None:
    assert new_request_id(7) != new_request_id(7)


def void(_: object) -> None:
    return None


# --- attempts ----------------------------------------------------------------------------------------------

PAGE = b"HTTP/1.1 200 OK\r\nX-Real-Server: rs1\r\nContent-Length: 4\r\n\r\npage"


class OneRequest:
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

    def ask(self, **options: object) -> Attempt:
        port = self.listener.getsockname()[1]
        return http.attempt(Here(), "127.0.0.1", port, "id-1", patience=0.2, **options)  # type: ignore[arg-type]

    def close(self) -> None:
        self.listener.close()
        if self._thread:
            self._thread.join(5)


@pytest.fixture
def server() -> Iterator[OneRequest]:
    server = OneRequest()
    yield server
    server.close()


@pytest.mark.parametrize("parts", [(PAGE + b"more",), (PAGE, b"more")], ids=["at-once", "later"])
def test_data_behind_a_whole_reply_are_noticed(server: OneRequest, parts: tuple[bytes, ...]) -> None:
    def reply(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)

    server.serve(reply)
    assert server.ask().failure == "broken-off"


def test_an_answer(server: OneRequest) -> None:
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(path="/news")
    assert (answer.failure, answer.status, answer.server, answer.body) == (None, 200, "rs1", b"page")
    assert answer.source.startswith("127.0.0.1:")
    assert answer.began < answer.ended
    assert server.request.startswith(b"GET /news HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Request-ID: id-1\r\nConnection: close\r\n" in server.request


def test_an_answer_to_a_port_of_ones_choice(server: OneRequest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(source_port=port)
    assert (answer.failure, answer.source) == (None, f"127.0.0.1:{port}")


def test_a_long_request_takes_its_time(server: OneRequest) -> None:
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(seconds=0.3)
    assert answer.failure is None
    assert answer.ended - answer.began >= 0.3
    assert server.request.count(b"X-Slow: yes\r\n") >= 2


def test_a_long_request_ends_when_it_is_told_to(server: OneRequest) -> None:
    server.serve(lambda connection: connection.sendall(PAGE))
    answer = server.ask(seconds=60.0, enough=lambda: True)
    assert answer.failure is None
    assert answer.ended - answer.began < 5


def test_an_error_of_the_server_is_a_failure_with_its_body(server: OneRequest) -> None:
    server.serve(lambda connection: connection.sendall(b"HTTP/1.1 404 Not Found\r\n\r\nno such page"))
    answer = server.ask()
    assert (answer.failure, answer.status, answer.body) == ("status", 404, b"no such page")


def test_a_reply_without_content(server: OneRequest) -> None:
    server.serve(lambda connection: connection.sendall(b"HTTP/1.0 204 No Content\r\n\r\n"))
    answer = server.ask()
    assert (answer.failure, answer.status, answer.server, answer.body) == ("status", 204, "", b"")


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (b"", "broken-off"),
        (PAGE[:-1], "broken-off"),
        (b"HTTP/1.1 200 OK\r\nX-Real-Server: rs1\r\n", "broken-off"),
        (b"something else\r\n\r\n", "broken-off"),
    ],
)
def test_a_connection_that_ends_early(server: OneRequest, said: bytes, how: str) -> None:
    server.serve(lambda connection: connection.sendall(said))
    assert server.ask().failure == how


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (b"", "no-reply"),
        (PAGE[:-1], "broken-off"),
        (PAGE, "not-closed"),
        (b"HTTP/1.1 200 OK\r\n\r\nof unknown length", "not-closed"),
    ],
)
def test_a_connection_that_does_not_end(server: OneRequest, said: bytes, how: str) -> None:
    over = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.sendall(said)
        over.wait(5)

    server.serve(hold)
    answer = server.ask()
    over.set()
    assert answer.failure == how


def test_a_refused_connection(server: OneRequest) -> None:
    server.listener.close()
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    answer = http.attempt(Here(), "127.0.0.1", port, "id-1")
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
    assert http.failure_kind(error, connected=connected) == how


# --- TLS and IPv6 -----------------------------------------------------------------------------------------


@contextmanager
def serving_tls(tmp_path: Path, tls: ssl.SSLContext, address: str) -> Iterator[int]:
    """A server over TLS that answers one request with a page: its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:

        def serve() -> None:
            with suppress(OSError):  # a client that refuses the certificate
                stream = tls.wrap_socket(listener.accept()[0], server_side=True)
                with stream:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += stream.recv(65536)
                    page("rs1")(stream, head)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's settings, with a certificate for 127.0.0.1 and ::1 in ``tmp_path``."""
    made, key = certificate("rs1", map(ipaddress.ip_address, ("127.0.0.1", "::1")))
    (tmp_path / "crt").write_text(made)
    (tmp_path / "key").write_text(key)
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    settings.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    return settings


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("verified", [False, True])
def test_a_request_over_tls(tmp_path: Path, tls: ssl.SSLContext, address: str, verified: bool) -> None:
    asked = ssl.create_default_context(cafile=str(tmp_path / "crt")) if verified else None
    with serving_tls(tmp_path, tls, address) as port:
        reply = get(f"https://{endpoint(address, port)}/", tls=asked)
    assert (reply.server, reply.status, reply.body) == ("rs1", 200, "<p>rs1</p>")
    assert reply.source_address == address


def test_a_certificate_of_somebody_else(tmp_path: Path, tls: ssl.SSLContext) -> None:
    with serving_tls(tmp_path, tls, "127.0.0.1") as port, pytest.raises(RequestFailed) as caught:
        get(f"https://127.0.0.1:{port}/", tls=ssl.create_default_context())
    assert caught.value.kind == "other"
    assert "certificate verify failed" in caught.value.message


def test_a_server_that_does_not_speak_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            stream = listener.accept()[0]
            stream.recv(65536)
            stream.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(RequestFailed) as caught:
            get(f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert caught.value.kind == "broken-off"


def test_an_ipv6_address_in_a_url() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:

        def serve() -> None:
            with listener.accept()[0] as stream:
                page("rs6")(stream, stream.recv(65536))

        thread = threading.Thread(target=serve)
        thread.start()
        reply = get(f"http://[::1]:{listener.getsockname()[1]}/")
        thread.join()
    assert (reply.server, reply.source_address) == ("rs6", "::1")
