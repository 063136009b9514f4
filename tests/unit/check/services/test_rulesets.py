"""The reader of iptables' rules."""

from __future__ import annotations

import pytest

from lvslab.check.services.rulesets import Packet, Rule, parse_iptables, within


def rule(text: str) -> Rule:
    (base,) = parse_iptables(f"*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {text}\nCOMMIT\n")
    (found,) = base.chains["PREROUTING"]
    return found


def test_a_rule() -> None:
    found = rule("-s 10.0.0.0/8 -d 10.9.9.9/32 -i eth0 -p 17 -m udp --dport 53 -j MARK --set-xmark 0x5/0xff")
    assert (found.protocols, found.sources, found.destinations) == (
        ("udp",),
        ("10.0.0.0/8",),
        ("10.9.9.9/32",),
    )
    assert (found.ports, found.mark, found.jump, found.unclear) == (((53, 53),), (5, 0xFF), "", ())
    assert found.matches(Packet("udp", "10.9.9.9", 53), "10.1.2.3")
    assert not found.matches(Packet("tcp", "10.9.9.9", 53), "10.1.2.3")
    assert not found.matches(Packet("udp", "10.9.9.9", 53), "11.1.2.3")


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("--set-mark 0x5", (5, 0xFFFFFFFF)),
        ("--set-mark 0x5/0x2", (5, 7)),
        ("--or-mark 0x5", (5, 5)),
        ("--and-mark 0xff", (0, 0xFFFFFF00)),
        ("--xor-mark 0x5", (5, 0)),
    ],
)
def test_what_is_done_to_a_mark(text: str, mark: tuple[int, int]) -> None:
    assert rule(f"-j MARK {text}").mark == mark


@pytest.mark.parametrize(
    ("text", "jump", "goto"),
    [
        ("-j LOG", "", False),
        ("-j REJECT", "DROP", False),
        ("-g web", "web", True),
        ("-j QUEUE", "QUEUE", False),
    ],
)
def test_where_a_rule_leads(text: str, jump: str, goto: bool) -> None:
    found = rule(f"-p all {text}")
    assert (found.jump, found.goto, found.protocols, found.mark) == (jump, goto, (), None)


def test_hooks() -> None:
    bases = parse_iptables("-P PREROUTING ACCEPT\n-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-N web\n")
    assert [(base.hook, base.name) for base in bases] == [("prerouting", "PREROUTING"), ("input", "INPUT")]
    assert parse_iptables("sh: iptables-save: not found\n") == []


def test_networks() -> None:
    assert within("10.0.0.1", ()) and within("10.0.0.1", ("fd00::/8", "10.0.0.0/24"))
    assert not within("fd00::1", ("10.0.0.0/24",))
