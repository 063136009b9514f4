"""A UDP service: the director's memory of datagrams, one-packet scheduling, and removed servers."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lvslab.check import verdict
from lvslab.check.ipvs.table import endpoint
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.check.traffic import udp
from lvslab.check.traffic.request import Reply, RequestFailed
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue

VIP, PORT = "66.199.240.50", 5300
PLACE = f"{VIP}:{PORT}"
SERVICE = f"{PLACE} (udp)"
VOID = rf"(?s)no answer from {PLACE}.*still points to .*:{PORT}, a real server that was removed; .*conn is 0"
OTHER = {"real-server-1": "real-server-2", "real-server-2": "real-server-1"}


def check_round(lab: Testbed, client: str = "", count: int = 8) -> None:
    """The servers take turns, and client, logs and director count the same."""
    taken = lab.round(count=count, client=client)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def one_after_the_other(client: NodeUnderTest, count: int) -> tuple[Reply, ...]:
    """Replies to datagrams from one port of the client."""
    return udp.ask_from_one_port(client.namespace, VIP, PORT, count)


def entry_of(lab: Testbed, reply: Reply) -> str | None:
    """The server in the director's entry for the client's port, or None without an entry."""
    return lab.reading().entries.get(endpoint(reply.source_address, reply.source_port))


def remove(lab: Testbed, server: str) -> None:
    """Take a real server out of the table."""
    address = lab.node(server).address
    lab.directors[0].execute(f"ipvsadm -d -u {PLACE} -r {address}:{PORT}")


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_servers_take_turns_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    for client in clients:
        check_round(lab, client.name)


def test_servers_see_the_clients_addresses(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    for client in clients:
        taken = lab.round(count=2, client=client.name)
        verdict.sources_preserved(client.addresses, taken.sources, lab.directors[0].addresses)


def test_a_port_keeps_its_server_by_an_entry_of_the_director(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    replies = one_after_the_other(clients[0], 6)
    (server,) = {reply.server for reply in replies}
    assert entry_of(lab, replies[0]) == endpoint(lab.node(server).address, PORT)


def test_answers_do_not_pass_the_director(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    before = lab.settled_reading()
    one_after_the_other(clients[0], 6)
    gained = lab.settled_reading().totals[SERVICE].since(before.totals[SERVICE])
    assert (gained.connections, gained.packets_in, gained.packets_out) == (1, 6, 0)


def test_every_packet_is_sent_on_exactly(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    """Of a datagram nothing changes but the hardware addresses."""
    with lab.packets(SERVICE) as seen:
        for client in clients:
            one_after_the_other(client, 4)
    compared = seen.match()
    assert len(compared.flows) == 2 and compared.pairs == 8


# --- one-packet scheduling, and servers that go -----------------------------------------------------------


@pytest.mark.needs("ops")
def test_one_packet_scheduling_remembers_nothing(fresh_lab: Testbed) -> None:
    """Each datagram of one port is scheduled by itself, and counted as a connection."""
    fresh_lab.directors[0].execute(f"ipvsadm -E -u {PLACE} -s rr -o")
    before = fresh_lab.settled_reading()
    replies = one_after_the_other(fresh_lab.clients[0], 6)
    names = [reply.server for reply in replies]
    assert set(names) == set(OTHER)
    assert all(OTHER[one] == after for one, after in pairwise(names))
    assert entry_of(fresh_lab, replies[0]) is None
    assert fresh_lab.connections_since(before) == {"real-server-1": 3, "real-server-2": 3}
    with pytest.raises(CheckFailed, match="has one-packet scheduling; the steps say no one-packet"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)


def test_a_removed_server_is_a_black_hole_until_its_entries_expire(fresh_lab: Testbed) -> None:
    client, director = fresh_lab.clients[0], fresh_lab.directors[0]
    with client.namespace.call(udp.UdpSocket, VIP, PORT, seconds=2) as asking:
        server = client.namespace.call(asking.ask, "first").server
        own = endpoint(asking.source_address, asking.source_port)
        remove(fresh_lab, server)
        for number in (1, 2):
            with pytest.raises(RequestFailed, match=VOID) as failed, fresh_lab.explained(own):
                client.namespace.call(asking.ask, f"lost-{number}")
            assert failed.value.kind == "no-reply"
        # A port that the director does not know is scheduled.
        assert {reply.server for reply in one_after_the_other(client, 2)} == {OTHER[server]}

        director.execute("sysctl -w net.ipv4.vs.expire_nodest_conn=1")
        if catalogue.lacking(fresh_lab.cluster.versions["kernel"], "nodest_scheduled"):
            with pytest.raises(RequestFailed) as failed:
                client.namespace.call(asking.ask, "ends-the-entry")
            assert failed.value.kind == "no-reply"
        else:
            assert client.namespace.call(asking.ask, "ends-the-entry").server == OTHER[server]
        assert client.namespace.call(asking.ask, "again").server == OTHER[server]


# --- what the checks must notice --------------------------------------------------------------------------


def test_a_removed_server_is_noticed(fresh_lab: Testbed) -> None:
    remove(fresh_lab, "real-server-2")
    with pytest.raises(CheckFailed, match=r"66\.199\.240\.101:5300 .*is missing"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)
    with pytest.raises(CheckFailed, match="real-server-2 never answered"):
        check_round(fresh_lab)


def test_a_stopped_service_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.cluster.stop_service("real-server-1")
    says = r"(?s)request 2 of 8: .* refused the datagram.*nothing listens on .* of real-server-1"
    with pytest.raises(CheckFailed, match=says):
        check_round(fresh_lab)


def test_servers_without_the_virtual_address_are_noticed(bare_lab: Testbed) -> None:
    bare_lab.apply(without=["dev lo"])
    says = rf"(?s)request 1 of 8: no answer from {PLACE} within 5 s.*real-server-1 does not have .*{VIP}"
    with pytest.raises(CheckFailed, match=says):
        check_round(bare_lab)
