from __future__ import annotations

import socket

import pytest

from lvslab.check.traffic.clients import CLIENTS, ask_in_turn
from lvslab.check.traffic.request import Here, RequestFailed
from lvslab.check.traffic.udp import UdpSocket
from lvslab.errors import UsageError
from lvslab.lab.model import SERVICES
from tests.unit.check.traffic.test_udp import answering, echo


def test_every_kind_of_service_has_a_client() -> None:
    assert set(SERVICES) == set(CLIENTS)


def test_a_kind_without_a_client() -> None:
    with pytest.raises(UsageError, match="of kind gopher have no client\n  kinds that have: http, "):
        ask_in_turn("gopher", Here(), "127.0.0.1", 70, 1)


def test_a_kind_without_padding() -> None:
    with pytest.raises(UsageError, match="requests of kind udp have no padding"):
        ask_in_turn("udp", Here(), "127.0.0.1", 53, 1, padding=5)


def test_requests_in_turn_have_ports_and_ids_of_their_own() -> None:
    with answering(echo) as port:
        replies = ask_in_turn("udp", Here(), "127.0.0.1", port, 3)
    assert [reply.server for reply in replies] == ["rs1"] * 3
    assert len({reply.source_port for reply in replies}) == 3
    assert len({reply.request_id for reply in replies}) == 3


def test_the_first_failure_ends_the_round_and_says_which_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def twice(server: socket.socket, datagram: bytes, client: tuple[str, int]) -> None:
        seen.append(datagram)
        if len(seen) < 3:
            echo(server, datagram, client)

    monkeypatch.setitem(UdpSocket.__init__.__kwdefaults__, "seconds", 0.1)
    with answering(twice) as port, pytest.raises(RequestFailed, match="request 3 of 5: no answer") as caught:
        ask_in_turn("udp", Here(), "127.0.0.1", port, 5)
    assert [reply.server for reply in caught.value.before] == ["rs1", "rs1"]
