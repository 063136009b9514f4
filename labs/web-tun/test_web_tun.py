"""Tunneling: the director puts requests into packets of its own, and real servers elsewhere unpack them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lvslab.check import rounds, verdict
from lvslab.check.forwarding.icmp import refusal_in
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.check.traffic import http
from lvslab.errors import CheckFailed

VIP = "66.199.240.50"
SERVICE = f"{VIP}:80"
LARGE = 20_000
"""Bytes of a large request: some 15 packets of full size."""
HEADERS = {"ipip": 20, "gue": 20 + 8 + 4, "gre": 20 + 4}
"""Lengths of the headers that the director puts before a client's packet."""
NEEDS = {kind: (f"tunnel_{kind}", "ipvsadm_tunnel_types") for kind in ("gue", "gre")}
TYPES = ["ipip", *(pytest.param(kind, marks=pytest.mark.needs(*needs)) for kind, needs in NEEDS.items())]
FENCE = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def check_round(lab: Testbed, client: str = "", count: int = 9, padding: int = 0) -> None:
    """The servers take turns as wlc makes them, and client, logs and director count the same."""
    taken = lab.round(count=count, client=client, padding=padding)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def example(text: str) -> str:
    """The commands of the how-to with ``text`` that are not typed when the lab starts."""
    found = FENCE.findall(Path(__file__).with_name("howto.md").read_text(encoding="utf-8"))
    (commands,) = (block for block in found if text in block)
    return str(commands)


@contextmanager
def tunnels(lab: Testbed, kind: str, other: int = 2) -> Iterator[None]:
    """Have the director use tunnels of a type for a block, and give real-server-2 the weight ``other``."""
    director, ipip = lab.directors[0], example("--tun-type gre").replace("gre", "ipip")
    commands = ipip if kind == "ipip" else example(f"--tun-type {kind}")
    director.execute(commands.replace("-w 2", f"-w {other}"))
    try:
        yield
    finally:
        director.execute(ipip)


def forget_path_mtu(lab: Testbed) -> None:
    """Have clients and director forget what they know of the MTU of ways."""
    for node in (*lab.clients, *lab.directors):
        node.execute("ip route flush cache")


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


@pytest.mark.parametrize("kind", TYPES)
def test_servers_take_turns_and_everybody_counts_the_same(
    lab: Testbed, clients: tuple[NodeUnderTest, ...], kind: str
) -> None:
    with tunnels(lab, kind):
        for client in clients:
            check_round(lab, client.name)


def test_answers_do_not_pass_the_director(lab: Testbed) -> None:
    before = lab.settled_reading()
    lab.round(count=6)
    gained = lab.settled_reading().totals[SERVICE].since(before.totals[SERVICE])
    assert gained.connections == 6
    assert gained.packets_in >= 4 * 6, "a connection has four packets of the client at least"
    assert gained.packets_out == 0


def test_servers_see_the_clients_addresses(lab: Testbed, clients: tuple[NodeUnderTest, ...]) -> None:
    for client in clients:
        taken = lab.round(count=4, client=client.name)
        verdict.sources_preserved(client.addresses, taken.sources, lab.directors[0].addresses)


@pytest.mark.parametrize("kind", TYPES)
def test_every_packet_is_put_into_another_exactly(
    lab: Testbed, clients: tuple[NodeUnderTest, ...], kind: str
) -> None:
    with tunnels(lab, kind), lab.packets(SERVICE) as seen:
        for client in clients:
            client.get(f"http://{VIP}/", 4)
    compared = seen.match()
    assert {flow.client[0] for flow in compared.flows} == {client.address for client in clients}
    # Of each connection, four packets of the client at least.
    assert len(compared.flows) == 8 and compared.pairs >= 32


@pytest.mark.parametrize("kind", TYPES)
def test_large_requests_shrink_to_the_narrowest_way(lab: Testbed, kind: str) -> None:
    """The client learns by ICMP what fits into tunnels of 1500 bytes, and then into those of 1400."""
    forget_path_mtu(lab)
    room = 1400 - HEADERS[kind]
    with tunnels(lab, kind), lab.packets(SERVICE) as seen:
        check_round(lab, padding=LARGE)
    told = {found[0].mtu for each in seen.seen if each.sent and (found := refusal_in(each.packet))}
    # What the router says is passed on less an IP header of 20 bytes, whatever the type of the tunnel. That,
    # and the first of these, is not said where the director knew before what the narrow way carries.
    assert room in told and told <= {1500 - HEADERS[kind], 1400 - HEADERS["ipip"], room}
    assert f"mtu {room} " in lab.clients[0].output(f"ip route get {VIP}") + " "
    with tunnels(lab, kind), lab.packets(SERVICE) as seen:
        check_round(lab, padding=LARGE)
    assert not any(refusal_in(each.packet) for each in seen.seen), "the client knows what fits"
    # Every large request has its full packets, and acknowledgements.
    assert seen.match().pairs > 9 * LARGE / room


def test_large_answers_do_not_meet_the_tunnel(lab: Testbed) -> None:
    for server in lab.real_servers:
        server.execute("seq 40000 > /var/www/html/large.txt")
    whole = hashlib.sha256("".join(f"{number}\n" for number in range(1, 40001)).encode()).hexdigest()
    with lab.packets(SERVICE) as seen:
        replies = lab.clients[0].get(f"http://{VIP}/large.txt", 3)
    assert {hashlib.sha256(reply.body.encode()).hexdigest() for reply in replies} == {whole}
    # The director sees acknowledgements only.
    assert not any(len(each.packet.payload) > 500 for each in seen.seen)
    assert len(seen.match().flows) == 3


# --- what the checks must notice --------------------------------------------------------------------------
# Each breaks one thing, and mends it: a lab of its own for each would have three virtual machines.


@contextmanager
def broken(node: NodeUnderTest, command: str, mend: str) -> Iterator[None]:
    """Break something on a node for a block."""
    node.execute(command)
    try:
        yield
    finally:
        node.execute(mend)


def check_failure(lab: Testbed, says: str, padding: int = 0) -> None:
    """A request is not answered, and the message names the cause."""
    client, director = lab.clients[0].name, lab.directors[0].name
    with pytest.raises(CheckFailed, match=re.escape(says)):
        # Not made level: connections that earlier failures have left do not matter here.
        rounds.take(lab.cluster, lab.enter, client=client, director=director, count=1, padding=padding)


@pytest.mark.parametrize(
    ("command", "mend", "says"),
    [
        (
            "ip link set tunl0 down",
            "ip link set tunl0 up",
            "real-server-1 has no tunnel interface of type ipip that is up",
        ),
        (
            f"ip addr del {VIP}/32 dev vip",
            f"ip addr add {VIP}/32 dev vip",
            f"real-server-1 does not have the address {VIP}",
        ),
        (
            "sysctl -w net.ipv4.conf.tunl0.rp_filter=2",
            "sysctl -w net.ipv4.conf.tunl0.rp_filter=0",
            "real-server-1's rp_filter drops packets while this service is asked",
        ),
    ],
    ids=["tunnel", "address", "rp_filter"],
)
def test_what_a_server_lacks_is_noticed(lab: Testbed, command: str, mend: str, says: str) -> None:
    with tunnels(lab, "ipip", other=0), broken(lab.node("real-server-1"), command, mend):
        check_failure(lab, says)


@pytest.mark.parametrize(
    ("kind", "command", "mend", "says"),
    [
        pytest.param(
            "gre",
            "ip link set gre0 down",
            "ip link set gre0 up",
            "real-server-1 has no tunnel interface of type gre that is up (those that are up: tunl0 of type",
            marks=pytest.mark.needs(*NEEDS["gre"]),
        ),
        pytest.param(
            "gue",
            "ip fou del port 6080 && ip fou add port 6081 gue",
            "ip fou del port 6081 && ip fou add port 6080 gue",
            "real-server-1 does not take GUE at UDP port 6080 (only at 6081)",
            marks=pytest.mark.needs(*NEEDS["gue"]),
        ),
    ],
    ids=["gre", "gue"],
)
def test_another_type_of_tunnel_is_noticed(
    lab: Testbed, kind: str, command: str, mend: str, says: str
) -> None:
    with tunnels(lab, kind, other=0), broken(lab.node("real-server-1"), command, mend):
        check_failure(lab, says)


@pytest.mark.needs(*NEEDS["gre"])
def test_another_type_of_tunnel_than_the_steps_said_is_noticed(lab: Testbed) -> None:
    with tunnels(lab, "gre"), pytest.raises(CheckFailed, match="through a tunnel of type gre, not ipip"):
        verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_lost_icmp_is_noticed(lab: Testbed) -> None:
    """A router that drops all ICMP for clients: small requests are answered, and large ones hang."""
    forget_path_mtu(lab)
    rule, client = example("blackhole"), lab.clients[0]
    with broken(lab.node("router"), rule, rule.replace("add", "del")):
        assert [reply.status for reply in client.get(f"http://{VIP}/", 4)] == [200] * 4
        check_failure(lab, "from director to client gets lost: router receives it at eth1", LARGE)
    assert client.namespace.call(http.get, f"http://{VIP}/", padding=LARGE).status == 200
