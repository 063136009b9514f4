"""What clients must ask for to get a mark, by the director's mangle rules."""

from __future__ import annotations

import pytest

from lvslab.check.services import marks
from lvslab.check.services.marks import Asked, MarkUnknown

VIP, CLIENT = "66.199.240.50", "66.199.240.10"
HEAD = "*mangle\n:PREROUTING ACCEPT [0:0]\n:web - [0:0]\n"
TO = f"-A PREROUTING -d {VIP}/32 -p tcp -m tcp"


def asked(*rules: str, mark: int = 80, **ports: list[int]) -> list[Asked]:
    text = HEAD + "".join(f"{rule}\n" for rule in rules) + "COMMIT\n"
    listening = ports or {"tcp": [80, 443]}
    found = marks.asked_for(mark, text, client=CLIENT, addresses=[VIP, "10.0.0.1"], ports=listening)
    return list(found)


def test_two_ports_with_one_mark() -> None:
    rules = [f"{TO} --dport {port} -j MARK --set-xmark 0x50/0xffffffff" for port in (80, 443)]
    assert asked(*rules) == [Asked("tcp", VIP, 80), Asked("tcp", VIP, 443)]


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
    assert asked(rule, tcp=[80]) == [Asked("tcp", VIP, 80)]


def test_a_rule_without_an_address_takes_those_of_the_director() -> None:
    rule = "-A PREROUTING -p udp -m udp --dport 53 -j MARK --set-xmark 0x5/0xffffffff"
    assert asked(rule, mark=5, udp=[53])[0] == Asked("udp", VIP, 53)


def test_a_chain_of_the_readers_own_and_a_later_rule() -> None:
    jump, mark = f"{TO} --dport 1:1000 -j web", "-A web -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(jump, mark) == [Asked("tcp", VIP, 80), Asked("tcp", VIP, 443)]
    later = f"{TO} --dport 443 -j MARK --set-xmark 0x1/0xffffffff"
    assert asked(jump, mark, later) == [Asked("tcp", VIP, 80)]
    # Behind an ACCEPT no rule counts.
    assert asked(jump, mark, f"{TO} --dport 443 -j ACCEPT", later)[1:] == [Asked("tcp", VIP, 443)]
    assert asked(jump, "-A web -p tcp -m tcp --dport 80 -j RETURN", mark) == [Asked("tcp", VIP, 443)]


def test_bits_of_a_mark_add_up() -> None:
    both = [f"{TO} --dport 80 -j MARK --set-xmark 0x{bits}/0x{bits}" for bits in (40, 10)]
    whole = f"{TO} --dport 443 -j MARK --set-xmark 0x50/0xffffffff"
    assert asked(*both, whole) == [Asked("tcp", VIP, 80), Asked("tcp", VIP, 443)]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([], "no rule of the director's mangle table sets mark 80"),
        (
            [f"{TO} --dport 25 -j MARK --set-xmark 0x50/0xffffffff"],
            "no packet to a port that the real servers",
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


def test_rules_of_nft_are_not_read() -> None:
    rule = "tcp dport 80 meta mark set 0x50"
    own = ["table inet web {", "chain pre {", rule]
    with pytest.raises(MarkUnknown, match="nft has rules that set marks"):
        asked(*(f"nft: {line}" for line in own))
    # iptables of today keeps its own rules there too.
    with pytest.raises(MarkUnknown, match="no rule of the director's mangle table"):
        asked(*(f"nft: {line}" for line in ["table ip mangle {", rule]))


def test_an_unclear_rule_for_other_packets_does_not_matter() -> None:
    mark = f"{TO} --dport 80 -j MARK --set-xmark 0x50/0xffffffff"
    other = "-A PREROUTING -d 10.9.9.9/32 -m conntrack --ctstate NEW -j MARK --set-xmark 0x1/0xffffffff"
    assert asked(other, mark) == [Asked("tcp", VIP, 80)]
