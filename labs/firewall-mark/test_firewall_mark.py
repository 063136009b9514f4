"""Ports 80 and 443 are one service: whoever has a server on one port has the same on the other."""

from __future__ import annotations

import pytest

from lvslab.check import verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.errors import CheckFailed

VIP = "66.199.240.50"
PAGES, TILL = f"http://{VIP}/", f"https://{VIP}/"
MARKED = {1: [(VIP, 80), (VIP, 443)]}


def check_round(lab: Testbed, client: str = "", count: int = 6) -> None:
    """The client keeps its server, and client, logs and director count the same."""
    taken = lab.round(count=count, client=client)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def servers_of(client: NodeUnderTest, url: str, count: int = 2) -> set[str]:
    """The servers that answer ``client`` at ``url``."""
    return {reply.server for reply in client.get(url, count)}


def check_both_ports(client: NodeUnderTest) -> None:
    """One server answers the client on both ports. Raises CheckFailed."""
    pages, till = servers_of(client, PAGES), servers_of(client, TILL)
    if len(pages | till) != 1:
        raise CheckFailed(
            f"{client.name} has more than one server: {', '.join(sorted(pages))} on port 80, "
            f"{', '.join(sorted(till))} on port 443"
        )


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_each_client_keeps_its_server_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    for client in clients:
        check_round(lab, client.name)


def test_one_server_answers_a_client_on_both_ports(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    for client in clients:
        check_both_ports(client)


def test_the_service_counts_the_connections_of_both_ports(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    client = clients[0]
    before = lab.settled_reading()
    (server,) = servers_of(client, PAGES, 3) | servers_of(client, TILL, 4)
    assert lab.connections_since(before) == {server: 7}


def test_there_is_one_template_for_both_ports(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    client = clients[0]
    check_both_ports(client)
    known = [virtual for virtual, source in lab.reading().templates if source == f"{client.address}:0"]
    assert known == ["0.0.0.1:0"]


def test_servers_see_the_clients_addresses(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    for client in clients:
        taken = lab.round(count=2, client=client.name)
        verdict.sources_preserved(client.addresses, taken.sources, lab.directors[0].addresses)


def test_every_packet_is_masqueraded_exactly(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    """The port stays what it was, as do all other fields but addresses, TTL and checksums."""
    with lab.packets("firewall mark 1", marked=MARKED) as seen:
        for client in clients:
            client.get(PAGES, 2)
            client.get(TILL, 2)
    compared = seen.match()
    assert {flow.client[0] for flow in compared.flows} == {client.address for client in clients}
    # Of each connection, at least three packets of the client and two of the server.
    assert len(compared.flows) == 8 and compared.pairs >= 40


# --- what the checks must notice --------------------------------------------------------------------------


def test_a_rule_for_one_port_only_is_noticed(bare_lab: Testbed) -> None:
    """Port 80 works, and port 443 is the director's own, where nothing listens."""
    bare_lab.apply(without=["--dport 443"])
    check_round(bare_lab)
    with pytest.raises(CheckFailed, match="refused"):
        check_both_ports(bare_lab.clients[0])


def test_packets_without_a_mark_are_noticed(bare_lab: Testbed) -> None:
    bare_lab.apply(without=["iptables"])
    with pytest.raises(CheckFailed, match="no rule of the director's mangle table"):
        check_round(bare_lab)


def test_a_service_without_persistence_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.directors[0].execute("ipvsadm -E -f 1 -s rr")
    with pytest.raises(CheckFailed, match="persisten"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)
    with pytest.raises(CheckFailed, match="client has more than one server: real-server-1, real-server-2"):
        check_both_ports(fresh_lab.clients[0])


def test_two_persistent_services_are_not_enough(fresh_lab: Testbed) -> None:
    """Each of them chooses by itself, so a client that only comes to one of them shifts the turns."""
    fresh_lab.directors[0].execute(
        "ipvsadm -C && for port in 80 443; do "
        f"ipvsadm -A -t {VIP}:$port -s rr -p 300; "
        f"ipvsadm -a -t {VIP}:$port -r 10.0.0.100 -m; "
        f"ipvsadm -a -t {VIP}:$port -r 10.0.0.101 -m; done"
    )
    first, second = fresh_lab.clients
    second.get(TILL)
    with pytest.raises(CheckFailed, match=r"has more than one server: .* on port 80, .* on port 443"):
        check_both_ports(first)
