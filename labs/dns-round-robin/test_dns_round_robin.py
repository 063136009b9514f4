"""Do clients of one name come to three clusters as howto.md says? And is it noticed when they do not?"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from fractions import Fraction

import pytest

from lvslab.check import exact_test, verdict
from lvslab.check.seed import random_for
from lvslab.check.testbed import Testbed
from lvslab.check.traffic import address_order, dns, visits
from lvslab.check.traffic.dns import DnsAnswer, Kind
from lvslab.check.traffic.visits import Family, Visit
from lvslab.errors import CheckFailed

NAME = "www.example.test"
SERVER = "66.199.240.2"
TTL = 3
DIRECTORS = ("director-1", "director-2", "director-3")
OWNERS: dict[Kind, dict[str, str]] = {
    "A": {f"66.199.240.{50 + number}": name for number, name in enumerate(DIRECTORS)},
    "AAAA": {f"2001:db8:240::{50 + number}": name for number, name in enumerate(DIRECTORS)},
}
WEIGHTS = {
    "director-1": {"web-1a": 1, "web-1b": 2},
    "director-2": {"web-2a": 1, "web-2b": 1},
    "director-3": {"web-3a": 3, "web-3b": 1},
}
DEAD = "director-2"
TIMEOUT = 2.0
"""Seconds that a client waits for a dead director."""
RELOAD_SECONDS = 30.0
"""After which a name server that still serves the old zone is taken to have refused the new one."""

Measured = Callable[[str, str], None]


def director_of(visit: Visit) -> str:
    """The director that a visit went through: the one whose cluster made the page."""
    return next((name for name, servers in WEIGHTS.items() if visit.server in servers), visit.server)


def asked(lab: Testbed, *kinds: Kind, count: int = 1) -> tuple[DnsAnswer, ...]:
    """What the name server says to so many questions in turn, which go round ``kinds``."""
    wanted = itertools.islice(itertools.cycle(kinds), count)
    return dns.ask_in_turn(lab.enter("client"), SERVER, NAME, tuple(wanted))


def check_records(lab: Testbed, kind: Kind = "A") -> None:
    """The name has a record for each director, and no other."""
    (answer,) = asked(lab, kind)
    dns.records_match(OWNERS[kind], answer)


def check_rotation(lab: Testbed) -> None:
    """Each answer begins one record further than the one before, whatever it was about."""
    dns.rotation_holds(asked(lab, "A", count=7))
    dns.rotation_holds(asked(lab, "A", "AAAA", count=12))


def check_clusters(lab: Testbed) -> None:
    """Each director gives the connections to its own servers, as wlc must with their weights."""
    for director, weights in WEIGHTS.items():
        taken = lab.round(count=12, director=director)
        verdict.sequence_matches(taken.forecast, taken.observed)
        verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
        share = 12 // sum(weights.values())
        assert taken.observed_counts == {name: weight * share for name, weight in weights.items()}


def check_first_address(lab: Testbed, client: str = "client", count: int = 12) -> visits.Visits:
    """Clients that take the first address are shared evenly, and the address says whose page they get."""
    made = visits.first_address(lab.inside(client), NAME, count, family="IPv4")
    visits.all_answered(made)
    visits.shared_evenly(made, director_of, DIRECTORS)
    for visit in made.all:
        assert director_of(visit) == OWNERS["A"][visit.address]
    return made


def zone(lab: Testbed, *changes: str, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Change the zone on the name server by commands of sed, and return when it serves the changed one, and
    nobody there the old one. ``meanwhile`` is called over and over until then."""
    server, client = lab.node("name-server"), lab.enter("client")
    number = (client.call(dns.serial, SERVER, "example.test") or 0) + 1
    words = " ".join(f"-e '{change}'" for change in (*changes, rf"s/\(hostmaster\) [0-9]*/\1 {number}/"))
    meanwhile()
    # The process that answers is the one that was begun with last; it goes on until the next one is there.
    # NSD does not always wait for it: then it stays as a zombie, which has no command line.
    answers = server.output("pgrep --newest --full 'sbin/[n]sd -d'").strip()
    server.execute(f"sed -i {words} /etc/nsd/example.test.zone && /etc/nsd/control reload example.test")
    deadline = time.monotonic() + RELOAD_SECONDS
    while (
        client.call(dns.serial, SERVER, "example.test") != number
        or server.execute(f"grep --quiet --text . /proc/{answers}/cmdline", check=False).status == 0
    ):
        assert time.monotonic() < deadline, server.output("cat /var/log/nsd.log")
        meanwhile()
        time.sleep(0.01)


# --- what the how-to promises -----------------------------------------------------------------------------


@pytest.mark.parametrize("director", DIRECTORS)
def test_table_is_what_the_steps_said(lab: Testbed, director: str) -> None:
    verdict.table_matches(lab.table_of_steps(director), lab.reading(director).rules)


def test_each_cluster_balances_by_its_weights(lab: Testbed) -> None:
    check_clusters(lab)


@pytest.mark.needs("ipv6", "guest_ipv6")
def test_each_cluster_balances_over_ipv6(lab: Testbed) -> None:
    for address, director in OWNERS["AAAA"].items():
        taken = lab.round(count=12, client="client-6", director=director, service=f"[{address}]:80")
        verdict.sequence_matches(taken.forecast, taken.observed)
        verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
        assert {*taken.observed_counts} == {*WEIGHTS[director]}


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_the_name_has_a_record_for_each_director(lab: Testbed, kind: Kind) -> None:
    check_records(lab, kind)
    (answer,) = asked(lab, kind)
    assert answer.ttl == TTL


def test_answers_rotate(lab: Testbed) -> None:
    check_rotation(lab)
    first = [answer.addresses[0] for answer in asked(lab, "A", count=3)]
    assert {*first} == {*OWNERS["A"]}


def test_clients_that_take_the_first_address_are_shared_evenly(lab: Testbed, measured: Measured) -> None:
    made = check_first_address(lab)
    measured("visits to the first address, by director", counts(made.by(director_of)))


@pytest.mark.needs("ipv6", "guest_ipv6")
def test_the_same_over_ipv6(lab: Testbed) -> None:
    made = visits.first_address(lab.inside("client-6"), NAME, 12)
    visits.all_answered(made)
    visits.shared_evenly(made, director_of, DIRECTORS)
    for visit in made.all:
        assert director_of(visit) == OWNERS["AAAA"][visit.address]  # a client with IPv6 prefers it


def test_requests_goes_where_the_resolver_says(lab: Testbed) -> None:
    made = visits.by_requests(lab.inside("client"), NAME, 12)
    visits.all_answered(made)
    visits.shared_evenly(made, director_of, DIRECTORS)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_goes_where_the_resolver_says(lab: Testbed) -> None:
    made = visits.by_curl(lab.inside("client"), NAME, 6)
    visits.all_answered(made)
    visits.shared_evenly(made, director_of, DIRECTORS)
    assert [director_of(visit) for visit in made.all] == [OWNERS["A"][visit.address] for visit in made.all]


@pytest.mark.parametrize("client", ["client", "client-6", "neighbour"])
def test_getaddrinfo_sorts_by_rfc_6724(lab: Testbed, client: str) -> None:
    node = lab.cluster.lab.nodes[client]
    own = [str(a) for card in node.interfaces.values() for a in lab.cluster.lab.interface_addresses(card)]
    inside = lab.inside(client)
    families: tuple[tuple[Family, tuple[Kind, ...]], ...] = (
        ("IPv4", ("A",)),
        ("IPv6", ("AAAA",)),
        ("any", ("A", "AAAA")),  # in this order (gethostbyname4_r in glibc's resolv/nss_dns/dns-host.c)
    )
    for family, kinds in families * 3:
        (before,) = asked(lab, "A")
        counter = list(OWNERS["A"]).index(before.addresses[0])
        served = [
            address for ahead, kind in enumerate(kinds, 1) for address in begun_at(kind, counter + ahead)
        ]
        assert inside.call(visits.look_up, NAME, family) == address_order.client_order(served, own)
    first = {inside.call(visits.look_up, NAME, "IPv4")[0] for _ in range(3)}
    assert first == ({"66.199.240.52"} if client == "neighbour" else {*OWNERS["A"]})


def test_a_sorting_resolver_defeats_the_rotation(lab: Testbed, measured: Measured) -> None:
    made = visits.first_address(lab.inside("neighbour"), NAME, 6, family="IPv4")
    visits.all_answered(made)
    measured("visits by neighbour, which sorts, by director", counts(made.by(director_of)))
    assert made.by(director_of) == {"director-3": 6}
    with pytest.raises(CheckFailed, match="director-1 0, director-2 0, director-3 6, and each should have"):
        visits.shared_evenly(made, director_of, DIRECTORS)


def test_a_resolver_that_keeps_answers(lab: Testbed, measured: Measured) -> None:
    resolver = dns.CachingResolver(lab.enter("client"), SERVER)
    kept = resolver.addresses(NAME)
    begun, _ = resolver.since
    again = {resolver.addresses(NAME) for _ in range(20)}
    assert again == {kept} or time.monotonic() >= begun + TTL, "answers of its own within the TTL"
    choose = random_for("one address of an answer").choice
    made = visits.one_of(lab.inside("client"), lambda: choose(kept), 60)
    visits.all_answered(made)
    likely = exact_test.shares_hold(
        "visits", made.by(director_of), dict.fromkeys(DIRECTORS, Fraction(1, 3)), exact_test.FALSE_ALARM
    )
    measured(
        "60 visits by clients that pick one at random, by director",
        f"{counts(made.by(director_of))} (as odd as this or odder: {float(likely):.0%})",
    )


# --- when a director dies --------------------------------------------------------------------------------


def test_one_director_dies(fresh_lab: Testbed, measured: Measured) -> None:
    inside, alive = fresh_lab.inside("client"), [name for name in DIRECTORS if name != DEAD]
    check_first_address(fresh_lab)
    fresh_lab.cluster.stop_node(DEAD)

    # Clients that take the first address and give up: exactly a third fails.
    made = visits.first_address(inside, NAME, 18, family="IPv4", timeout=TIMEOUT, at_once=18)
    measured("dead director: visits that fail, of clients that take the first address", share(made))
    assert {OWNERS["A"][visit.address] for visit in made.failed} == {DEAD}
    assert len(made.failed) == 6
    with pytest.raises(CheckFailed, match=r"6 of 18 visits failed: 6 to 66\.199\.240\.51"):
        visits.all_answered(made)

    # Clients that try one address after the other: all get their page, and a third waits first. They come
    # in turn, since each asks for A and AAAA: how the questions of several mix is chance.
    made = visits.by_requests(inside, NAME, 6, timeout=TIMEOUT)
    late = [visit for visit in made.answered if visit.seconds >= TIMEOUT]
    measured("dead director: visits that fail, of clients that try the next address", share(made))
    measured(
        "dead director: visits of these that wait for a time-out first",
        f"{len(late)} of {len(made.all)}, the longest took {made.slowest:.2f} s (time-out: {TIMEOUT:g} s)",
    )
    visits.all_answered(made)
    assert len(late) == 2
    assert DEAD not in made.by(director_of)

    # The record goes. Who asks the name server hears of it at once.
    dead, kept = "66.199.240.51", list[dns.CachingResolver]()

    def ask_while_it_is_there() -> None:
        asking = dns.CachingResolver(fresh_lab.enter("client"), SERVER)
        if dead in asking.addresses(NAME):
            kept[:] = [asking]

    zone(fresh_lab, "/240.51/d", "/240::51/d", meanwhile=ask_while_it_is_there)
    removed = time.monotonic()
    # However long the reload took, the last one that was told of the dead director has the TTL before it.
    (resolver,) = kept
    begun, ended = resolver.since
    assert dead in resolver.addresses(NAME) or time.monotonic() >= begun + TTL
    made = visits.first_address(inside, NAME, 12, family="IPv4", timeout=TIMEOUT)
    measured("record removed: visits that fail, of clients that ask the name server", share(made))
    visits.all_answered(made)
    visits.shared_evenly(made, director_of, alive)

    # Who asks a resolver that keeps answers hears of the dead one until the TTL has passed.
    asked = time.monotonic()
    while dead in resolver.addresses(NAME):
        assert asked < ended + TTL, "the old answer outlives its TTL"
        time.sleep(0.02)
        asked = time.monotonic()
    gone = time.monotonic()
    measured(
        "record removed: a resolver that had kept it forgets it",
        f"{gone - removed:.1f} s later, {gone - begun:.1f} s after it had asked; the TTL is {TTL} s",
    )
    assert gone >= begun + TTL
    assert {*resolver.addresses(NAME)} == {*OWNERS["A"]} - {dead}

    # NSD has one counter: clients that ask for A and AAAA see the same one of two records first each time.
    first = {inside.call(visits.look_up, NAME)[0] for _ in range(4)}
    measured("two records left: first addresses seen by clients that ask for A and AAAA", ", ".join(first))
    assert len(first) == 1


# --- what the checks must notice --------------------------------------------------------------------------


def test_a_wrong_zone_is_noticed(fresh_lab: Testbed) -> None:
    zone(fresh_lab, "/240.51/d")
    with pytest.raises(CheckFailed, match=r"there is no A record for 66\.199\.240\.51, director-2"):
        check_records(fresh_lab)
    with pytest.raises(CheckFailed, match="director-1 6, director-2 0, director-3 6, and each should have"):
        check_first_address(fresh_lab)
    check_rotation(fresh_lab)

    zone(fresh_lab, r"/240.50/a \            IN A 66.199.240.59")
    with pytest.raises(CheckFailed, match=r"an A record for 66\.199\.240\.59, and no director has that"):
        check_records(fresh_lab)
    made = visits.first_address(
        fresh_lab.inside("client"), NAME, 6, family="IPv4", timeout=TIMEOUT, at_once=6
    )
    with pytest.raises(CheckFailed, match=r"2 of 6 visits failed: 2 to 66\.199\.240\.59"):
        visits.all_answered(made)


def test_a_name_server_that_does_not_rotate_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.cluster.stop_service("name-server")
    with pytest.raises(CheckFailed, match="no answer from the name server"):
        check_records(fresh_lab)
    fresh_lab.node("name-server").execute("sed -i 's/round-robin: yes/round-robin: no/' /etc/nsd/nsd.conf")
    fresh_lab.cluster.start_service("name-server")
    check_records(fresh_lab)
    with pytest.raises(CheckFailed, match="answer 2 does not begin one record further"):
        check_rotation(fresh_lab)
    with pytest.raises(CheckFailed, match="director-1 12, director-2 0, director-3 0, and each should have"):
        check_first_address(fresh_lab)
    fresh_lab.cluster.stop_node("name-server")
    with pytest.raises(CheckFailed, match="no answer from the name server"):
        check_records(fresh_lab)


def test_a_director_that_does_not_forward_is_noticed(fresh_lab: Testbed) -> None:
    fresh_lab.node("director-2").execute("sysctl -w net.ipv4.ip_forward=0")
    made = visits.first_address(
        fresh_lab.inside("client"), NAME, 6, family="IPv4", timeout=TIMEOUT, at_once=6
    )
    with pytest.raises(CheckFailed, match=r"2 of 6 visits failed: 2 to 66\.199\.240\.51"):
        visits.all_answered(made)
    with pytest.raises(CheckFailed, match="ip_forward is 0 on the director"):
        check_clusters(fresh_lab)


def counts(by_director: dict[str, int]) -> str:
    """``director-1 4, director-2 4, director-3 4``."""
    return ", ".join(f"{name} {by_director.get(name, 0)}" for name in DIRECTORS)


def share(made: visits.Visits) -> str:
    """How many of some visits failed."""
    return f"{len(made.failed)} of {len(made.all)} ({len(made.failed) / len(made.all):.0%})"


def begun_at(kind: Kind, number: int) -> list[str]:
    """The records of a kind as the name server serves them when its counter is at ``number``."""
    records = list(OWNERS[kind])
    return records[number % 3 :] + records[: number % 3]
