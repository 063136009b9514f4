from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lvslab.check.forwarding.facts import ClusterFacts, Finding, ServerFacts
from lvslab.check.ipvs.listing import Counters
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.probes import Route
from lvslab.check.verdict import (
    arp_problem,
    counts_agree,
    diagnose,
    no_answer,
    sequence_matches,
    sources_preserved,
    table_matches,
)
from lvslab.errors import CheckFailed

TABLE = parse_rules(
    """\
-A -t 66.199.240.50:80 -s wlc
-a -t 66.199.240.50:80 -r 10.0.0.100:80 -m -w 1
-a -t 66.199.240.50:80 -r 10.0.0.101:80 -m -w 2
"""
)

ONE = ServerFacts("real-server-1", "10.0.0.100", 80, "masquerading", probe="answers", gateway="10.0.0.1")
TWO = ServerFacts("real-server-2", "10.0.0.101", 80, "masquerading", probe="answers", gateway="10.0.0.1")
FINE = ClusterFacts(
    virtual_service="66.199.240.50:80",
    director_address="10.0.0.1",
    expected=TABLE,
    observed=TABLE,
    servers=(ONE, TWO),
    ip_forward=1,
)


def causes(facts: ClusterFacts) -> list[str]:
    return [finding.cause for finding in diagnose(facts)]


def test_a_sequence_that_matches() -> None:
    sequence_matches(("two", "one", "two"), ["two", "one", "two"])


def test_the_first_difference_is_marked() -> None:
    with pytest.raises(CheckFailed) as caught:
        sequence_matches(("two", "one", "two", "two"), ("two", "one", "one", "two"))
    assert caught.value.message.splitlines() == [
        "the servers did not answer in the order that the scheduler gives; request 3 is the first",
        "  request  expected  observed",
        "        1  two       two",
        "        2  one       one",
        "        3  two       one  <-- first difference",
        "        4  two       two",
    ]
    assert "check the weights" in str(caught.value)


def test_a_server_that_never_answers() -> None:
    with pytest.raises(CheckFailed, match=r"real-server-2 never answered: is it missing .*`ipvsadm -a`"):
        sequence_matches(("real-server-2", "real-server-1") * 3, ("real-server-1",) * 6)


def test_a_server_that_should_not_answer() -> None:
    with pytest.raises(CheckFailed, match="three should not have answered"):
        sequence_matches(("two", "one"), ("two", "three"))
    with pytest.raises(CheckFailed, match="a reply without a name"):
        sequence_matches(("two", "one"), ("two", ""))


def test_the_right_counts_in_another_order() -> None:
    with pytest.raises(CheckFailed, match="were the servers added in another order"):
        sequence_matches(("two", "one", "two"), ("one", "two", "two"))


def test_a_sequence_that_ends_early() -> None:
    with pytest.raises(CheckFailed, match=r"3 +two +\(none\)  <-- first difference"):
        sequence_matches(("two", "one", "two"), ("two", "one"))
    with pytest.raises(CheckFailed, match=r"1 +two +\(none\)  <-- first difference"):
        sequence_matches(("two",), ())


def test_a_long_sequence_is_cut_around_the_difference() -> None:
    expected = ("two", "one", "two") * 100
    with pytest.raises(CheckFailed) as caught:
        sequence_matches(expected, (*expected[:150], "one", *expected[151:]))
    lines = caught.value.message.splitlines()
    assert len(lines) < 30
    assert "      151  two       one  <-- first difference" in lines
    assert lines[2].strip() == lines[-1].strip() == "..."


def test_counts() -> None:
    counts_agree({"one": 4, "two": 8}, {"one": 4, "two": 8}, {"one": 4, "two": 8})
    with pytest.raises(CheckFailed) as caught:
        counts_agree({"one": 4, "two": 7}, {"one": 4, "two": 8}, {"one": 4, "two": 8})
    assert "two: 7 answers at the client, 8 in its access log, 8 at the director" in caught.value.message
    assert "one:" not in caught.value.message
    assert "answers never arrived" in str(caught.value)


@pytest.mark.parametrize(
    ("client", "log", "director", "hint"),
    [
        (4, 4, 5, "connections that ended without a request"),
        (4, 4, 0, "without the director, or its counters were zeroed"),
        (4, 0, 4, "does another server have its name"),
    ],
)
def test_who_counts_differently(client: int, log: int, director: int, hint: str) -> None:
    with pytest.raises(CheckFailed, match=hint):
        counts_agree({"one": client}, {"one": log}, {"one": director})


def test_table() -> None:
    table_matches(TABLE, TABLE)
    with pytest.raises(
        CheckFailed, match=r"10.0.0.101:80 \(weight 2\) is missing, though the steps added it"
    ):
        table_matches(TABLE, (replace(TABLE[0], destinations=TABLE[0].destinations[:1]),))


def test_sources() -> None:
    sources_preserved(["66.199.240.10"], ["66.199.240.10"])
    with pytest.raises(CheckFailed) as caught:
        sources_preserved(["66.199.240.10"], ["10.0.0.1"], ["10.0.0.1", "66.199.240.50"])
    assert "saw requests from 10.0.0.1, but the clients are 66.199.240.10" in caught.value.message
    assert "10.0.0.1 is the director itself" in str(caught.value)
    with pytest.raises(CheckFailed, match="does a router before the director"):
        sources_preserved(["66.199.240.10"], ["66.199.240.10", "66.199.240.99"], ["10.0.0.1"])
    with pytest.raises(CheckFailed, match="logged no request at all"):
        sources_preserved(["66.199.240.10"], [])


def test_nothing_to_find() -> None:
    assert diagnose(FINE) == ()
    failure = CheckFailed("no answer")
    assert no_answer(FINE, failure) is failure


def test_no_forwarding() -> None:
    facts = replace(FINE, ip_forward=0, counters=Counters(1, 3, 0, 180, 0))
    assert len(causes(facts)) == 1
    failed = no_answer(facts, CheckFailed("no answer from 66.199.240.50:80 within 5 s"))
    assert "no answer from 66.199.240.50:80" in failed.message
    assert "ip_forward is 0 on the director: packets are not forwarded" in str(failed)
    assert "/etc/sysctl.conf" in str(failed)


def test_a_default_route_that_avoids_the_director() -> None:
    facts = replace(FINE, servers=(ONE, replace(TWO, gateway="10.0.0.254")))
    assert causes(facts) == [
        "real-server-2's default route goes to 10.0.0.254 and not to the director 10.0.0.1, "
        "so its replies bypass the director"
    ]
    facts = replace(FINE, servers=(ONE, replace(TWO, gateway="")))
    assert causes(facts) == ["real-server-2 has no default route, so its replies go nowhere"]


def test_a_server_that_is_stopped() -> None:
    facts = replace(FINE, servers=(ONE, replace(TWO, probe="refused")))
    assert causes(facts) == ["nothing listens on 10.0.0.101:80 (connection refused)"]
    facts = replace(FINE, servers=(ONE, replace(TWO, probe="no-answer")))
    assert causes(facts) == ["real-server-2 does not answer on 10.0.0.101:80, not even from its own network"]


def test_of_many_causes_the_first_are_told() -> None:
    servers = tuple(replace(ONE, name=f"rs{number}", probe="refused") for number in range(250))
    failed = no_answer(replace(FINE, servers=servers), CheckFailed("no answer"))
    lines = (failed.hint or "").splitlines()
    assert len(lines) == 9
    assert lines[-1].strip() == "and 242 more of the same kinds"
    (only,) = (
        no_answer(replace(FINE, servers=servers[:1]), CheckFailed("no answer")).hint or ""
    ).splitlines()
    assert "more of the same" not in only


def test_a_table_without_the_service_comes_first() -> None:
    found = causes(replace(FINE, observed=(), ip_forward=0))
    assert "table is empty" in found[0]
    assert "ip_forward is 0" in found[1]


def test_a_wrong_weight_comes_last() -> None:
    found = causes(
        replace(
            FINE,
            observed=parse_rules(
                "-A -t 66.199.240.50:80\n"
                "-a -t 66.199.240.50:80 -r 10.0.0.100 -m\n"
                "-a -t 66.199.240.50:80 -r 10.0.0.101 -m\n"
            ),
            ip_forward=0,
        )
    )
    assert "ip_forward is 0" in found[0]
    assert "gives 10.0.0.101:80 the weight 1, not 2" in found[1]


def test_every_weight_is_0() -> None:
    drained = replace(
        TABLE[0], destinations=tuple(replace(server, weight=0) for server in TABLE[0].destinations)
    )
    assert causes(replace(FINE, expected=(drained,), observed=(drained,))) == [
        "every real server of 66.199.240.50:80 has weight 0, so it takes no new connection"
    ]


def test_a_server_that_asks_its_own_service() -> None:
    (cause,) = causes(replace(FINE, servers=(replace(ONE, way_back=Route("local")),), client="10.0.0.100"))
    assert cause.startswith(
        "real-server-1 is the client 10.0.0.100 itself: a request that the director sends"
    )


def test_servers_are_diagnosed_by_their_own_method() -> None:
    first, second = TABLE[0].destinations
    mixed = (replace(TABLE[0], destinations=(first, replace(second, forwarding="tunneling"))),)
    away = replace(
        TWO, forwarding="tunneling", gateway="10.0.0.254", lacking=(Finding("it has no tunnel", "make one"),)
    )
    said = ["it has no tunnel"]
    assert causes(replace(FINE, expected=mixed, observed=mixed, servers=(ONE, away))) == said
    alone = (replace(TABLE[0], destinations=(replace(second, forwarding="tunneling"),)),)
    facts = replace(FINE, expected=alone, observed=alone, servers=(away,), ip_forward=0)
    assert causes(facts) == said


VIP = "66.199.240.50"
BY_ROUTE = replace(ONE, forwarding="gatewaying", probe="answers", has_virtual=True, gateway="66.199.240.1")


@pytest.mark.parametrize(
    ("server", "facts", "says"),
    [
        (
            replace(BY_ROUTE, probe="refused"),
            {},
            "nothing listens on 66.199.240.50, port 80, of real-server-1 (connection refused)",
        ),
        (
            replace(BY_ROUTE, probe="rejected"),
            {},
            "real-server-1 refuses connections to 66.199.240.50, port 80, although a program listens there",
        ),
        (
            replace(BY_ROUTE, probe="no-answer"),
            {},
            "real-server-1 does not answer on 66.199.240.50, not even to itself",
        ),
        (
            replace(BY_ROUTE, way_back=Route("none")),
            {},
            "real-server-1 has no route to the client 198.51.100.10, so its replies go nowhere",
        ),
        (
            replace(BY_ROUTE, way_back=Route("unicast", "66.199.240.1"), silent_hop=True),
            {},
            "real-server-1's default route goes to 66.199.240.1, and no machine answers for that address, "
            "so its replies go nowhere",
        ),
        (
            replace(BY_ROUTE, way_back=Route("unicast", "66.199.240.2")),
            {},
            "real-server-1's replies go to the director 66.199.240.2, which drops packets that come from "
            "its own address 66.199.240.50",
        ),
        (
            BY_ROUTE,
            {"has_virtual": False},
            "the director does not have the address 66.199.240.50, so it does not take the requests to it",
        ),
        (
            BY_ROUTE,
            {"diverted": {"router": "real-server-1"}},
            "router sends packets for 66.199.240.50 to the hardware address of real-server-1, and not to "
            "the director: real-server-1 answers ARP requests for that address (the ARP problem)",
        ),
        (
            BY_ROUTE,
            {"has_virtual": False, "has_duplicate": True},
            "another machine on its network has the address 66.199.240.50 too, so the director does not "
            "use it (dadfailed: duplicate address detection)",
        ),
        (BY_ROUTE, {"losses": (Finding("dropped", "let them pass"),)}, "dropped"),
        (BY_ROUTE, {"around": (Finding("eth0 of client is down", "set it up"),)}, "eth0 of client is down"),
    ],
)
def test_causes_by_direct_routing(server: ServerFacts, facts: dict[str, Any], says: str) -> None:
    table = parse_rules(f"-A -t {VIP}:80 -s wlc\n-a -t {VIP}:80 -r 10.0.0.100:80 -g\n")
    fine = replace(
        FINE, expected=table, observed=table, servers=(BY_ROUTE,), target=VIP, client="198.51.100.10",
        director_addresses=frozenset({"66.199.240.2", VIP}), has_virtual=True,
    )  # fmt: skip
    assert causes(fine) == []
    found = causes(replace(fine, servers=(server,), **facts))
    assert found == [says]


@pytest.mark.parametrize(
    ("counters", "cause"),
    [
        (Counters(0, 0, 0, 0, 0), "no connection reached the virtual service 66.199.240.50:80"),
        (Counters(2, 6, 0, 360, 0), "2 connections came in at 66.199.240.50:80 and no packet went out"),
    ],
)
def test_what_the_counters_tell(counters: Counters, cause: str) -> None:
    (found,) = causes(replace(FINE, counters=counters))
    assert cause in found
    assert diagnose(replace(FINE, counters=Counters(2, 12, 10, 700, 900))) == ()


def test_weaker_signs_are_of_the_failing_services_own_methods() -> None:
    """Another service by gatewaying explains nothing about a masqueraded one."""
    other = ServerFacts("real-server-3", "10.0.0.102", 81, "gatewaying")
    facts = replace(FINE, servers=(ONE, TWO, other), counters=Counters(0, 0, 0, 0, 0))
    assert causes(facts) == ["no connection reached the virtual service 66.199.240.50:80"]


def test_a_forgotten_m_is_asked_for() -> None:
    table = parse_rules("-A -t 66.199.240.50:80 -s wlc\n-a -t 66.199.240.50:80 -r 10.0.0.100:80\n")
    server = ServerFacts("real-server-1", "10.0.0.100", 80, "gatewaying", has_virtual=False)
    facts = replace(FINE, expected=table, observed=table, servers=(server,), target="66.199.240.50")
    (found,) = diagnose(facts)
    assert found.cause.startswith("real-server-1 does not have the address 66.199.240.50")
    assert found.remedy.endswith("or should the `ipvsadm -a` say -m?")


def test_of_an_ipv6_address_on_a_card_the_remedy_is_lo() -> None:
    found = arp_problem("client", "real-server-1", "2001:db8::60")
    assert found.cause == (
        "client sends packets for 2001:db8::60 to the hardware address of real-server-1, and not to the "
        "director: real-server-1 answers neighbour solicitations for that address"
    )
    assert "lo of real-server-1" in found.remedy and "arp_" not in found.remedy
