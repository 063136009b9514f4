"""Rounds to firewall marks by every kind of rule, with mapped ports, and to FTP servers of any director."""

from __future__ import annotations

import pytest

from lvslab.check.services import every
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.request import RequestFailed

pytestmark = pytest.mark.slow

ASKED = {
    "firewall mark 1": "http://198.51.100.1:80/",
    "firewall mark 2": "http://198.51.100.1:81/",
    "firewall mark 3": "http://198.51.100.1:82/",
    "firewall mark 4": "ftp://198.51.100.1:21/",
}


def test_rounds_of_the_steps(fresh_lab: Testbed) -> None:
    """Every mark gets what its rule is for, and the servers take turns."""
    found = every.of_steps(fresh_lab, fresh_lab.table_of_steps())
    assert {made.service: made.asked for made in found.rounds} == ASKED
    for made in found.rounds:
        assert made.wrong is None and made.distribution == {
            "one": {"expected": 6, "observed": 6},
            "two": {"expected": 6, "observed": 6},
        }
    (left_out,) = found.left_out
    assert left_out.service == "firewall mark 5"
    assert "cannot be told which packets get mark 5" in left_out.why
    assert "looks at -m set --match-set shops dst" in left_out.why


@pytest.mark.parametrize("service", ASKED)
def test_rounds_of_the_table(lab: Testbed, service: str) -> None:
    (made,) = every.now(lab, service=service, count=5).rounds
    assert made.wrong is None and len(made.observed) == 5


def test_ftp_of_another_director(lab: Testbed) -> None:
    (made,) = every.now(lab, director="director-2").rounds
    assert (made.asked, made.wrong) == ("ftp://198.51.100.2:21/", None)
    assert made.distribution == {"three": {"expected": 12, "observed": 12}}


def test_a_persistent_mark_does_not_map_ports(fresh_lab: Testbed) -> None:
    """The kernel maps the port of a persistent service's own port only, and a mark has none."""
    director = fresh_lab.directors[0]
    director.execute("ipvsadm -E -f 1 -s rr -p 300")
    (left_out,) = [each for each in every.now(fresh_lab).left_out if each.service == "firewall mark 1"]
    assert "no service in lab.yaml in common that it reaches" in left_out.why
    assert "198.51.100.1:80 (tcp)" in left_out.why
    with pytest.raises(RequestFailed) as caught:
        fresh_lab.clients[0].get("http://198.51.100.1/")
    assert caught.value.kind == "refused"  # nothing listens on port 80 of the servers
    assert {"10.0.0.101:80", "10.0.0.102:80"}.intersection(fresh_lab.reading().entries.values())
