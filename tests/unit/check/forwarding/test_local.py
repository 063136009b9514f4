"""A real server that is the director itself."""

from __future__ import annotations

import pytest

from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.flow import Way
from tests.unit.check.forwarding.frames import Wire, ipv4, tcp

CLIENT, VIP, OWN = "66.199.240.10", "66.199.240.50", "10.0.0.1"


class Own(Wire):
    """A director that has the destination's address itself."""

    def way_to(self, address: str) -> Way:
        return Way("lo", "", "", OWN) if address == OWN else super().way_to(address)


@pytest.fixture(params=["-g", "-i", "-m"])
def wire(request: pytest.FixtureRequest) -> Own:
    made = Own(f"-A -t {VIP}:80\n-a -t {VIP}:80 -r {OWN}:80 {request.param}\n")
    made.arrives(ipv4(CLIENT, VIP, tcp(CLIENT, VIP, (40000, 80), b"a request")))
    return made


def reply(source: str, port: int) -> bytes:
    return ipv4(source, CLIENT, tcp(source, CLIENT, (port, 40000), b"its reply"))


def test_nothing_is_sent_on_and_the_reply_is_the_services(wire: Own) -> None:
    wire.goes_out(reply(VIP, 80))
    assert wire.compared().mismatches == ()


def test_a_reply_from_another_address_is_noticed(wire: Own) -> None:
    wire.goes_out(reply(OWN, 80))
    assert wire.differences() == [f"ip.src: expected {VIP}, seen {OWN}"]


def test_a_request_that_is_sent_on_is_noticed(wire: Own) -> None:
    wire.goes_in(ipv4(CLIENT, VIP, tcp(CLIENT, VIP, (40000, 80), b"a request"), ttl=63))
    assert wire.differences() == ["packet: expected none, seen one"]


def test_its_properties() -> None:
    method = method_for("local")
    assert method.unforeseen == "" and not method.vip_on_real_servers and not method.replies_pass_director
