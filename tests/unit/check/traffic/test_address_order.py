"""The model against orders that were worked out by hand from RFC 6724, and against this machine's glibc."""

from __future__ import annotations

import pytest

from lvslab.check.traffic.address_order import client_order

FOUR = ("66.199.240.50", "66.199.240.51", "66.199.240.52")
SIX = ("2001:db8:240::50", "2001:db8:240::51", "2001:db8:240::52")


def turned(records: tuple[str, ...], number: int) -> tuple[str, ...]:
    return records[number:] + records[:number]


@pytest.mark.parametrize("number", range(3))
def test_addresses_with_equal_prefixes_stay_in_the_servers_order(number: int) -> None:
    # .10 is 00001010, and differs from 00110010, 00110011 and 00110100 in the same bit first.
    assert client_order(turned(FOUR, number), ["66.199.240.10/24"]) == turned(FOUR, number)
    assert client_order(turned(SIX, number), ["2001:db8:240::10/64"]) == turned(SIX, number)


@pytest.mark.parametrize("number", range(3))
def test_the_longest_common_prefix_comes_first(number: int) -> None:
    # .53 is 00110101: 31 bits in common with .52, 29 with the two others.
    served = turned(FOUR, number)
    others = tuple(address for address in served if address != "66.199.240.52")
    assert client_order(served, ["66.199.240.53/24"]) == ("66.199.240.52", *others)
    # .49 is 00110001: 30 bits in common with .50 and .51, 29 with .52.
    assert client_order(served, ["66.199.240.49/24"])[2] == "66.199.240.52"
    served = turned(SIX, number)
    others = tuple(address for address in served if not address.endswith("52"))
    assert client_order(served, ["2001:db8:240::53/64"]) == ("2001:db8:240::52", *others)


def test_ipv6_comes_first_where_a_client_has_it() -> None:
    both = ["66.199.240.11/24", "2001:db8:240::11/64"]
    assert client_order(FOUR + SIX, both) == SIX + FOUR
    assert client_order(SIX + FOUR, both) == SIX + FOUR


def test_what_cannot_be_reached_comes_last() -> None:
    assert client_order(SIX + FOUR, ["66.199.240.10/24"]) == FOUR + SIX
    assert client_order(FOUR + SIX, ["2001:db8:240::10/64"]) == SIX + FOUR
    assert client_order(("192.0.2.1", *FOUR), ["66.199.240.10/24"]) == (*FOUR, "192.0.2.1")
