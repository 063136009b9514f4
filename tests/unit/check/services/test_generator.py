"""The load generator for services that are not web servers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lvslab.check.services import generator
from lvslab.check.traffic import wrk
from lvslab.check.traffic.request import Reply
from lvslab.errors import CheckFailed
from lvslab.run import run


@contextmanager
def echo(silent: bool = False) -> Iterator[int]:
    """Serve UDP on loopback as the lab's servers do, or take datagrams without an answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                datagram, client = server.recvfrom(65535)
                if datagram == b"end":
                    return
                if not silent:
                    server.sendto(b"rs1\n" + datagram, client)

        thread = threading.Thread(target=serve)
        thread.start()
        port = int(server.getsockname()[1])
        try:
            yield port
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"end", ("127.0.0.1", port))
            thread.join()


def test_it_prints_what_wrk_prints() -> None:
    with echo() as port:
        done = run(generator.command("udp", "127.0.0.1", port, 1, 2))
    found = wrk.parse(done.stdout.decode())
    assert found.requests > 0 and found.bytes > 0
    assert found.seconds >= 1
    assert not any(found.errors.values())
    assert 0 < found.median <= found.slowest


def test_requests_under_way_at_the_end_are_neither_answers_nor_errors() -> None:
    with echo(silent=True) as port:
        found = generator.generate("udp", "127.0.0.1", port, 0.1, 2)
    assert found.requests == 0
    assert not any(found.errors.values())


def test_refused_requests_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = int(closed.getsockname()[1])
    found = generator.generate("udp", "127.0.0.1", port, 0.2, 1)
    assert found.requests == 0
    assert found.errors["connect"] > 0


def test_requests_that_this_machine_cannot_make_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(address: str, port: int, request_id: str) -> Reply:
        time.sleep(0.01)
        raise CheckFailed("clients cannot make SCTP associations")

    monkeypatch.setattr(generator, "CLIENTS", {"sctp": ask})
    found = generator.generate("sctp", "127.0.0.1", 7, 0.2, 1)
    assert found.requests == 0
    assert found.errors["connect"] > 1
