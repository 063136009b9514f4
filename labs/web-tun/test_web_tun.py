"""Tunneling: the director puts requests into packets of its own, and real servers elsewhere unpack them."""

from __future__ import annotations

import pytest

from lvslab.check import verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.errors import CheckFailed

VIP = "66.199.240.50"


def check_round(lab: Testbed, client: str = "", count: int = 9) -> None:
    """The servers take turns as wlc makes them, and client, logs and director count the same."""
    taken = lab.round(count=count, client=client)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_servers_take_turns_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    for client in clients:
        check_round(lab, client.name)


def test_answers_do_not_pass_the_director(lab: Testbed) -> None:
    before = lab.settled_reading()
    lab.round(count=6)
    gained = lab.settled_reading().totals[f"{VIP}:80"].since(before.totals[f"{VIP}:80"])
    assert gained.connections == 6
    assert gained.packets_in >= 4 * 6, "a connection has four packets of the client at least"
    assert gained.packets_out == 0


def test_servers_see_the_clients_addresses(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    for client in clients:
        taken = lab.round(count=4, client=client.name)
        verdict.sources_preserved(client.addresses, taken.sources, lab.directors[0].addresses)


def test_every_packet_is_put_into_another_exactly(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    with lab.packets(f"{VIP}:80") as seen:
        for client in clients:
            client.get(f"http://{VIP}/", 4)
    compared = seen.match()
    assert {flow.client[0] for flow in compared.flows} == {client.address for client in clients}
    # Of each connection, four packets of the client at least.
    assert len(compared.flows) == 8 and compared.pairs >= 32


# --- what the checks must notice --------------------------------------------------------------------------


def test_a_server_without_a_tunnel_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.node("real-server-1").execute("ip link set tunl0 down")
    with pytest.raises(CheckFailed, match=r"real-server-1 has no tunnel interface of type ipip that is up"):
        check_round(fresh_lab)


def test_a_server_without_the_virtual_address_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.node("real-server-2").execute("ip link del vip")
    with pytest.raises(CheckFailed, match=rf"real-server-2 does not have the address {VIP}"):
        check_round(fresh_lab)
