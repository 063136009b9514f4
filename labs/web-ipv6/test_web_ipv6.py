"""Masquerading and direct routing over IPv6, and neighbour discovery for an address of several machines."""

from __future__ import annotations

from contextlib import suppress

import pytest

from lvslab.check import examine, probes, verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.check.traffic.request import RequestFailed
from lvslab.errors import CheckFailed

MASQUERADED, ROUTED = "2001:db8:1::50", "2001:db8:1::60"
SERVICES = {address: f"[{address}]:80" for address in (MASQUERADED, ROUTED)}


def check_round(lab: Testbed, address: str, client: str = "", count: int = 9) -> None:
    """The servers take turns as the scheduler makes them, and client, logs and director count the same."""
    taken = lab.round(count=count, client=client, service=SERVICES[address])
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def mac_of(node: NodeUnderTest) -> str:
    (mac,) = examine.macs(node.output("ip -o link show dev eth0"))
    return mac


def neighbour(client: NodeUnderTest, address: str) -> str:
    """The hardware address that neighbour discovery of ``client`` finds for ``address``, "" for none."""
    client.execute("ip -6 neigh flush all")
    # The request ends when the discovery has succeeded or failed.
    with suppress(RequestFailed):
        client.get(f"http://[{address}]/")
    return probes.neighbour_mac(client.output(f"ip -6 neigh show {address}"))


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


@pytest.mark.parametrize("address", SERVICES)
def test_servers_take_turns_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...], address: str
) -> None:
    for client in clients:
        check_round(lab, address, client.name)


@pytest.mark.parametrize("address", SERVICES)
def test_servers_see_the_clients_addresses(lab: Testbed, address: str) -> None:
    taken = lab.round(count=4, service=SERVICES[address])
    verdict.sources_preserved(lab.clients[0].addresses, taken.sources, lab.directors[0].addresses)


def test_only_replies_by_masquerading_pass_the_director(lab: Testbed) -> None:
    for address, replies in ((MASQUERADED, True), (ROUTED, False)):
        service = SERVICES[address]
        before = lab.settled_reading()
        lab.clients[0].get(f"http://[{address}]/", 6)
        gained = lab.settled_reading().totals[service].since(before.totals[service])
        assert gained.connections == 6
        assert gained.packets_in >= 4 * 6, "a connection has four packets of the client at least"
        assert bool(gained.packets_out) == replies


@pytest.mark.parametrize("address", SERVICES)
def test_every_packet_is_sent_on_exactly(
    lab: Testbed, clients: tuple[NodeUnderTest, ...], address: str
) -> None:
    with lab.packets(SERVICES[address]) as seen:
        for client in clients:
            client.get(f"http://[{address}]/", 4)
    compared = seen.match()
    assert {flow.client[0] for flow in compared.flows} == {client.address for client in clients}
    # Of each connection, four packets of the client at least.
    assert len(compared.flows) == 8 and compared.pairs >= 32


def test_clients_find_the_director_for_both_addresses(lab: Testbed) -> None:
    for address in SERVICES:
        assert neighbour(lab.clients[0], address) == mac_of(lab.directors[0])


# --- what the checks must notice --------------------------------------------------------------------------


def test_a_director_that_does_not_forward_is_noticed(bare_lab: Testbed) -> None:
    """Direct routing works without forwarding."""
    bare_lab.apply(without=["forwarding=1"])
    with pytest.raises(CheckFailed, match="IPv6 forwarding is 0 on the director"):
        check_round(bare_lab, MASQUERADED)
    check_round(bare_lab, ROUTED)


def test_an_address_on_lo_is_not_announced(fresh_lab: Testbed) -> None:
    """Nobody answers for the address when only the loopback interfaces of the real servers have it."""
    fresh_lab.directors[0].execute(f"ip -6 addr del {ROUTED}/128 dev eth0")
    assert neighbour(fresh_lab.clients[0], ROUTED) == ""
    with pytest.raises(CheckFailed, match=f"the director does not have the address {ROUTED}"):
        check_round(fresh_lab, ROUTED)


def test_an_address_on_the_card_of_a_server_is_announced(fresh_lab: Testbed) -> None:
    """It gets the clients' packets without the director."""
    server, client = fresh_lab.node("real-server-3"), fresh_lab.clients[0]
    fresh_lab.directors[0].execute(f"ip -6 addr del {ROUTED}/128 dev eth0")
    server.execute(f"ip -6 addr del {ROUTED}/128 dev lo && ip -6 addr add {ROUTED}/128 dev eth0 nodad")
    assert neighbour(client, ROUTED) == mac_of(server)
    with pytest.raises(CheckFailed, match="real-server-3 answers neighbour solicitations for that address"):
        check_round(fresh_lab, ROUTED)


def test_a_server_without_the_virtual_address_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.node("real-server-4").execute(f"ip -6 addr del {ROUTED}/128 dev lo")
    with pytest.raises(CheckFailed, match=f"real-server-4 does not have the address {ROUTED}"):
        check_round(fresh_lab, ROUTED)
