from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from lvslab.boot.relay import relayed

DEADLINE = 10.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """What was handed out; the TCP connection behind it, and that connection's other side."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname(), timeout=DEADLINE)
        server, _ = listener.accept()
    near = relayed(far, 10.0)
    for end in (near, server):
        end.settimeout(DEADLINE)
    with near, server:
        yield near, far, server
    for thread in threading.enumerate():
        if thread.name == "relay":
            thread.join(DEADLINE)
            assert not thread.is_alive()


Ends = tuple[socket.socket, socket.socket, socket.socket]


def received(end: socket.socket) -> bytes:
    """All that comes until the other side has said its last."""
    data = b""
    while part := end.recv(65536):
        data += part
    return data


def test_what_is_said_arrives_both_ways(ends: Ends) -> None:
    near, _, server = ends
    near.sendall(b"SSH-2.0-near")
    assert server.recv(100) == b"SSH-2.0-near"
    server.sendall(b"SSH-2.0-far")
    assert near.recv(100) == b"SSH-2.0-far"


def test_much_arrives_whole(ends: Ends) -> None:
    near, _, server = ends
    much = os.urandom(3_000_000)
    sender = threading.Thread(target=lambda: (server.sendall(much), server.shutdown(socket.SHUT_WR)))
    sender.start()
    assert received(near) == much
    sender.join(DEADLINE)


def test_one_side_may_have_said_its_last_and_go_on_listening(ends: Ends) -> None:
    near, _, server = ends
    near.sendall(b"question")
    near.shutdown(socket.SHUT_WR)
    assert received(server) == b"question"
    server.sendall(b"answer")
    server.close()
    assert received(near) == b"answer"


def test_what_is_handed_out_is_no_network_connection(ends: Ends) -> None:
    """So that who holds it holds no network namespace."""
    near, _, _ = ends
    assert near.family == socket.AF_UNIX


def test_it_hears_of_the_other_sides_end(ends: Ends) -> None:
    near, _, server = ends
    server.close()
    assert received(near) == b""


def test_a_kernel_that_is_silent_is_not_waited_for_in_vain(ends: Ends) -> None:
    """The kernel does the rest (tcp(7)): it asks when half of the time has passed, and gives up after it."""
    _, far, _ = ends
    tcp = socket.IPPROTO_TCP
    assert far.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert far.getsockopt(tcp, socket.TCP_KEEPIDLE) == 5
    assert far.getsockopt(tcp, socket.TCP_KEEPINTVL) == 2
    assert far.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 10_000
    assert far.getsockopt(tcp, socket.TCP_NODELAY) == 1
