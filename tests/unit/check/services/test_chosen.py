"""Directors and services by the names that commands are given."""

from __future__ import annotations

import pytest

from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.services.chosen import director_of, services_of
from lvslab.errors import StateError, UsageError
from tests.unit.fake_cluster import FakeCluster

TABLE = parse_rules("-A -t 66.199.240.50:80\n-A -u 66.199.240.50:53\n-A -f 3\n")


def test_the_first_director_is_meant_without_a_name() -> None:
    assert director_of(FakeCluster(), "") == director_of(FakeCluster(), "director") == "director"
    with pytest.raises(UsageError, match="the lab 'a' has no director 'rs1'"):
        director_of(FakeCluster(), "rs1")


@pytest.mark.parametrize(
    ("name", "found"),
    [("", [0, 1, 2]), ("66.199.240.50", [0, 1]), ("66.199.240.50:80", [0]), ("firewall mark 3", [2])],
)
def test_services_have_names_and_addresses(name: str, found: list[int]) -> None:
    assert services_of(TABLE, name, "director") == [TABLE[number] for number in found]


def test_there_is_no_such_service() -> None:
    with pytest.raises(UsageError, match=r"director has no virtual service '10\.0\.0\.1'"):
        services_of(TABLE, "10.0.0.1", "director")
    with pytest.raises(StateError, match="director has no virtual service"):
        services_of((), "", "director")
