from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lvslab.check.traffic.held import HeldConnections
from lvslab.check.traffic.http import Here, RequestFailed


@contextmanager
def web_server(name: str, *, hangs_up: bool = False) -> Iterator[tuple[int, list[str]]]:
    """A web server on loopback that keeps connections: its port, and what happened there."""
    happened: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            happened.append(f"GET from {self.client_address[0]}")
            if hangs_up:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("X-Real-Server", name)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def finish(self) -> None:
            super().finish()
            happened.append("end")

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # its end waits for them

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1], happened
        finally:
            server.shutdown()
            thread.join()


def test_a_connection_is_held_until_it_is_finished() -> None:
    with web_server("rs1") as (port, happened), HeldConnections(Here()) as held:
        first = held.open("127.0.0.1", port, source="127.0.0.7")
        second = held.open("127.0.0.1", port)
        assert (first.server, first.source_address) == ("rs1", "127.0.0.7")
        assert second.source_port != first.source_port
        assert first.ask() == "rs1"
        assert "end" not in happened
        first.finish()
        assert happened.count("GET from 127.0.0.7") == 3
        first.finish()
        assert happened.count("GET from 127.0.0.7") == 3
        assert second.ask() == "rs1"


def test_what_is_open_is_dropped_at_the_end() -> None:
    with web_server("rs1") as (port, happened), HeldConnections(Here()) as held:
        held.open("127.0.0.1", port)
        held.open("127.0.0.1", port)
    # The server has waited for both ends.
    assert happened.count("end") == 2


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with HeldConnections(Here()) as held, pytest.raises(RequestFailed) as failed:
        held.open("127.0.0.1", port)
    assert failed.value.kind == "refused"
    assert f"127.0.0.1:{port}" in failed.value.message


def test_a_server_that_does_not_answer() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        HeldConnections(Here()) as held,
        pytest.raises(RequestFailed) as failed,
    ):
        held.open("127.0.0.1", silent.getsockname()[1], seconds=0.05)
    assert failed.value.kind == "no-reply"


def test_a_server_that_hangs_up() -> None:
    with web_server("rs1", hangs_up=True) as (port, _), HeldConnections(Here()) as held:
        with pytest.raises(RequestFailed) as failed:
            held.open("127.0.0.1", port)
        assert failed.value.kind == "broken-off"


def test_an_address_that_the_client_does_not_have() -> None:
    with web_server("rs1") as (port, _), HeldConnections(Here()) as held:
        with pytest.raises(RequestFailed, match="failed") as failed:
            held.open("127.0.0.1", port, source="192.0.2.1")
        assert failed.value.kind == "other"
