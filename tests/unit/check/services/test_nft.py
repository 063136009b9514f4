"""Rules of nft that set marks, as nftables 1.0.6 prints them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lvslab.check.services import marks, nft
from lvslab.check.services.marks import MarkUnknown
from lvslab.check.services.rulesets import Packet

VIP, CLIENT = "66.199.240.50", "66.199.240.10"
MARK = {"meta": {"key": "mark"}}


def payload(protocol: str, field: str, right: Any, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str, right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": right}}


def marked(value: Any = 80) -> dict[str, Any]:
    return {"mangle": {"key": MARK, "value": value}}


TO, WEB = payload("ip", "daddr", VIP), payload("tcp", "dport", 80)


def document(
    *rules: list[Any],
    more: list[Any] | None = None,
    hook: str = "prerouting",
    prio: int = -150,
    family: str = "inet",
    **about: Any,
) -> str:
    table = {"family": family, "table": "web"}
    chains = [{"chain": {**table, "name": "pre", "type": "filter", "hook": hook, "prio": prio, **about}}]
    chains += [{"chain": {**table, "name": "own"}}]
    made = [
        {
            "rule": {
                **table,
                "chain": "own" if rule[0] == "own" else "pre",
                "handle": number,
                "expr": rule[rule[0] == "own" :],
            }
        }
        for number, rule in enumerate(rules)
    ]
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *chains, *(more or []), *made]})


def asked(*rules: list[Any], mark: int = 80, **how: Any) -> list[Packet]:
    text = f"-- nft\n{document(*rules, **how)}\n"
    return [
        *marks.asked_for(mark, text, client=CLIENT, addresses=[VIP], ports={"tcp": [80, 443], "udp": [53]})
    ]


@pytest.mark.parametrize(
    "rule",
    [
        [TO, WEB, marked()],
        [meta("iifname", "eth0"), TO, WEB, {"counter": {"packets": 1}}, marked(), {"accept": None}],
        [payload("ip", "daddr", {"prefix": {"addr": "66.199.240.0", "len": 24}}), WEB, marked()],
        [meta("l4proto", {"set": ["tcp"]}), payload("th", "dport", {"range": [1, 100]}), marked()],
        [meta("nfproto", "ipv4"), WEB, marked()],
        [payload("ip", "saddr", CLIENT), payload("ip", "protocol", "tcp"), WEB, marked({"|": [MARK, 80]})],
        [WEB, marked({"^": [{"&": [MARK, 0]}, 80]})],
        [WEB, marked({"|": [{"&": [MARK, 0xFFFFFF00]}, 80]})],
    ],
)  # fmt: skip
def test_forms_of_a_rule(rule: list[Any]) -> None:
    assert asked(rule) == [Packet("tcp", VIP, 80)]


def test_sets_of_ports() -> None:
    both = [Packet("tcp", VIP, 80), Packet("tcp", VIP, 443)]
    assert asked([TO, payload("tcp", "dport", {"set": [80, {"range": [440, 450]}]}), marked()])[:2] == both
    named = {
        "set": {"family": "inet", "table": "web", "name": "tills", "elem": [443, {"elem": {"val": 80}}]}
    }
    assert asked([TO, payload("tcp", "dport", "@tills"), marked()], more=[named]) == both
    with pytest.raises(MarkUnknown, match="no packet"):  # a set without elements
        asked([payload("tcp", "dport", "@none"), marked()])
    with pytest.raises(MarkUnknown, match="no packet"):
        asked([meta("nfproto", "ipv6"), marked()])


def test_chains_and_verdicts() -> None:
    jump, own = [TO, {"jump": {"target": "own"}}], ["own", WEB, marked()]
    assert asked(jump, own) == [Packet("tcp", VIP, 80)]
    assert asked(jump, own, [WEB, {"drop": None}], [payload("tcp", "dport", 443), marked()]) == [
        Packet("tcp", VIP, 443)
    ]
    assert asked([TO, {"goto": {"target": "own"}}], own, [marked(1)]) == [Packet("tcp", VIP, 80)]
    assert asked([WEB, {"return": None}], [meta("l4proto", "tcp"), marked()]) == [Packet("tcp", VIP, 443)]
    assert asked([WEB, marked(), {"accept": None}], [marked(1)]) == [Packet("tcp", VIP, 80)]


def test_the_interface_counts_where_it_is_known() -> None:
    text = f"-- nft\n{document([meta('iifname', 'eth0*'), WEB, marked()])}\n"
    how: dict[str, Any] = {"client": CLIENT, "addresses": [VIP], "ports": {"tcp": [80]}}
    for interface in ("", "eth0", "eth0.5"):
        assert marks.asked_for(80, text, **how, interface=interface) == (Packet("tcp", VIP, 80),)
    with pytest.raises(MarkUnknown, match="no packet"):
        marks.asked_for(80, text, **how, interface="eth1")


def test_only_chains_that_packets_pass_before_ipvs() -> None:
    assert asked([WEB, marked()], hook="input", prio=0) == [Packet("tcp", VIP, 80)]
    assert asked([WEB, marked()], hook="input", prio=98) == [Packet("tcp", VIP, 80)]
    for hook, prio in (("input", 99), ("input", 100), ("output", -150), ("forward", 0)):
        with pytest.raises(MarkUnknown, match="no rule"):
            asked([WEB, marked()], hook=hook, prio=prio)


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (
            [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, marked(1)],
            "ct state in",
        ),
        ([payload("ip", "daddr", "10.9.9.9", "!="), marked(1)], "ip daddr != "),
        ([payload("ip", "dscp", 8), marked(1)], "ip dscp"),
        ([payload("tcp", "dport", "http"), marked(1)], "dport"),
        ([TO, marked({"numgen": {"mode": "inc", "mod": 2}})], "meta mark set"),
        ([TO, {"vmap": {}}, marked(1)], "vmap"),
        ([marked(1), TO], "a match behind another statement"),
        ([{"limit": {"rate": 10, "per": "second"}}, marked(1)], "limit"),
        ([payload("tcp", "dport", {"range": [1, 90]}), WEB, marked(1)], "tcp dport twice"),
        ([TO, {"queue": {"num": 1}}], "queue"),
        ([TO, {"future": 1, "form": 2}, marked(1)], "future"),
    ],
)
def test_what_cannot_be_told(rule: list[Any], what: str) -> None:
    with pytest.raises(MarkUnknown, match=rf"cannot be told .*looks at .*{what}"):
        asked([WEB, marked()], rule)


def test_tables_of_iptables_are_not_read_twice() -> None:
    text = document([WEB, marked()], family="ip").replace('"web"', '"mangle"')
    assert nft.parse_nft(text, 4, without_mangle=True) == []
    assert len(nft.parse_nft(text, 4, without_mangle=False)) == 1
    assert nft.parse_nft(text.replace('"ip"', '"ip6"'), 4, without_mangle=False) == []
    # iptables has none for both families.
    assert len(nft.parse_nft(text.replace('"ip"', '"inet"'), 4, without_mangle=True)) == 1


def test_rules_before_prerouting() -> None:
    how: dict[str, Any] = {"family": "netdev", "hook": "ingress", "dev": "eth0"}
    text = f"-- nft\n{document([WEB, marked()], **how)}\n"
    asking: dict[str, Any] = {"client": CLIENT, "addresses": [VIP], "ports": {"tcp": [80]}}
    assert marks.asked_for(80, text, **asking, interface="eth0") == (Packet("tcp", VIP, 80),)
    with pytest.raises(MarkUnknown, match="no packet"):
        marks.asked_for(80, text, **asking, interface="eth1")


STATE = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}


def test_what_is_done_to_packets_of_known_connections_does_not_matter() -> None:
    """As most firewalls begin: whether a packet is accepted there or later, its mark is the same."""
    assert asked([WEB, marked()], [STATE, {"accept": None}], [STATE, {"drop": None}]) == [
        Packet("tcp", VIP, 80)
    ]
    with pytest.raises(MarkUnknown, match=r"cannot be told .* ct state"):
        asked([STATE, {"accept": None}], [WEB, marked()])


def test_packets_at_the_end_of_a_chain_may_be_dropped() -> None:
    both = payload("tcp", "dport", {"set": [80, 443]})
    assert asked([both, marked()], [WEB, {"accept": None}], policy="drop") == [Packet("tcp", VIP, 80)]


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ([marked({"map": {"key": {"payload": {}}, "data": "@marks"}})], "meta mark set"),
        ([marked({"ct": {"key": "mark"}})], "meta mark set"),
        ([WEB, {"vmap": {"key": {}, "data": {"set": []}}}], "vmap"),
    ],
)
def test_a_mark_that_rules_take_from_elsewhere(rule: list[Any], what: str) -> None:
    """It is not said that no rule sets it, nor that requests pass none."""
    with pytest.raises(MarkUnknown, match=rf"cannot be told which packets get mark 80: .*{what}"):
        asked(rule)
    with pytest.raises(MarkUnknown, match=rf"cannot be told which packets get mark 80: .*{what}"):
        asked(rule, ["own", marked()])


def test_protocols_of_two_matches() -> None:
    assert asked([meta("l4proto", {"set": ["tcp", "udp"]}), meta("l4proto", "tcp"), WEB, marked()]) == [
        Packet("tcp", VIP, 80)
    ]
    with pytest.raises(MarkUnknown, match="no packet"):
        asked([meta("l4proto", "udp"), WEB, marked()])
