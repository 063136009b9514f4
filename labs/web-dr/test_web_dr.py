"""Direct routing: the director sees requests only, and nobody else answers ARP for the virtual address."""

from __future__ import annotations

import pytest

from lvslab.check import examine, probes, verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.errors import CheckFailed

VIP = "66.199.240.50"


def check_round(lab: Testbed, client: str = "", count: int = 9) -> None:
    """The servers take turns as wlc makes them, and client, logs and director count the same."""
    taken = lab.round(count=count, client=client)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def who_has(lab: Testbed, address: str) -> tuple[str, ...]:
    """The machines that answer the router's ARP request for ``address``."""
    router, *others = lab.node("router"), *lab.directors, *lab.real_servers
    hosts = {node.name: node.address for node in others}
    return probes.who_has(router.namespace, "eth1", router.addresses[1], address, hosts)


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_servers_take_turns_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    for client in clients:
        check_round(lab, client.name)


def test_only_the_director_answers_arp_for_the_virtual_address(lab: Testbed) -> None:
    assert who_has(lab, VIP) == ("director",)


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


def test_every_packet_is_sent_on_exactly(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    """Of a request nothing changes but the hardware addresses."""
    with lab.packets(f"{VIP}:80") as seen:
        for client in clients:
            client.get(f"http://{VIP}/", 4)
    compared = seen.match()
    assert {flow.client[0] for flow in compared.flows} == {client.address for client in clients}
    # Of each connection, four packets of the client at least.
    assert len(compared.flows) == 8 and compared.pairs >= 32


# --- what the checks must notice --------------------------------------------------------------------------


def test_the_arp_problem_is_noticed(bare_lab: Testbed) -> None:
    """Real servers that answer ARP get the clients' packets without the director."""
    bare_lab.apply(without=["arp_"])
    assert who_has(bare_lab, VIP) == ("director", "real-server-1", "real-server-2")
    router, server = bare_lab.node("router"), bare_lab.node("real-server-1")
    (mac,) = examine.macs(server.output("ip -o link show dev eth0"))
    router.execute(f"ip neigh replace {VIP} lladdr {mac} dev eth1")  # as if its answer were the last
    with pytest.raises(
        CheckFailed,
        match=r"router sends packets for 66\.199\.240\.50 to the hardware address of real-server-1",
    ):
        check_round(bare_lab)


def test_a_server_without_the_virtual_address_is_noticed(bare_lab: Testbed) -> None:
    bare_lab.apply(without=["dev lo"])
    assert who_has(bare_lab, VIP) == ("director",)
    with pytest.raises(CheckFailed, match=rf"real-server-1 does not have the address {VIP}"):
        check_round(bare_lab)


def test_a_director_without_the_virtual_address_is_noticed(bare_lab: Testbed) -> None:
    bare_lab.apply(without=["dev eth0"])
    assert who_has(bare_lab, VIP) == ()
    with pytest.raises(CheckFailed, match=rf"director does not have the address {VIP}"):
        check_round(bare_lab)


def test_a_server_with_the_wrong_gateway_is_noticed(fresh_lab: Testbed) -> None:
    """Its requests arrive, and its answers get lost."""
    fresh_lab.node("real-server-2").execute("ip route replace default via 66.199.240.254")
    with pytest.raises(CheckFailed, match=r"real-server-2's default route goes to 66\.199\.240\.254"):
        check_round(fresh_lab)
