from __future__ import annotations

import pytest

from lvslab.check.ipvs.listing import Counters, Rates
from lvslab.check.ipvs.stats import parse_percpu, parse_stats
from lvslab.check.ipvs.table import TableError
from tests.unit.check.ipvs.listings import KERNELS, listing, sections

ADDED_UP = [kernel for kernel in KERNELS if "cat /proc/net/ip_vs_stats_percpu" in sections(kernel)]
EMPTY = "\n".join(["a", "b", "0 0 0 0 0", "", "c", "0 0 0 0 0"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_whole_is_what_ipvsadm_says_of_the_only_service(kernel: str) -> None:
    from lvslab.check.ipvs.listing import parse_counters, parse_rates

    stats = parse_stats(listing(kernel, "cat /proc/net/ip_vs_stats"))
    found = parse_counters(listing(kernel, "ipvsadm -Ln --stats --exact"))
    (service,) = [name for name, server in found if not server]
    assert stats.counters == found[service, ""]
    assert stats.counters.bytes_out > 110_000_000
    rates = parse_rates(listing(kernel, "ipvsadm -Ln --rate --exact"))[service, ""]
    assert stats.rates.bytes_out == pytest.approx(rates.bytes_out, rel=0.01)


@pytest.mark.parametrize("kernel", ADDED_UP)
def test_processors_by_themselves(kernel: str) -> None:
    found = parse_percpu(listing(kernel, "cat /proc/net/ip_vs_stats_percpu"))
    assert found.shown == parse_stats(listing(kernel, "cat /proc/net/ip_vs_stats")).counters
    assert len(found.counted) == 1
    assert found.up_to_date


def test_kernels_without_and_with_processors_by_themselves() -> None:
    assert ADDED_UP == ["2.6.39", "debian-6.1"]


def test_what_has_not_been_added_up_yet() -> None:
    rows = ["Total", "CPU", "  0 A 1 1 64 0", "  1 1 0 0 0 0", "  ~ A 1 1 64 0", "", "Conns/s", "0 0 0 0 0"]
    found = parse_percpu("\n".join(rows))
    assert found.counted == (Counters(10, 1, 1, 100, 0), Counters(1, 0, 0, 0, 0))
    assert not found.up_to_date
    assert parse_percpu("\n".join(rows).replace("~ A", "~ B")).up_to_date


def test_nothing_counted() -> None:
    stats = parse_stats(EMPTY)
    assert (stats.counters, stats.rates) == (Counters(0, 0, 0, 0, 0), Rates(0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    "text",
    ["", "cat: not found", EMPTY.replace("0 0 0 0 0", "0 0 0 0", 1), EMPTY.replace("0 0 0", "0 0 x", 1)],
)
def test_what_is_no_list_of_the_kernel(text: str) -> None:
    with pytest.raises(TableError, match="not what /proc/net/ip_vs_stats holds"):
        parse_stats(text)
    with pytest.raises(TableError, match="not what /proc/net/ip_vs_stats_percpu holds"):
        parse_percpu(text)
