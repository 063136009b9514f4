from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from lvslab.check.probes import (
    GuestView,
    HostView,
    Route,
    _arp_answers,
    _arp_request,
    connect_from,
    is_silent,
    listens,
    parse_default_gateway,
    parse_route,
    probed,
    route_to,
)
from lvslab.check.traffic.http import Here
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.errors import CheckFailed
from tests.unit.fake_cluster import FakeCluster

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


class ThisMachine(FakeCluster):
    """This machine in the place of a lab whose every node is a virtual machine."""

    def observe(self, node: str, command: str) -> str:
        done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()


HERE = HostView(cast(NamespaceThread, Here()))


@contextmanager
def server() -> Iterator[int]:
    """The port of a web server that answers one request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_program_that_listens(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert listens(HERE, asked, port, "tcp")
        assert not listens(HERE, asked, port, "udp")
    assert not listens(HERE, asked, port, "tcp")
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind((address, 0))
        assert listens(HERE, asked, datagrams.getsockname()[1], "udp")


@pytest.mark.parametrize("error", ["Invalid argument", "Permission denied", "No route to host"])
def test_routes_that_lead_nowhere(error: str) -> None:
    class Seen:
        def output(self, command: str) -> str:
            return f"RTNETLINK answers: {error}\n"

    assert route_to(cast(Any, Seen()), "10.0.0.101") == Route("none")
    # With a source, it may be that which is wrong.
    assert route_to(cast(Any, Seen()), "10.0.0.101", "66.199.240.50") is None


def test_a_program_on_another_address() -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        assert not listens(HERE, "127.0.0.1", listener.getsockname()[1], "tcp")


def test_a_filter_that_rejects_is_no_closed_port() -> None:
    class Rejecting:
        def __init__(self, state: str) -> None:
            self.state = state

        def probe(self, address: str, port: int) -> str:
            return "refused"

        def read(self, file: str) -> str:
            if file == "/proc/net/tcp6":
                return ""
            assert file == "/proc/net/tcp"
            return f"  sl  local_address rem_address st\n   0: 00000000:0050 00000000:0000 {self.state} 0\n"

    assert probed(cast(Any, Rejecting("0A")), "10.0.0.100", 80, "tcp") == "rejected"
    assert probed(cast(Any, Rejecting("06")), "10.0.0.100", 80, "tcp") == "refused"
    assert probed(cast(Any, Rejecting("0A")), "10.0.0.100", 81, "tcp") == "refused"


@pytest.mark.parametrize(
    ("address", "only", "found"),
    [("::", False, True), ("::", True, False), ("::ffff:127.0.0.1", False, True)],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_ipv6_socket_may_be_for_ipv4_too(protocol: str, address: str, only: bool, found: bool) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6, kind) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        listener.bind((address, 0))
        if protocol == "tcp":
            listener.listen()
        assert listens(HERE, "127.0.0.1", listener.getsockname()[1], protocol) is found


def test_without_ss_nobody_is_blamed() -> None:
    class Old:
        def read(self, file: str) -> str:
            row = f"0: {'0' * 32}:0050 {'0' * 32}:0000 0A 0"
            return f"  sl  local_address rem_address st\n   {row}\n" if file == "/proc/net/tcp6" else ""

        def output(self, command: str) -> str:
            return "sh: ss: not found\n"

    assert listens(cast(Any, Old()), "10.0.0.100", 80, "tcp") is None


def test_sockets_of_sctp_are_not_looked_at() -> None:
    assert listens(HERE, "127.0.0.1", free_port(), "sctp") is None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def busybox(program: Any) -> None:
    """A program of that name that is an nc, as a guest's is among others."""
    script = """#!/usr/bin/python3
import socket, sys
try:
    with socket.create_connection((sys.argv[-2], int(sys.argv[-1])), 5) as there:
        there.sendall(sys.stdin.buffer.read())
        there.shutdown(socket.SHUT_WR)
        sys.stdout.buffer.write(there.recv(65536))
except OSError as error:
    sys.exit(f"nc: can't connect: {error}")
"""
    program("busybox", script)


def test_a_real_server_that_is_asked_directly() -> None:
    with server() as port:
        assert HERE.probe("127.0.0.1", port) == "answers"
    assert HERE.probe("127.0.0.1", free_port()) == "refused"


def test_a_virtual_machine_asks_itself(busybox: None) -> None:
    seen = GuestView(ThisMachine(), "rs1")
    with server() as port:
        assert seen.probe("127.0.0.1", port) == "answers"
    assert seen.probe("127.0.0.1", free_port()) == "refused"
    assert seen.probe("no-such-host.invalid", 80) == "no-answer"


def test_a_virtual_machine_connects(busybox: None) -> None:
    cluster = ThisMachine()
    with server() as port:
        connect_from(cluster, "rs1", "127.0.0.1", port)
    with pytest.raises(CheckFailed, match=r"rs1 cannot connect to 127\.0\.0\.1 port"):
        connect_from(cluster, "rs1", "127.0.0.1", free_port())


def test_routes_of_both_kinds_read_alike() -> None:
    file = "/proc/net/route"
    assert HERE.read(file).startswith("Iface\tDestination")
    assert GuestView(ThisMachine(), "rs1").read(file) == HERE.read(file)


def test_a_default_gateway() -> None:
    assert parse_default_gateway(ROUTES) == "10.0.0.1"
    heading, default, network = ROUTES.splitlines()
    assert parse_default_gateway(f"{heading}\n{network}\n") == ""
    assert parse_default_gateway("") == ""
    assert parse_default_gateway(f"{heading}\n{network}\n{default}\n") == "10.0.0.1"


def test_servers_of_other_kinds_are_asked_as_their_clients_do() -> None:
    here = cast(NamespaceThread, Here())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = int(server.getsockname()[1])

        def answer() -> None:
            datagram, client = server.recvfrom(100)
            server.sendto(b"rs1\n" + datagram, client)

        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(answer)
            assert HostView(here, "udp").probe("127.0.0.1", port) == "answers"
            answering.result()
    assert HostView(here, "udp").probe("127.0.0.1", port) == "refused"
    assert HostView(here, "gopher").probe("127.0.0.1", port) is None
    assert GuestView(FakeCluster(), "director", "udp").probe("127.0.0.1", port) is None


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("66.199.240.50 from 10.0.0.1 dev eth0 uid 0", Route("unicast")),
        (
            "198.51.100.10 from 66.199.240.50 via 66.199.240.1 dev eth0 uid 0",
            Route("unicast", "66.199.240.1"),
        ),
        ("198.51.100.10 via inet6 fe80::1 dev eth0 src 10.0.0.1", Route("unicast", "fe80::1")),
        ("local 66.199.240.50 dev lo src 66.199.240.50 uid 0\n    cache <local>", Route("local")),
        ("unreachable 10.9.9.9 dev lo src 10.0.0.1", Route("none")),
        ("RTNETLINK answers: Network is unreachable", Route("none")),
        ("RTNETLINK answers: Invalid argument", None),
        ("sh: ip: not found", None),
        ("", None),
    ],
)
def test_routes(text: str, route: Route | None) -> None:
    assert parse_route(text) == route


@pytest.mark.parametrize(
    ("text", "silent"),
    [
        ("10.0.0.1 dev eth0 lladdr 02:00:00:00:00:01 REACHABLE", False),
        ("10.0.0.1 dev eth0 FAILED", True),
        ("10.0.0.1 dev eth0 INCOMPLETE", True),
        ("", False),
    ],
)
def test_silent_neighbours(text: str, silent: bool) -> None:
    class Seen(HostView):
        def output(self, command: str) -> str:
            assert command == "ip neigh show 10.0.0.1"
            return text

    assert is_silent(Seen(cast(NamespaceThread, Here())), "10.0.0.1") is silent


MACS = {"a": bytes.fromhex("020000000001"), "b": bytes.fromhex("020000000002")}


def reply(mac: bytes, address: str) -> bytes:
    return (
        bytes(6) + mac + bytes.fromhex("0806" "0001" "0800" "06" "04" "0002")
        + mac + IPv4Address(address).packed + bytes(6) + IPv4Address("10.0.0.1").packed
    )  # fmt: skip


def test_a_request_is_a_broadcast_frame_as_rfc_826_has_it() -> None:
    frame = _arp_request(MACS["a"], "10.0.0.1", "10.0.0.9")
    assert frame.hex(" ", 2) == (
        "ffff ffff ffff 0200 0000 0001 0806 0001 0800 0604 0001"
        " 0200 0000 0001 0a00 0001 0000 0000 0000 0a00 0009"
    )


def test_answers_are_collected_until_every_host_has_answered_for_itself() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    frames = [
        b"short",
        _arp_request(MACS["b"], "10.0.0.2", "10.0.0.9"),
        reply(MACS["b"], "10.0.0.9"),
        reply(MACS["a"], "10.0.0.8"),
        reply(MACS["b"], "10.0.0.2"),
        reply(MACS["a"], "10.0.0.9"),
        reply(MACS["a"], "10.0.0.3"),
        reply(MACS["a"], "10.0.0.99"),
    ]
    sending = threading.Thread(target=lambda: [there.send(frame) for frame in frames])
    sending.start()
    asked = {"10.0.0.9", "10.0.0.2", "10.0.0.3"}
    answers = _arp_answers(here, asked, {"10.0.0.2", "10.0.0.3"})
    sending.join()
    assert {address: [*macs] for address, macs in answers.items()} == {
        "10.0.0.9": [MACS["b"], MACS["a"]],
        "10.0.0.2": [MACS["b"]],
        "10.0.0.3": [MACS["a"]],
    }
    here.close()
    there.close()
