"""What real directors print, read; tests/unit/test_ipvs_table.py has what they could."""

from __future__ import annotations

import pytest

from lvslab.check.ipvs.listing import (
    Counters,
    Rates,
    parse_connection_entries,
    parse_counters,
    parse_kernel_order,
    parse_listing,
    parse_rates,
)
from lvslab.check.ipvs.table import TableError
from tests.unit.check.ipvs.listings import KERNELS, listing

SERVICE, ONE, TWO = "66.199.240.50:80", "10.0.0.100:80", "10.0.0.101:80"
PAGE = 110_000_000


def test_kernels_of_all_ages() -> None:
    assert KERNELS == ["2.4.37.11", "2.6.18", "2.6.39", "debian-6.1"]
    for kernel in KERNELS:
        release = listing(kernel, "uname -r").strip()
        assert release.startswith(kernel.removeprefix("debian-"))


@pytest.mark.parametrize("kernel", KERNELS)
def test_connections(kernel: str) -> None:
    (service,) = parse_listing(listing(kernel, "ipvsadm -Ln"))
    assert (str(service), service.scheduler) == (SERVICE, "wlc")
    assert [(str(server), server.forwarding, server.weight) for server in service.servers] == [
        (ONE, "masquerading", 1),
        (TWO, "masquerading", 2),
    ]
    assert [server.active for server in service.servers] == [0, 0]
    # What ended more than two minutes ago is forgotten: on one of them the first round.
    assert sum(server.inactive for server in service.servers) == (3 if kernel == "debian-6.1" else 15)


@pytest.mark.parametrize("kernel", KERNELS)
def test_counters(kernel: str) -> None:
    found = parse_counters(listing(kernel, "ipvsadm -Ln --stats --exact"))
    assert list(found) == [(SERVICE, ""), (SERVICE, ONE), (SERVICE, TWO)]
    whole, one, two = found.values()
    assert whole.connections == 15
    assert PAGE < whole.bytes_out < 1.1 * PAGE
    # A card that takes large segments makes one packet of many.
    assert whole.packets_out > PAGE // 65536
    assert whole.since(one) == two


@pytest.mark.parametrize("kernel", KERNELS)
def test_cut_counters_are_refused(kernel: str) -> None:
    text = listing(kernel, "ipvsadm -Ln --stats")
    with pytest.raises(TableError, match=r"'1\d{5}K' is not a count") as refused:
        parse_counters(text)
    assert refused.value.hint == "read them with --exact"


@pytest.mark.parametrize("kernel", KERNELS)
def test_rates(kernel: str) -> None:
    rates = parse_rates(listing(kernel, "ipvsadm -Ln --rate --exact"))
    assert list(rates) == [(SERVICE, ""), (SERVICE, ONE), (SERVICE, TWO)]
    whole, *servers = rates.values()
    assert whole.bytes_out > 1_000_000
    # An average of each, rounded by itself.
    assert whole.bytes_out == pytest.approx(sum(server.bytes_out for server in servers), abs=5)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("TCP  1.2.3.4:80        1     2     3     4     123456K", "'123456K' is not a count"),
        ("TCP  1.2.3.4:80        1     2     3     4", "not a line of `ipvsadm -Ln --rate`"),
        ("TCP  1.2.3.4:80 1 2 3 4 5\n  -> 10.0.0.1:80  1 2 3", "not a line of `ipvsadm -Ln --rate`"),
    ],
)
def test_what_are_no_rates(line: str, says: str) -> None:
    with pytest.raises(TableError, match=says):
        parse_rates(line)


def test_rates_of_differences() -> None:
    before, now = Counters(10, 20, 30, 40, 50), Counters(11, 22, 33, 44, 55)
    assert now.since(before).per(2.0) == Rates(0.5, 1.0, 1.5, 2.0, 2.5)
    assert before.since(before).per(2.0) == Rates(0, 0, 0, 0, 0)
    assert now.since(before).per(0.0) is None
    # Zeroed meanwhile.
    assert before.since(now).per(2.0) is None


def test_the_kernels_order_of_servers() -> None:
    text = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
FWM  00000050 rr  persistent 75000 FFFFFFFF
  -> 0A000065:0000      Masq    1      0          12
  -> 0A000064:0000      Masq    1      0          0
TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 wlc
  -> [fd00:0000:0000:0000:0000:0000:0000:0064]:0050      Masq    1      0          0
UDP  42C7F032:0035 wlc ops
  -> 0A000064:14E9      Masq    1      0          0
"""
    assert parse_kernel_order(text) == {
        "firewall mark 80": ("10.0.0.101:0", "10.0.0.100:0"),
        "[2001:db8::1]:80": ("[fd00::64]:80",),
        "66.199.240.50:53 (udp)": ("10.0.0.100:5353",),
    }


def test_a_template_of_a_firewall_mark() -> None:
    line = "IP  04:58  ASSURED     66.199.240.10:0    0.0.0.80:0         10.0.0.101:0"
    (entry,) = parse_connection_entries(line)
    assert (entry.protocol, entry.client, entry.virtual) == ("fwmark", "66.199.240.10:0", "0.0.0.80:0")
