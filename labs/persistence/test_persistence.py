"""A client keeps its server on all ports, until it is forgotten, or the server is drained or removed."""

from __future__ import annotations

import time
from itertools import product

import pytest

from lvslab.check import verdict
from lvslab.check.ipvs.table import endpoint
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.check.traffic.held import HeldConnection, HeldConnections
from lvslab.check.traffic.request import RequestFailed
from lvslab.errors import CheckFailed

VIP = "66.199.240.50"
URLS = (f"http://{VIP}/", f"http://{VIP}:8080/")
OTHER = {"real-server-1": "real-server-2", "real-server-2": "real-server-1"}
SERVERS = ("10.0.0.100", "10.0.0.101")
STAYS, GOES = "the same server", "another server"
VOID = r"(?s).*still points to 10\.0\.0\.10[01]:80, a real server that was removed; .*conn is 0"
PROMISED = {
    # What is done to the server, expire_nodest_conn, expire_quiescent_template:
    # an open connection, the client's next connection.
    ("-w 0", 0, 0): ("goes on", STAYS),
    ("-w 0", 0, 1): ("goes on", GOES),
    ("-w 0", 1, 0): ("goes on", STAYS),
    ("-w 0", 1, 1): ("goes on", GOES),
    ("-d", 0, 0): ("no answer", GOES),
    ("-d", 0, 1): ("no answer", GOES),
    ("-d", 1, 0): ("reset", GOES),
    ("-d", 1, 1): ("reset", GOES),
}
"""The table of the how-to, line by line."""


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


def make_service(director: NodeUnderTest, options: str = "-p 300") -> None:
    """Make the service of the steps anew."""
    added = "; ".join(f"ipvsadm -a -t {VIP}:0 -r {server}:0 -m" for server in SERVERS)
    director.execute(f"ipvsadm -C; ipvsadm -A -t {VIP}:0 -s rr {options}; {added}")


def fate(lab: Testbed, connection: HeldConnection) -> str:
    """What becomes of an open connection when the client sends something."""
    try:
        with lab.explained(endpoint(connection.source_address, connection.source_port)):
            connection.ask()
    except RequestFailed as failed:
        if failed.kind == "no-reply":
            # The director has not forgotten it, and the message says why nothing comes.
            with pytest.raises(RequestFailed, match=VOID):
                raise
            return "no answer"
        return "reset" if failed.kind == "broken-off" else failed.kind
    return "goes on"


@pytest.mark.parametrize("done", ["-w 0", "-d"], ids=["weight 0", "removed"])
def test_a_server_that_takes_no_more_clients(fresh_lab: Testbed, done: str) -> None:
    """Both ways to take a server out of service, with every value of both settings."""
    client, director = fresh_lab.clients[0], fresh_lab.directors[0]
    seen = {}
    for nodest, quiescent in product((0, 1), (0, 1)):
        make_service(director)
        director.execute(
            f"sysctl -w net.ipv4.vs.expire_nodest_conn={nodest}"
            f" net.ipv4.vs.expire_quiescent_template={quiescent}"
        )
        server = server_of(client)
        place = f"-t {VIP}:0 -r {fresh_lab.node(server).address}:0"
        with HeldConnections(client.namespace) as held:
            connection = held.open(VIP, 80, seconds=1.5)
            assert connection.server == server
            director.execute(f"ipvsadm -d {place}" if done == "-d" else f"ipvsadm -e {place} -m -w 0")
            became = fate(fresh_lab, connection)
            seen[done, nodest, quiescent] = became, STAYS if server_of(client) == server else GOES
    assert seen == {line: promised for line, promised in PROMISED.items() if line[0] == done}
    with pytest.raises(CheckFailed, match="is missing" if done == "-d" else "the weight 0, not 1"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)


def test_a_client_is_forgotten_when_its_time_is_over(fresh_lab: Testbed) -> None:
    """The template goes when its time is over and it has no connection; then the scheduler is asked."""
    client, director = fresh_lab.clients[0], fresh_lab.directors[0]
    make_service(director, "-p 5")
    director.execute("ipvsadm --set 1 0 0")  # seconds until an idle connection is forgotten
    template = (f"{VIP}:0", f"{client.address}:0")
    with HeldConnections(client.namespace) as held:
        server = held.open(VIP, 80).server
        assert fresh_lab.reading().templates[template] == f"{fresh_lab.node(server).address}:0"
        # A template that still has a connection when its time is over is looked at again after 60 s.
        deadline = time.monotonic() + 90
        while template in fresh_lab.reading().templates:
            assert time.monotonic() < deadline, "the template is still there"
    assert server_of(client) == OTHER[server]
    with pytest.raises(CheckFailed, match="persistence of 5 s; the steps say persistence of 300 s"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)


def test_a_netmask_makes_one_client_of_a_network(fresh_lab: Testbed) -> None:
    first, second = fresh_lab.clients
    assert server_of(first) != server_of(second)
    fresh_lab.directors[0].execute(f"ipvsadm -E -t {VIP}:0 -s rr -p 300 -M 255.255.255.0")
    assert server_of(first) == server_of(second)
    assert (f"{VIP}:0", "66.199.240.0:0") in fresh_lab.reading().templates
    with pytest.raises(CheckFailed, match=r"255\.255\.255\.0"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)


@pytest.mark.needs("ipv6", "guest_ipv6")
def test_a_prefix_makes_one_client_of_an_ipv6_network(fresh_lab: Testbed) -> None:
    first, second = fresh_lab.clients
    director = fresh_lab.directors[0]
    six, elsewhere = "2001:db8:1::50", "2001:db8:1:2::11"
    added = "; ".join(f"ipvsadm -a -t [{six}]:0 -r [2001:db8:2::{number}]:0 -m" for number in (100, 101))
    director.execute("sysctl -w net.ipv6.conf.all.forwarding=1")
    director.execute(f"ipvsadm -A -t [{six}]:0 -s rr -p 300; {added}")
    second.execute(f"ip address add {elsewhere}/48 dev eth0 nodad")

    def server(client: NodeUnderTest, source: str) -> str:
        with HeldConnections(client.namespace) as held:
            connection = held.open(six, 80, source=source)
            connection.finish()
        return connection.server

    own = [(client, client.addresses[1]) for client in (first, second)]
    assert len({server(*each) for each in own}) == 2
    director.execute(f"ipvsadm -E -t [{six}]:0 -s rr -p 300 -M 64")
    assert len({server(*each) for each in own}) == 1
    assert server(second, elsewhere) == OTHER[server(*own[1])]
    networks = {source for virtual, source in fresh_lab.reading().templates if virtual == f"[{six}]:0"}
    assert networks >= {"[2001:db8:1:1::]:0", "[2001:db8:1:2::]:0"}
