"""A client keeps its server on all ports, until the server is drained or removed."""

from __future__ import annotations

import pytest

from lvslab.check import verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.errors import CheckFailed

VIP = "66.199.240.50"
URLS = (f"http://{VIP}/", f"http://{VIP}:8080/")
OTHER = {"real-server-1": "real-server-2", "real-server-2": "real-server-1"}


def server_of(client: NodeUnderTest) -> str:
    """The one server that answers the client on both ports. Raises CheckFailed."""
    names = {reply.server for url in URLS for reply in client.get(url, 2)}
    if len(names) != 1:
        raise CheckFailed(f"{client.name} has more than one server: {', '.join(sorted(names))}")
    return names.pop()


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_each_client_keeps_its_server_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...]
) -> None:
    for client in clients:
        taken = lab.round(count=6, client=client.name)
        verdict.sequence_matches(taken.forecast, taken.observed)
        verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
        verdict.sources_preserved(client.addresses, taken.sources, lab.directors[0].addresses)


def test_one_template_is_for_all_ports(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    for client in clients:
        server_of(client)
        known = [virtual for virtual, source in lab.reading().templates if source == f"{client.address}:0"]
        assert known == [f"{VIP}:0"]


def test_weight_0_and_expire_quiescent_template(fresh_lab: Testbed) -> None:
    """A client stays with a server of weight 0, unless the director is to forget such choices."""
    client, director = fresh_lab.clients[0], fresh_lab.directors[0]
    server = server_of(client)
    address = fresh_lab.node(server).address
    director.execute(f"ipvsadm -e -t {VIP}:0 -r {address}:0 -m -w 0")
    director.execute("sysctl -w net.ipv4.vs.expire_quiescent_template=0")
    assert server_of(client) == server
    director.execute("sysctl -w net.ipv4.vs.expire_quiescent_template=1")
    assert server_of(client) == OTHER[server]


def test_a_netmask_makes_one_client_of_a_network(fresh_lab: Testbed) -> None:
    first, second = fresh_lab.clients
    assert server_of(first) != server_of(second)
    fresh_lab.directors[0].execute(f"ipvsadm -E -t {VIP}:0 -s rr -p 300 -M 255.255.255.0")
    assert server_of(first) == server_of(second)
    assert (f"{VIP}:0", "66.199.240.0:0") in fresh_lab.reading().templates
    with pytest.raises(CheckFailed, match=r"255\.255\.255\.0"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)


@pytest.mark.parametrize("value", [0, 1])
def test_a_removed_server_loses_its_clients(fresh_lab: Testbed, value: int) -> None:
    """Templates of a removed server are void, whatever ``expire_nodest_conn`` is."""
    client, director = fresh_lab.clients[0], fresh_lab.directors[0]
    director.execute(f"sysctl -w net.ipv4.vs.expire_nodest_conn={value}")
    server = server_of(client)
    director.execute(f"ipvsadm -d -t {VIP}:0 -r {fresh_lab.node(server).address}:0")
    assert server_of(client) == OTHER[server]
    with pytest.raises(CheckFailed, match="is missing"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)
