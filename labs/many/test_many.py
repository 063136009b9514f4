"""Does the director know all real servers, and do all of them answer? Is one that does not found out?"""

from __future__ import annotations

from collections import Counter

import pytest

from lvslab.check import verdict
from lvslab.check.rounds import Round
from lvslab.check.testbed import Testbed
from lvslab.errors import CheckFailed


def check_round(lab: Testbed) -> Round:
    """A request for each real server: all are answered, in wlc's order, and everybody counts the same."""
    taken = lab.round(count=len(lab.real_servers))
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
    return taken


def test_every_real_server_is_in_the_table(lab: Testbed) -> None:
    (expected,) = lab.table_of_steps()
    verdict.table_matches((expected,), lab.reading().rules)
    # The steps themselves are not believed: these are the addresses of lab.yaml.
    addresses = [server.address for server in lab.real_servers]
    found = {
        server.address: (server.port, server.forwarding, server.weight) for server in expected.destinations
    }
    assert found == dict.fromkeys(addresses, (80, "masquerading", 1))
    assert len(found) == 250


def test_real_servers_take_their_turns(lab: Testbed) -> None:
    check_round(lab)


def test_all_of_them_answer_and_a_stopped_one_is_noticed(fresh_lab: Testbed) -> None:
    names = [server.name for server in fresh_lab.real_servers]
    # Nobody has had a connection yet, and all weights are equal: in as many requests, each has its turn.
    assert Counter(check_round(fresh_lab).observed) == dict.fromkeys(names, 1)
    fresh_lab.cluster.stop_service("real-server-17")
    with pytest.raises(CheckFailed, match=r"nothing listens on 10\.0\.1\.17:80") as caught:
        check_round(fresh_lab)
    # And nobody else is blamed.
    assert "real-server-17" in (caught.value.hint or "")
    assert "more of the same" not in (caught.value.hint or "")
    assert not any(f"on {name}," in (caught.value.hint or "") for name in names if name != "real-server-17")
