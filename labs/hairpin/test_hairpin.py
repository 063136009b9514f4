"""Real servers that ask their own service: answered once the director's address is the source."""

from __future__ import annotations

import pytest

from lvslab.check import verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.check.traffic.request import RequestFailed
from lvslab.errors import CheckFailed

VIP, INSIDE = "66.199.240.50", "10.0.0.1"
URL = f"http://{VIP}/"
RULE = f"POSTROUTING -s 10.0.0.0/24 -o eth1 -m ipvs --vaddr {VIP} --vport 80 -j MASQUERADE"


def check_round(lab: Testbed, client: str = "") -> None:
    """The servers take turns, and client, logs and director count the same."""
    taken = lab.round(count=6, client=client)
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)


def check_own_service(server: NodeUnderTest) -> None:
    """A real server is answered by all servers in turn, itself too."""
    try:
        replies = server.get(URL, 4)
    except RequestFailed as failed:
        raise CheckFailed(
            f"{server.name} asked its own service {VIP}:80 and got no answer: {failed}"
        ) from None
    answered = [reply.server for reply in replies]
    first, second = answered[:2]
    assert {first, second} == {"real-server-1", "real-server-2"} and answered == [first, second] * 2


def check_rejected(lab: Testbed) -> None:
    """Real servers get no answer: their requests pass the director, and the replies do not."""
    before = lab.settled_reading()
    for server in lab.real_servers:
        with pytest.raises(
            CheckFailed, match=f"{server.name} asked its own service {VIP}:80 and got no answer"
        ):
            check_own_service(server)
    gained = lab.settled_reading().totals[f"{VIP}:80"].since(before.totals[f"{VIP}:80"])
    assert gained.connections >= len(lab.real_servers)
    assert gained.packets_in and not gained.packets_out


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_clients_outside_are_served_as_ever(lab: Testbed) -> None:
    check_round(lab)
    taken = lab.round(count=4)
    verdict.sources_preserved(lab.clients[0].addresses, taken.sources, lab.directors[0].addresses)


def test_each_real_server_is_served_by_both(lab: Testbed) -> None:
    for server in lab.real_servers:
        check_own_service(server)
        check_round(lab, server.name)


def test_servers_see_the_director_as_the_source(lab: Testbed) -> None:
    taken = lab.round(count=4, client="real-server-1")
    assert set(taken.sources) == {INSIDE}


def test_packets_of_clients_outside_are_masqueraded_exactly(lab: Testbed) -> None:
    """The rule for the real servers changes nothing for clients."""
    with lab.packets(f"{VIP}:80") as seen:
        lab.clients[0].get(URL, 4)
    compared = seen.match()
    # Of each connection, at least three packets of the client and two of the server.
    assert len(compared.flows) == 4 and compared.pairs >= 20


# --- what the checks must notice --------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", ["vs.conntrack", "iptables"])
def test_a_real_server_gets_no_answer_without(bare_lab: Testbed, forgotten: str) -> None:
    """The rule needs the setting, and the setting the rule; clients notice nothing."""
    bare_lab.apply(without=[forgotten])
    check_rejected(bare_lab)
    check_round(bare_lab)
    with pytest.raises(CheckFailed, match=r"real-server-[12] is on the network of the client"):
        check_round(bare_lab, "real-server-1")


def test_a_rule_for_everybody_hides_the_clients(fresh_lab: Testbed) -> None:
    director = fresh_lab.directors[0]
    director.execute(f"iptables -t nat -D {RULE}")
    director.execute(f"iptables -t nat -A {RULE.replace('-s 10.0.0.0/24 ', '')}")
    check_own_service(fresh_lab.real_servers[0])
    taken = fresh_lab.round(count=4)
    with pytest.raises(CheckFailed, match="one of its POSTROUTING rules masquerades the clients' requests"):
        verdict.sources_preserved(fresh_lab.clients[0].addresses, taken.sources, director.addresses)
