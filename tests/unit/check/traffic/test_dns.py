"""Clients of a name server: verdicts as text, and questions to a server of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rcode
import dns.rrset
import pytest

from lvslab.check.traffic import dns as names
from lvslab.check.traffic.dns import DnsAnswer
from lvslab.check.traffic.http import Here
from lvslab.errors import CheckFailed

RECORDS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
OWNERS = {"192.0.2.1": "one", "192.0.2.2": "two", "192.0.2.3": "three"}


class Server:
    """A name server on loopback whose answers are rotated; it knows www.example.test and its SOA."""

    def __init__(self) -> None:
        self.asked, self.ttl, self.rcode, self.serial = 0, 60, dns.rcode.NOERROR, 7
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            said, client = self._socket.recvfrom(512)
            if not said:
                return
            query = dns.message.from_wire(said)
            reply = dns.message.make_response(query)
            reply.set_rcode(self.rcode)
            name = query.question[0].name.to_text()
            if name == "example.test.":
                soa = f"ns.example.test. h.example.test. {self.serial} 1 1 1 1"
                reply.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "SOA", soa))
            elif name == "www.example.test." and self.rcode == dns.rcode.NOERROR:
                start = self.asked % 3
                served = RECORDS[start:] + RECORDS[:start]
                reply.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "A", *served))
                self.asked += 1
            self._socket.sendto(reply.to_wire(want_shuffle=False), client)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def test_answers_are_as_they_were_served(server: Server) -> None:
    answers = names.ask_in_turn(Here(), "127.0.0.1", "www.example.test", ["A"] * 5, port=server.port)
    assert [answer.addresses[0] for answer in answers] == [RECORDS[n % 3] for n in range(5)]
    assert {answer.ttl for answer in answers} == {60}
    names.rotation_holds(answers)
    names.records_match(OWNERS, answers[2])


def test_a_name_without_records(server: Server) -> None:
    answer = names.ask("127.0.0.1", "nobody.example.test", port=server.port)
    assert answer == DnsAnswer("A", (), 0)


def test_a_server_that_cannot(server: Server) -> None:
    server.rcode = dns.rcode.SERVFAIL
    with pytest.raises(CheckFailed, match="answered SERVFAIL for www"):
        names.ask("127.0.0.1", "www.example.test", port=server.port)


def test_a_server_that_is_not_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = int(silent.getsockname()[1])
        with pytest.raises(CheckFailed, match=r"no answer from the name server 127\.0\.0\.1 when asked"):
            names.ask("127.0.0.1", "www.example.test", port=port, timeout=0.05)
        assert names.serial("127.0.0.1", "example.test", port=port, timeout=0.05) is None


def test_the_serial_of_a_zone(server: Server) -> None:
    assert names.serial("127.0.0.1", "example.test", port=server.port) == 7
    assert names.serial("127.0.0.1", "www.example.test", port=server.port) is None


def test_a_resolver_keeps_an_answer_until_its_ttl_has_passed(server: Server) -> None:
    server.ttl = 1
    resolver = names.CachingResolver(Here(), "127.0.0.1", port=server.port)
    kept = resolver.addresses("www.example.test")
    begun, ended = resolver.since
    assert begun <= ended
    assert {resolver.addresses("www.example.test") for _ in range(5)} == {kept}
    assert (server.asked, resolver.since) == (1, (begun, ended))
    server.ttl = 0
    other = names.CachingResolver(Here(), "127.0.0.1", port=server.port)
    assert len({other.addresses("www.example.test") for _ in range(3)}) == 3


def test_a_name_that_a_resolver_does_not_find(server: Server) -> None:
    with pytest.raises(CheckFailed, match="the resolver has no A records of nobody"):
        names.CachingResolver(Here(), "127.0.0.1", port=server.port).addresses("nobody.example.test")


def answers(*firsts: int) -> list[DnsAnswer]:
    return [DnsAnswer("A", RECORDS[first:] + RECORDS[:first], 3) for first in firsts]


def test_a_rotation_may_begin_anywhere() -> None:
    names.rotation_holds(answers(2, 0, 1, 2, 0))


@pytest.mark.parametrize(("firsts", "number"), [((0, 0), 2), ((0, 1, 0), 3), ((0, 2), 2), ((1, 2, 0, 2), 4)])
def test_an_order_that_is_none(firsts: tuple[int, ...], number: int) -> None:
    with pytest.raises(CheckFailed, match=f"answer {number} does not begin one record further"):
        names.rotation_holds(answers(*firsts))


def test_one_counter_for_all_kinds() -> None:
    six = DnsAnswer("AAAA", ("::1", "::2", "::3"), 3)
    a = answers(0, 2, 1)
    names.rotation_holds([a[0], six, a[1], DnsAnswer("AAAA", ("::3", "::1", "::2"), 3), a[2]])
    with pytest.raises(CheckFailed, match="answer 3 does not"):
        names.rotation_holds([a[0], six, answers(1)[0]])


def test_two_records_and_two_kinds_stand_still() -> None:
    two, six = DnsAnswer("A", RECORDS[:2], 3), DnsAnswer("AAAA", ("::1", "::2"), 3)
    names.rotation_holds([two, six, two, six, two])


def test_missing_and_wrong_records() -> None:
    with pytest.raises(CheckFailed) as caught:
        names.records_match(OWNERS, DnsAnswer("A", ("192.0.2.9", "192.0.2.1", "192.0.2.3"), 3))
    assert caught.value.message == (
        "there is no A record for 192.0.2.2, two; "
        "there is an A record for 192.0.2.9, and no director has that address"
    )
    names.records_match(OWNERS, DnsAnswer("A", RECORDS[::-1], 3))
