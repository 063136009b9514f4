from __future__ import annotations

import shlex

import pytest

from lvslab.check.ipvs.listing import Counters, parse_counters, parse_listing, parse_thresholds
from lvslab.check.ipvs.rules import parse_rules, table_of
from lvslab.check.ipvs.table import Destination, Service, TableError, compare, scan_order

HOWTO = """\
ipvsadm -A -t 66.199.240.50:80 -s wlc
ipvsadm -a -t 66.199.240.50:80 -r 10.0.0.100:80 -m
ipvsadm -a -t 66.199.240.50:80 -r 10.0.0.101:80 -m -w 2
"""

SAVED = """\
-A -t 66.199.240.50:80 -s wlc
-a -t 66.199.240.50:80 -r 10.0.0.100:80 -m -w 1
-a -t 66.199.240.50:80 -r 10.0.0.101:80 -m -w 2
"""

LISTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  66.199.240.50:80 wlc
  -> 10.0.0.101:80                Masq    2      1          14        
  -> 10.0.0.100:80                Masq    1      0          7         
TCP  [2001:db8::1]:80 sh (sh-fallback,sh-port) persistent 300
  -> [2001:db8:0:1::100]:80       Route   1      0          0         
FWM  3 rr
  -> 10.0.0.100:0                 Tunnel  1      0          0         
  -> 127.0.0.1:0                  Local   1      0          0         
FWM  4 IPv6 rr
"""  # noqa: W291

STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  66.199.240.50:80                   12       72       60     5040    18000
  -> 10.0.0.100:80                       4       24       20     1680     6000
  -> 10.0.0.101:80                       8       48       40     3360 12345678901
FWM  4 IPv6                              0        0        0        0        0
"""

VIP = "66.199.240.50"


def parse_calls(text: str) -> tuple[Service, ...]:
    """Return the table that calls of ipvsadm make, one on each line."""
    return table_of((shlex.split(line)[1:], line) for line in text.splitlines())


def test_howto_and_kernel_give_the_same_table() -> None:
    expected = parse_calls(HOWTO)
    assert expected == (
        Service(
            protocol="tcp",
            address=VIP,
            port=80,
            scheduler="wlc",
            destinations=(
                Destination("10.0.0.100", 80, "masquerading", 1),
                Destination("10.0.0.101", 80, "masquerading", 2),
            ),
        ),
    )
    assert compare(expected, parse_rules(SAVED)) == []


def test_the_last_one_added_is_scanned_first() -> None:
    (service,) = parse_calls(HOWTO)
    assert [server.address for server in scan_order(service)] == ["10.0.0.101", "10.0.0.100"]


def test_defaults() -> None:
    (service,) = parse_calls("ipvsadm -A -t 10.9.9.9:80\nipvsadm -a -t 10.9.9.9:80 -r 10.0.0.100:8080\n")
    assert service.scheduler == "wlc"
    # Gatewaying keeps the service's port, whatever -r says.
    assert service.destinations == (Destination("10.0.0.100", 80, "gatewaying", 1),)


def test_a_masqueraded_server_may_have_another_port() -> None:
    (service,) = parse_rules(
        "-A -t 10.9.9.9:80\n-a -t 10.9.9.9:80 -r 10.0.0.1:8080 -m\n-a -t 10.9.9.9:80 -r 10.0.0.2 -m"
    )
    assert [str(server) for server in service.destinations] == ["10.0.0.1:8080", "10.0.0.2:80"]


def test_what_else_a_person_types() -> None:
    text = """\
ipvsadm -C
ipvsadm -At 66.199.240.50:21 -s wlc -p
ipvsadm --add-server --tcp-service=66.199.240.50:21 --real-server 10.0.0.100:21 --masquerading --weight 2
ipvsadm -Ln
ipvsadm -A -t 10.1.1.1:80
ipvsadm -D -t 10.1.1.1:80
ipvsadm -E -t 66.199.240.50:21 -s=rr
ipvsadm --set 900 120 300
ipvsadm --start-daemon master --syncid 3 --mcast-interface eth1
ipvsadm -R
ipvsadm -e -t 66.199.240.50:21 -mr 10.0.0.100 -w 3
"""
    (service,) = parse_calls(text)
    assert service == Service("tcp", VIP, 21, "rr", (Destination("10.0.0.100", 21, "masquerading", 3),))


def test_numbers_and_addresses_as_the_c_library_reads_them() -> None:
    (service,) = parse_calls(
        "ipvsadm -A -t 10.1:+80 -p ' 60' -M 0xffffff00\nipvsadm -a -t 10.0.0.1:80 -r 10.2"
    )
    assert (str(service), service.persistent, service.netmask) == ("10.0.0.1:80", 60, "255.255.255.0")
    assert [str(server) for server in service.destinations] == ["10.0.0.2:80"]


def test_options_may_be_cut_short() -> None:
    (service,) = parse_calls("ipvsadm --add-servi --tcp 10.0.0.1:80 --schedu rr")
    assert (str(service), service.scheduler) == ("10.0.0.1:80", "rr")
    with pytest.raises(TableError):  # service or server?
        parse_calls("ipvsadm --add-serv --tcp 10.0.0.1:80")


def test_every_option_of_a_saved_table() -> None:
    saved = """\
-A -t [2001:db8::1]:80 -s sh -p 300 -M 64 -b sh-fallback,sh-port
-a -t [2001:db8::1]:80 -r [2001:db8:0:1::100]:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-A -u 10.1.1.1:5060 -s rr -p 60 -M 255.255.255.0 --pe sip -o
-A -f 3 -s wrr
-a -f 3 -r 10.0.0.100:0 -g -w 0
-A -f 3 -6 -s wrr
"""
    six, sip, mark, mark6 = parse_rules(saved)
    assert str(six) == "[2001:db8::1]:80"
    assert (six.persistent, six.netmask, six.scheduler_flags) == (300, "64", ("sh-fallback", "sh-port"))
    assert six.destinations == (
        Destination("2001:db8:0:1::100", 80, "tunneling", 1, tunnel="gue --tun-port 6080"),
    )
    assert str(sip) == "10.1.1.1:5060 (udp)"
    assert (sip.netmask, sip.persistence_engine, sip.one_packet) == ("255.255.255.0", "sip", True)
    assert (str(mark), mark.mark, mark.destinations[0].weight) == ("firewall mark 3", 3, 0)
    assert str(mark6) == "firewall mark 3 (IPv6)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipvsadm -A -t 1.2.3.4:80 --frobnicate", "ipvsadm -A has no option --frobnicate"),
        ("ipvsadm -A -t 1.2.3.4:80 -w 2", "ipvsadm -A has no option -w"),
        ("ipvsadm -A -t 1.2.3.4:http", "'http' is not a number from 0 to 65535"),
        ("ipvsadm -A -t www:80", "'www' is not an IP address"),
        ("ipvsadm -A -t 1.2.3.4:80 extra", "does not expect 'extra'"),
        ("ipvsadm -A -t 1.2.3.4:80 -s", "-s needs a value"),
        ("ipvsadm -A", "one of -t, -u, -f is needed"),
        ("ipvsadm -t 1.2.3.4:80", "one of -A, -E, -D, -C, -a, -e, -d is needed"),
        ("ipvsadm -A -t 1.2.3.4", "must be persistent"),
        ("ipvsadm -A -t 1.2.3.4:80 -o", "for UDP services"),
        ("ipvsadm -a -t 1.2.3.4:80 -r 10.0.0.1 -m", "the service 1.2.3.4:80 does not exist"),
        ("ipvsadm -A -t 1.2.3.4:80\nipvsadm -A -t 1.2.3.4:80", "exists already"),
        ("-A -t 1.2.3.4:80\n-a -t 1.2.3.4:80 -r 10.0.0.1 -m -g", "one forwarding method only"),
        ("-A -t 1.2.3.4:80\n-a -t 1.2.3.4:80 -r 10.0.0.1 -w -1", "'-1' is not a number"),
        ("-A -t 1.2.3.4:80\n-d -t 1.2.3.4:80 -r 10.0.0.1", "does not forward to 10.0.0.1:80"),
    ],
)
def test_what_cannot_be_understood(text: str, message: str) -> None:
    with pytest.raises(TableError) as caught:
        (parse_calls if "ipvsadm" in text else parse_rules)(text)
    assert message in str(caught.value)


def test_connections_keep_the_order_of_the_listing() -> None:
    web, six, mark, mark6 = parse_listing(LISTED)
    assert [(str(row), row.weight, row.active, row.inactive) for row in web.servers] == [
        ("10.0.0.101:80", 2, 1, 14),
        ("10.0.0.100:80", 1, 0, 7),
    ]
    assert (web.scheduler, web.flags) == ("wlc", "")
    assert (six.scheduler, six.flags) == ("sh", "(sh-fallback,sh-port) persistent 300")
    assert [row.forwarding for row in mark.servers] == ["tunneling", "local"]
    assert (mark6.ipv6, mark6.scheduler, mark6.servers) == (True, "rr", ())


def test_counters() -> None:
    found = parse_counters(STATS)
    web, one, two, mark = found
    assert (web, one, two) == ((f"{VIP}:80", ""), (web[0], "10.0.0.100:80"), (web[0], "10.0.0.101:80"))
    assert found[web] == Counters(12, 72, 60, 5040, 18000)
    assert [found[row].connections for row in (one, two)] == [4, 8]
    assert found[two].bytes_out == 12345678901
    assert (mark, found[mark]) == (("firewall mark 4 (IPv6)", ""), Counters(0, 0, 0, 0, 0))
    assert found[web].since(found[one]) == Counters(8, 48, 40, 3360, 12000)


def test_an_empty_table() -> None:
    title = "\n".join(LISTED.splitlines()[:3])
    assert parse_listing(title) == ()
    assert parse_counters(title) == {}
    assert parse_rules("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ipvsadm: command not found", "not a line of `ipvsadm -Ln`"),
        ("TCP  1.2.3.4:80 wlc\n  -> 10.0.0.1:80  Masq 1 0", "not a line of `ipvsadm -Ln`"),
    ],
)
def test_a_listing_that_is_none(text: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        parse_listing(text)


def test_counters_must_be_exact() -> None:
    with pytest.raises(TableError) as caught:
        parse_counters("TCP  1.2.3.4:80        1     2     3     4     123456K")
    assert "read them with --exact" in str(caught.value)


def test_a_listing_without_thresholds() -> None:
    with pytest.raises(TableError, match="not a line of `ipvsadm -Ln --thresholds`"):
        parse_thresholds("TCP  1.2.3.4:80 wlc\n  -> 10.0.0.1:80  Masq")


def test_a_missing_server() -> None:
    observed = parse_rules("".join(SAVED.splitlines(keepends=True)[:2]))
    assert compare(parse_calls(HOWTO), observed) == [
        "the director forwards 66.199.240.50:80 to 10.0.0.100 only; 10.0.0.101:80 (weight 2) is missing, "
        "though the steps added it"
    ]


def test_no_server_and_no_service() -> None:
    expected = parse_calls(HOWTO)
    (difference,) = compare(expected, parse_rules("-A -t 66.199.240.50:80 -s wlc"))
    assert difference.endswith(
        "to no server; 10.0.0.100:80 (weight 1) and 10.0.0.101:80 (weight 2) are missing, "
        "though the steps added them"
    )
    (difference,) = compare(expected, ())
    assert "table is empty" in difference
    assert compare(expected, parse_rules("-A -t 66.199.240.50:8080 -s wlc")) == [
        "the director has no virtual service 66.199.240.50:80, only 66.199.240.50:8080",
        "the director has a virtual service 66.199.240.50:8080, which no ipvsadm of the steps made",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-s wlc", "-s rr", "is scheduled by rr, not by wlc"),
        ("-w 2", "-w 1", "gives 10.0.0.101:80 the weight 1, not 2"),
        ("-w 2", "-w 2 -x 9 -y 3", "the thresholds 9 (upper) and 3 (lower), not 0 and 0"),
        ("10.0.0.101:80 -m", "10.0.0.101:80 -g", "10.0.0.101:80 by gatewaying, not by masquerading"),
        ("-s wlc", "-s wlc -p 300", "has persistence of 300 s; the steps say no persistence"),
        (
            "10.0.0.101:80 -m -w 2",
            "10.0.0.102:80 -m -w 2",
            "also forwards 66.199.240.50:80 to 10.0.0.102:80",
        ),
    ],
)
def test_differences(old: str, new: str, message: str) -> None:
    assert message in "\n".join(compare(parse_calls(HOWTO), parse_rules(SAVED.replace(old, new))))
