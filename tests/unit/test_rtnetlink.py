"""Requests to the kernel about a network, tried in network namespaces of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from lvslab.boot import namespaces, rtnetlink
from lvslab.boot.namespaces import CLONE_NEWNET
from lvslab.boot.rtnetlink import Conversation
from lvslab.errors import BootError

T = TypeVar("T")
Inside = Callable[[Callable[[], T]], T]

MAC = "02:4c:56:00:00:07"


@pytest.fixture
def inside() -> Iterator[Inside[Any]]:
    """Calls functions in a thread that has a network namespace of its own."""
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(namespaces.unshare, CLONE_NEWNET).result()
        except PermissionError:
            pytest.skip("a network namespace takes root")
        yield lambda function: thread.submit(function).result()


def ip(*words: str) -> list[dict[str, Any]]:
    """What ``ip`` sees in the namespace of the calling thread."""
    found = subprocess.run(["ip", "-json", "-details", *words], capture_output=True, check=True).stdout
    return list(json.loads(found or b"[]"))


def link(name: str) -> dict[str, Any]:
    (found,) = ip("link", "show", "dev", name)
    return found


def make_bridge() -> int:
    with Conversation() as kernel:
        kernel.ask([rtnetlink.bridge("lan")])
        return kernel.index("lan")


def make_cable() -> None:
    """A bridge and a cable whose card is in the same namespace."""
    here, lan = namespaces.own("net"), make_bridge()
    with Conversation() as kernel:
        kernel.ask([rtnetlink.cable("lan-7.0", lan, "eth0", MAC, here)])
    os.close(here)


def test_a_bridge_is_a_plain_switch_and_up(inside: Inside[Any]) -> None:
    inside(make_bridge)
    found = inside(lambda: link("lan"))
    assert "UP" in found["flags"]
    data = found["linkinfo"]["info_data"]
    assert (data["forward_delay"], data["stp_state"], data["mcast_snooping"]) == (0, 0, 0)


def test_a_cable_runs_from_the_bridge_to_a_card(inside: Inside[Any]) -> None:
    inside(make_cable)
    port, card = inside(lambda: (link("lan-7.0"), link("eth0")))
    assert (port["master"], port["linkinfo"]["info_kind"]) == ("lan", "veth")
    assert (card["address"], card["linkinfo"]["info_kind"]) == (MAC, "veth")
    assert (port["num_tx_queues"], card["num_rx_queues"]) == (1, 1)
    # The card's addresses come before it is up.
    assert ("UP" in port["flags"], "UP" in card["flags"]) == (True, False)


def test_a_card_in_another_namespace(inside: Inside[Any]) -> None:
    with ThreadPoolExecutor(1) as other:
        other.submit(namespaces.unshare, CLONE_NEWNET).result()
        there = other.submit(namespaces.own, "net").result()

        def connect() -> None:
            lan = make_bridge()
            with Conversation() as kernel:
                kernel.ask([rtnetlink.cable("lan-7.0", lan, "eth0", MAC, there)])

        inside(connect)
        os.close(there)
        assert other.submit(link, "eth0").result()["address"] == MAC
        assert {found["ifname"] for found in inside(lambda: ip("link"))} >= {"lan", "lan-7.0"}
        assert "eth0" not in {found["ifname"] for found in inside(lambda: ip("link"))}


def test_addresses_and_routes_are_those_that_ip_would_make(inside: Inside[Any]) -> None:
    inside(make_cable)

    def configure() -> None:
        with Conversation() as kernel:
            card = kernel.index("eth0")
            kernel.ask(
                [
                    rtnetlink.up("lo"),
                    rtnetlink.no_link_local("eth0"),
                    rtnetlink.address("10.0.1.7/22", card),
                    rtnetlink.address("fd00::7/64", card),
                    rtnetlink.up("eth0"),
                    rtnetlink.default_route("10.0.0.1", card),
                    rtnetlink.default_route("fd00::1", card),
                ]
            )

    inside(configure)
    (card,) = inside(lambda: ip("address", "show", "dev", "eth0"))
    shown = [(one["local"], one["prefixlen"], one["scope"]) for one in card["addr_info"]]
    # None of the kernel's own, and none that is still to be tried for a duplicate.
    assert shown == [("10.0.1.7", 22, "global"), ("fd00::7", 64, "global")]
    assert "tentative" not in card["addr_info"][1]
    assert "UP" in card["flags"]
    assert "UP" in inside(lambda: link("lo"))["flags"]
    for family, gateway in (("-4", "10.0.0.1"), ("-6", "fd00::1")):
        (route,) = inside(lambda family=family: ip(family, "route", "show", "default"))
        assert (route["gateway"], route["dev"], route["protocol"]) == (gateway, "eth0", "boot")


def test_a_port_that_is_there_is_plugged_in(inside: Inside[Any]) -> None:
    def plug() -> None:
        subprocess.run(["ip", "tuntap", "add", "dev", "lan-0.0", "mode", "tap"], check=True)
        lan = make_bridge()
        with Conversation() as kernel:
            kernel.ask([rtnetlink.plug("lan-0.0", lan)])

    if not os.path.exists("/dev/net/tun"):
        pytest.skip("a tap needs /dev/net/tun")
    inside(plug)
    tap = inside(lambda: link("lan-0.0"))
    assert tap["master"] == "lan"
    assert "UP" in tap["flags"]


def test_the_first_refusal_is_told_and_the_conversation_goes_on(inside: Inside[Any]) -> None:
    def ask() -> str:
        with Conversation() as kernel:
            many = [rtnetlink.bridge(f"b{number}") for number in range(100)]
            wrong = [rtnetlink.up("nothing"), rtnetlink.bridge("b7")]
            with pytest.raises(BootError) as caught:
                kernel.ask([*many[:50], *wrong, *many[50:]])
            # What was asked before the refusal is done, and no answer to it is left over.
            kernel.ask([rtnetlink.bridge("last")])
            return str(caught.value)

    said = inside(ask)
    assert said == "the kernel refuses what `ip link set nothing up` would ask for\n  No such device"
    names = {found["ifname"] for found in inside(lambda: ip("link"))}
    assert {"b0", "b49", "last"} <= names


def test_an_interface_that_is_not_there_has_no_number(inside: Inside[Any]) -> None:
    def index() -> int:
        with Conversation() as kernel:
            assert kernel.index("lo") == 1
            return kernel.index("nothing")

    with pytest.raises(OSError, match="No such device"):
        inside(index)


def test_requests_say_what_ip_would_be_told() -> None:
    assert rtnetlink.cable("lan-7.0", 3, "eth0", MAC, 9).words == "link add lan-7.0 type veth peer name eth0"
    assert rtnetlink.address("10.0.0.1/24", 2).words == "address add 10.0.0.1/24"
    assert rtnetlink.default_route("fd00::1", 2).words == "route add default via fd00::1"
