"""What clients must ask for to get a mark, by the director's mangle rules."""

from __future__ import annotations

import pytest

from lvslab.check.services import marks
from lvslab.check.services.marks import MarkUnknown
from lvslab.check.services.rulesets import Packet

VIP, CLIENT = "66.199.240.50", "66.199.240.10"
HEAD = "*mangle\n:PREROUTING ACCEPT [0:0]\n:web - [0:0]\n"
TO = f"-A PREROUTING -d {VIP}/32 -p tcp -m tcp"


def asked(
    *rules: str, mark: int = 80, interface: str = "eth0", port: int = 0, **ports: list[int]
) -> list[Packet]:
    text = HEAD + "".join(f"{rule}\n" for rule in rules) + "COMMIT\n"
    listening = ports or {"tcp": [80, 443]}
    found = marks.asked_for(
        mark,
        text,
        client=CLIENT,
        addresses=[VIP, "10.0.0.1"],
        ports=listening,
        interface=interface,
        port=port,
    )
    return list(found)


def test_two_ports_with_one_mark() -> None:
    rules = [f"{TO} --dport {port} -j MARK --set-xmark 0x50/0xffffffff" for port in (80, 443)]
    assert asked(*rules) == [Packet("tcp", VIP, 80), Packet("tcp", VIP, 443)]


@pytest.mark.parametrize(
    "rule",
    [
        f"{TO} --dport 80 -j MARK --set-mark 0x50",  # as old ones print it
        f"-A PREROUTING -d {VIP}/32 -p tcp -m multiport --dports 80,8080:8090 -j MARK --set-xmark 0x50/0xff",
        f"-A PREROUTING -s 66.199.240.0/24 -d {VIP}/32 -i eth0 -p 6 --dport 80 -j MARK --or-mark 80",
        '-A PREROUTING -d 66.199.240.48/28 -p tcp -m tcp --dport 80 -m comment --comment "the web" '
        "-j MARK --set-xmark 0x50/0xffffffff",
    ],
)
def test_forms_of_a_rule(rule: str) -> None:
    assert asked(rule, tcp=[80])[0] == Packet("tcp", VIP, 80)


def test_a_rule_without_an_address_takes_those_of_the_director() -> None:
    rule = "-A PREROUTING -p udp -m udp --dport 53 -j MARK --set-xmark 0x5/0xffffffff"
    assert asked(rule, mark=5, udp=[53])[0] == Packet("udp", VIP, 53)


def test_a_chain_of_the_readers_own_and_a_later_rule() -> None:
    jump, mark = f"{TO} --dport 1:1000 -j web", "-A web -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(jump, mark) == [Packet("tcp", VIP, 80), Packet("tcp", VIP, 443)]
    later = f"{TO} --dport 443 -j MARK --set-xmark 0x1/0xffffffff"
    assert asked(jump, mark, later) == [Packet("tcp", VIP, 80)]
    # Behind an ACCEPT no rule counts.
    assert asked(jump, mark, f"{TO} --dport 443 -j ACCEPT", later)[1:] == [Packet("tcp", VIP, 443)]
    assert asked(jump, "-A web -p tcp -m tcp --dport 80 -j RETURN", mark) == [Packet("tcp", VIP, 443)]


def test_bits_of_a_mark_add_up() -> None:
    both = [f"{TO} --dport 80 -j MARK --set-xmark 0x{bits}/0x{bits}" for bits in (40, 10)]
    whole = f"{TO} --dport 443 -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(*both, whole) == [Packet("tcp", VIP, 80), Packet("tcp", VIP, 443)]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([], "no rule of the director's mangle table sets mark 80"),
        (
            ["-A PREROUTING -d 2001:db8::1/128 -p tcp -j MARK --set-xmark 0x50/0xffffffff"],
            "no packet to an address of the director gets mark 80",
        ),
        (
            [f"{TO} -j MARK --set-xmark 0x50/0xffffffff", "-A INPUT -j MARK --set-xmark 0x0/0x10"],
            "no packet to an address of the director gets mark 80",
        ),
        (
            [f"{TO} -m set --match-set shops dst -j MARK --set-xmark 0x50/0xffffffff"],
            "cannot be told .* looks at -m set --match-set shops dst",
        ),
        (
            [f"{TO} -j MARK --set-xmark 0x50/0xffffffff", f"{TO} -j DROP"],
            "no packet to an address of the director gets mark 80",
        ),
        (
            [f"{TO} --dport 80 -m conntrack --ctstate NEW -j MARK --set-xmark 0x50/0xffffffff"],
            "cannot be told .* looks at -m conntrack --ctstate NEW",
        ),
        (
            [f"-A PREROUTING ! -d {VIP}/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x50/0xffffffff"],
            "cannot be told .* looks at ! -d",
        ),
        (
            [f"{TO} --dport 80 -j MARK --set-xmark 0x50/0xffffffff", f"{TO} -j CONNMARK --restore-mark"],
            "cannot be told .* does more than set a mark|looks at",
        ),
    ],
)
def test_what_cannot_be_told(rules: list[str], says: str) -> None:
    with pytest.raises(MarkUnknown, match=says):
        asked(*rules)


def test_ports_that_only_the_rules_name() -> None:
    """A masquerading director may map them."""
    rule = f"{TO} --dport 8000:8010 -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(rule, tcp=[80]) == [Packet("tcp", VIP, 8000)]
    # In a chain, those of the rule that leads there.
    assert asked(f"{TO} --dport 88 -j web", "-A web -j MARK --set-xmark 0x50/0xffffffff") == [
        Packet("tcp", VIP, 88)
    ]
    # The end of a chain that was gone to is that of the one before.
    later = "-A PREROUTING -j MARK --set-xmark 0x0/0xffffffff"
    rules = f"{TO} --dport 88 -g web", "-A web -j MARK --set-mark 80", later
    assert asked(*rules) == [Packet("tcp", VIP, 88)]


def test_rules_for_what_is_the_directors_own_come_later() -> None:
    rules = f"{TO} --dport 80 -j MARK --set-mark 64", "-A INPUT -j MARK --or-mark 16"
    assert asked(*rules) == [Packet("tcp", VIP, 80)]
    with pytest.raises(MarkUnknown, match=r"no packet .* gets mark 64"):
        asked(rules[0], "-A INPUT -j MARK --and-mark 0xf", mark=64)


def test_an_unclear_rule_for_other_packets_does_not_matter() -> None:
    mark = f"{TO} --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    other = "-A PREROUTING -d 10.9.9.9/32 -m conntrack --ctstate NEW -j MARK --set-xmark 0x1/0xffffffff"
    assert asked(other, mark) == [Packet("tcp", VIP, 80)]


OWN = """{"nftables": [
 {"chain": {"family": "ip", "table": "web", "name": "pre", "hook": "prerouting", "prio": -150}},
 {"rule": {"family": "ip", "table": "web", "chain": "pre", "handle": 2, "expr": [
  {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 443}},
  {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 80}}]}}]}
"""


def test_rules_of_every_variant_count() -> None:
    one, other = (f"{TO} --dport {port} -j MARK --set-xmark 0x50/0xffffffff" for port in (80, 81))
    text = f"{one}\n-- another variant of iptables\n*mangle\n{other}\n-- nft\n{OWN}"
    found = marks.asked_for(80, text, client=CLIENT, addresses=[VIP], ports={"tcp": [80, 81, 443]})
    assert [packet.port for packet in found] == [80, 81, 443]


def test_an_nft_that_prints_no_json() -> None:
    said = "-- nft\ntable inet web {\n tcp dport 80 meta mark set 0x50\n}"
    with pytest.raises(MarkUnknown, match="cannot print its rules as JSON"):
        asked(said)
    with pytest.raises(MarkUnknown, match="no rule of the director's mangle table"):
        asked("-- nft\ntable inet web {\n}")


def test_where_the_rules_are_read_from() -> None:
    assert "iptables-nft-save" in marks.command(4) and "ip_tables_names" in marks.command(4)
    assert "ip6tables-nft-save" in marks.command(6) and "ip6_tables_names" in marks.command(6)


def test_a_rule_for_another_interface_takes_no_packet_of_the_client() -> None:
    rule = f"-A PREROUTING -i {{}} -d {VIP}/32 -p tcp --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    for name in ("eth0", "eth+", "+"):
        assert asked(rule.format(name), tcp=[80]) == [Packet("tcp", VIP, 80)]
    with pytest.raises(MarkUnknown, match=r"no packet to an address .* -i eth1 .* 0x50"):
        asked(rule.format("eth1"), tcp=[80])
    # Where the interface is not known, it is taken to be the rule's.
    assert asked(rule.format("eth1"), interface="", tcp=[80]) == [Packet("tcp", VIP, 80)]


@pytest.mark.parametrize("chain", ["FORWARD", "OUTPUT", "POSTROUTING", "web"])
def test_a_rule_in_a_chain_that_no_request_passes(chain: str) -> None:
    rule = f"-A {chain} -d {VIP}/32 -p tcp --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    with pytest.raises(
        MarkUnknown, match=f"requests do not pass the chain in which mark 80 is set: -A {chain}"
    ):
        asked(rule, tcp=[80])
    if chain == "web":
        assert asked("-A INPUT -p tcp -j web", rule, tcp=[80]) == [Packet("tcp", VIP, 80)]


def test_a_port_without_the_mark_is_named() -> None:
    rule = f"{TO} --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(rule, port=80) == [Packet("tcp", VIP, 80)]
    with pytest.raises(MarkUnknown, match="gives packets to port 443 the mark 80; those to port 80 get it"):
        asked(rule, port=443)


def test_a_port_within_a_range() -> None:
    rule = f"{TO} --dport 8000:8010 -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(rule, port=8005) == [Packet("tcp", VIP, 8005)]
    everything = f"{TO} -j MARK --set-xmark 0x50/0xffffffff"
    assert Packet("tcp", VIP, 8443) in asked(everything, port=8443)


def test_a_range_whose_beginning_another_rule_takes() -> None:
    first = f"{TO} --dport 8000:8003 -j ACCEPT"
    rule = f"{TO} --dport 8000:8010 -j MARK --set-xmark 0x50/0xffffffff"
    assert [packet.port for packet in asked(first, rule)] == [8004, 8010]


def test_marks_of_connections() -> None:
    mark = f"{TO} --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    save, restore = (
        f"-A PREROUTING -j CONNMARK --{what}-mark --nfmask 0xf --ctmask 0xf" for what in ("save", "restore")
    )
    assert asked(mark, save) == [Packet("tcp", VIP, 80)]
    assert asked(restore, mark) == [Packet("tcp", VIP, 80)]
    with pytest.raises(MarkUnknown, match=r"cannot be told .*CONNMARK"):
        asked(restore)
    with pytest.raises(MarkUnknown, match=r"cannot be told .*CONNMARK"):
        asked(mark, restore)


def test_rules_that_drop_and_accept_for_other_reasons() -> None:
    mark = f"{TO} --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    invalid = "-A PREROUTING -m conntrack --ctstate INVALID -j DROP"
    assert asked(invalid, mark) == [Packet("tcp", VIP, 80)]
    assert asked(mark, "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT") == [Packet("tcp", VIP, 80)]
    with pytest.raises(MarkUnknown, match=r"cannot be told .* --ctstate ESTABLISHED"):
        asked("-A PREROUTING -m conntrack --ctstate ESTABLISHED -j ACCEPT", mark)
