"""One cluster for both families: two services that have nothing in common."""

from __future__ import annotations

import pytest

from lvslab.check import verdict
from lvslab.check.testbed import NodeUnderTest, Testbed
from lvslab.errors import CheckFailed

IPV4, IPV6 = "66.199.240.50:80", "[2001:db8:1::50]:80"
ASKED = [("client", IPV4), ("client", IPV6), ("client-2", IPV6), ("client-3", IPV4)]


def check_round(lab: Testbed, service: str, client: str = "client") -> None:
    """The servers take turns as wlc makes them, and client, logs and director count the same."""
    taken = lab.round(count=9, client=client, service=service)
    verdict.sequence_matches(taken.forecast, taken.observed)
    # The model is not asked about this: in any 9 requests in turn, weight 2 has twice what weight 1 has.
    assert taken.observed_counts == {"real-server-1": 3, "real-server-2": 6}
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
    verdict.sources_preserved(lab.node(client).addresses, taken.sources, lab.directors[0].addresses)


# --- what the how-to promises -----------------------------------------------------------------------------


def test_table_is_what_the_steps_said(lab: Testbed) -> None:
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)
    assert [str(service) for service in lab.table_of_steps()] == [IPV4, IPV6]


@pytest.mark.parametrize(("client", "service"), ASKED)
def test_clients_of_each_family_are_served_alike(lab: Testbed, client: str, service: str) -> None:
    check_round(lab, service, client)


def test_each_family_is_counted_by_its_own_service(lab: Testbed) -> None:
    before = lab.settled_reading()
    lab.clients[0].get(f"http://{IPV4}/", 4)
    lab.clients[0].get(f"http://{IPV6}/", 6)
    after = lab.settled_reading()
    for service, count in ((IPV4, 4), (IPV6, 6)):
        assert after.totals[service].since(before.totals[service]).connections == count


def test_every_packet_of_both_families_is_masqueraded_exactly(lab: Testbed) -> None:
    with lab.packets() as seen:
        for service in (IPV4, IPV6):
            lab.clients[0].get(f"http://{service}/", 4)
    compared = seen.match()
    assert {flow.client[0] for flow in compared.flows} == set(lab.clients[0].addresses)
    # Of each connection, at least three packets of the client and two of the server.
    assert len(compared.flows) == 8 and compared.pairs >= 40


# --- what the checks must notice --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forgotten", "broken", "whole", "says"),
    [
        ("net.ipv4.ip_forward", IPV4, IPV6, "ip_forward is 0 on the director"),
        ("net.ipv6.conf.all.forwarding", IPV6, IPV4, "IPv6 forwarding is 0 on the director"),
    ],
)
def test_a_family_that_is_not_forwarded_is_noticed(
    fresh_lab: Testbed, forgotten: str, broken: str, whole: str, says: str
) -> None:
    fresh_lab.directors[0].execute(f"sysctl -w {forgotten}=0")
    with pytest.raises(CheckFailed, match=says):
        check_round(fresh_lab, broken)
    check_round(fresh_lab, whole)


def test_a_server_taken_out_of_one_service_only_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.directors[0].execute(f"ipvsadm -d -t {IPV6} -r [fd00::101]:80")
    with pytest.raises(CheckFailed, match=r"\[fd00::101\]:80 \(weight 2\) is missing"):
        verdict.table_matches(fresh_lab.table_of_steps(), fresh_lab.reading().rules)
    with pytest.raises(CheckFailed, match="real-server-2 never answered"):
        check_round(fresh_lab, IPV6)
    check_round(fresh_lab, IPV4)


def test_a_missing_gateway_of_one_family_is_noticed(fresh_lab: Testbed) -> None:
    server: NodeUnderTest = fresh_lab.node("real-server-1")
    server.execute("ip -6 route del default")
    with pytest.raises(CheckFailed, match="real-server-1 has no default route"):
        check_round(fresh_lab, IPV6)
    check_round(fresh_lab, IPV4)
