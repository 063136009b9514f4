from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lvslab.check.traffic import greeting
from lvslab.check.traffic.request import RequestFailed
from lvslab.errors import CheckFailed


@contextmanager
def saying(*answers: bytes) -> Iterator[int]:
    """A server on loopback that says each of ``answers`` in turn, after a line, and then ends: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            stream, _ = listener.accept()
            with stream, stream.makefile("rb") as lines:
                for number, answer in enumerate(answers):
                    if number:
                        lines.readline()
                    stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join()


def test_a_greeting_names_the_server() -> None:
    with saying(b"220 rs1 ESMTP\r\n", b"250-rs1\r\n250 HELP\r\n", b"221 bye\r\n") as port:
        reply = greeting.ask_smtp("127.0.0.1", port, "id-1")
    assert (reply.server, reply.status, reply.body) == ("rs1", 220, "rs1 ESMTP")
    assert (reply.source_address, reply.request_id) == ("127.0.0.1", "id-1")


def test_it_says_quit_once() -> None:
    lines = list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            stream, _ = listener.accept()
            with stream, stream.makefile("rb") as read:
                for answer in (b"220 rs1 ESMTP\r\n", b"250 rs1\r\n", b"221 bye\r\n"):
                    stream.sendall(answer)
                    if not answer.startswith(b"221"):
                        lines.append(read.readline())
                stream.shutdown(socket.SHUT_WR)
                lines.extend(read)

        thread = threading.Thread(target=serve)
        thread.start()
        greeting.ask_smtp("127.0.0.1", listener.getsockname()[1], "id-1")
        thread.join()
    assert lines == [b"ehlo id-1\r\n", b"QUIT\r\n"]


def test_a_server_that_does_not_want_to_talk() -> None:
    with saying(b"554 rs1 no\r\n") as port, pytest.raises(RequestFailed) as caught:
        greeting.ask_smtp("127.0.0.1", port, "id-1")
    assert caught.value.kind == "other"
    assert caught.value.message == f"127.0.0.1:{port} greeted with 554 rs1 no"


@pytest.mark.parametrize("answers", [[], [b"220 rs1 ES"], [b"220 rs1 ESMTP\r\n"]])
def test_a_connection_that_breaks_off(answers: list[bytes]) -> None:
    with saying(*answers) as port, pytest.raises(RequestFailed) as caught:
        greeting.ask_smtp("127.0.0.1", port, "id-1")
    assert caught.value.kind == "broken-off"


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(RequestFailed) as caught:
        greeting.ask_smtp("127.0.0.1", listener.getsockname()[1], "id-1")
    assert caught.value.kind == "no-reply"


def test_a_machine_without_sctp(monkeypatch: pytest.MonkeyPatch) -> None:
    if greeting.sctp_here():
        pytest.skip("this machine's kernel has SCTP")
    with pytest.raises(CheckFailed, match="this machine's kernel does not have SCTP"):
        greeting.ask_sctp("127.0.0.1", 7, "id-1")
