from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lvslab.check.traffic import udp
from lvslab.check.traffic.request import Here, RequestFailed
from lvslab.check.traffic.udp import UdpSocket

Answerer = Callable[[socket.socket, bytes, tuple[str, int]], None]


@contextmanager
def answering(answer: Answerer, address: str = "127.0.0.1") -> Iterator[int]:
    """A server on loopback that gives each datagram to ``answer``: its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((address, 0))
        port = int(server.getsockname()[1])

        def serve() -> None:
            while (got := server.recvfrom(65535))[0] != b"end":
                answer(server, *got)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield port
        finally:
            with socket.socket(family, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", (address, port))
            thread.join()


def echo(server: socket.socket, datagram: bytes, client: tuple[str, int]) -> None:
    server.sendto(b"rs1\n" + datagram, client)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_answer_names_the_server(address: str) -> None:
    with answering(echo, address) as port:
        reply = udp.ask(address, port, "id-7")
    assert (reply.server, reply.body, reply.request_id) == ("rs1", "id-7", "id-7")
    assert reply.source_address == address
    assert 6000 <= reply.source_port < 32000


def test_one_port_for_all_datagrams() -> None:
    with answering(echo) as port:
        replies = udp.ask_from_one_port(Here(), "127.0.0.1", port, 3)
    assert len({reply.source_port for reply in replies}) == 1
    assert [reply.request_id.rpartition("-")[2] for reply in replies] == ["0", "1", "2"]


def test_a_closed_port_refuses() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(RequestFailed) as caught:
        udp.ask("127.0.0.1", port, "id-1")
    assert caught.value.kind == "refused"
    assert caught.value.message == f"127.0.0.1:{port} refused the datagram: the port is closed"


def test_no_answer() -> None:
    with (
        answering(lambda *_: None) as port,
        UdpSocket("127.0.0.1", port, seconds=0.05) as asking,
        pytest.raises(RequestFailed) as caught,
    ):
        asking.ask("id-1")
    assert caught.value.kind == "no-reply"
    assert caught.value.message == f"no answer from 127.0.0.1:{port} within 0.05 s"


def test_an_answer_from_another_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.2", 0))
        theirs = own.getsockname()[1]

        def elsewhere(server: socket.socket, datagram: bytes, client: tuple[str, int]) -> None:
            own.sendto(b"rs1\n" + datagram, client)

        with answering(elsewhere) as port, pytest.raises(RequestFailed) as caught:
            udp.ask("127.0.0.1", port, "id-1")
    assert caught.value.kind == "other-source"
    assert caught.value.message == f"127.0.0.1:{port} was asked, and the answer came from 127.0.0.2:{theirs}"


def test_a_late_answer_is_not_taken_for_another() -> None:
    def late(server: socket.socket, datagram: bytes, client: tuple[str, int]) -> None:
        server.sendto(b"rs2\nid-0\n", client)
        echo(server, datagram, client)

    with answering(late) as port:
        assert udp.ask("127.0.0.1", port, "id-1").server == "rs1"


def test_an_address_without_a_route() -> None:
    with pytest.raises(RequestFailed) as caught:
        udp.ask("no-such-host.invalid", 53, "id-1")
    assert caught.value.kind == "other"
