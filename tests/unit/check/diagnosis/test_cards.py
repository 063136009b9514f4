"""Cards that are down or too small, and addresses that duplicate address detection refused."""

from __future__ import annotations

from typing import Any, cast

from lvslab.check.diagnosis.cards import Card, causes, parse_links, refused_addresses
from lvslab.check.forwarding.facts import Finding
from tests.unit.fake_cluster import usual_lab

LINKS = """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN \\    link/loopback 00:00:00:00:00:00
2: eth0@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc x \\    link/ether 02:00:00:00:00:0a brd ff
3: eth1: <BROADCAST,MULTICAST> mtu 1400 qdisc x state DOWN \\    link/ether 02:00:00:00:00:0b brd ff:ff
"""


def found(links: str) -> list[Finding]:
    class Seen:
        def output(self, command: str) -> str:
            assert command == "ip -o link show"
            return links

    return [*causes(cast(Any, Seen()), "director", usual_lab().nodes["director"])]


def test_links_as_ip_prints_them() -> None:
    assert parse_links(LINKS) == (
        Card("lo", True, 65536, ""),
        Card("eth0", True, 1500, "02:00:00:00:00:0a"),
        Card("eth1", False, 1400, "02:00:00:00:00:0b"),
    )


def test_a_card_that_is_down() -> None:
    (finding,) = found(LINKS)
    assert finding.cause == "eth1 of director is down"
    assert found(LINKS.replace("MULTICAST> mtu 1400", "MULTICAST,UP> mtu 1400")) == []
    # A card of another name is not one of lab.yaml.
    assert found("4: gre0: <NOARP> mtu 68 qdisc noop state DOWN\n") == []


def test_an_mtu_below_what_tcp_may_send() -> None:
    (finding,) = found("2: eth0: <UP> mtu 295 \\    link/ether 02:00:00:00:00:0a\n")
    assert finding.cause.startswith("the MTU of eth0 of director is 295, so longer packets do not reach it")
    assert found("2: eth0: <UP> mtu 296 \\    link/ether 02:00:00:00:00:0a\n") == []


def test_addresses_that_another_machine_has() -> None:
    listing = """\
2: eth0    inet6 2001:db8:1::60/128 scope global dadfailed tentative \\       valid_lft forever
2: eth0    inet6 2001:db8:1::50/128 scope global \\       valid_lft forever preferred_lft forever
"""
    assert refused_addresses(listing) == {"2001:db8:1::60"}
