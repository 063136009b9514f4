"""Reader of nft's rules: the document of ``nft -j list ruleset`` (libnftables-json(5), nftables 1.0.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lvslab.check.services.rulesets import ALL_BITS, HOOKS, VERDICT_MAP, Base, Rule

_BEFORE_IPVS = 99
"""Priority of IPVS at the hook input: NF_IP_PRI_NAT_SRC - 1 (``ip_vs_ops4``, ip_vs_core.c of Linux 6.1)."""
_QUIET = frozenset({"counter", "log", "comment", "continue"})
_ENDS = frozenset({"fwd", "queue", "synproxy", "tproxy"})
"""Statements that may end a packet's way in other ways than by a verdict."""
_NOWHERE = ("0.0.0.0/32",)
_WIDTH = 60
"""Maximum length of a statement in messages."""
_MARK = {"meta": {"key": "mark"}}


class _Unclear(Exception):
    """A part of a rule that is not understood; its argument is the part."""


def parse_nft(text: str, version: int, *, without_mangle: bool) -> list[Base]:
    """Parse the chains at HOOKS that IPv4 or IPv6 packets pass, as ``version`` says.

    With ``without_mangle``, tables called mangle are left out that iptables keeps its own rules in. Raises
    ValueError for a text that is not such a document.
    """
    found = json.loads(text)["nftables"]
    families = ("netdev", "inet", "ip6" if version == 6 else "ip")
    chains: dict[tuple[str, str], dict[str, list[Rule]]] = {}
    bases: list[Base] = []
    sets = {
        (each["family"], each["table"], each["name"]): each.get("elem", [])
        for each in _all(found, "set", families)
    }
    for each in _all(found, "chain", families):
        own = chains.setdefault((each["family"], each["table"]), {})
        own[each["name"]] = []
        hook, priority = each.get("hook"), int(each.get("prio", 0))
        of_iptables = (
            without_mangle and each["table"] == "mangle" and each["family"] not in ("inet", "netdev")
        )
        if hook in HOOKS and (hook != "input" or priority < _BEFORE_IPVS) and not of_iptables:
            devices = each.get("dev", ())
            bases.append(
                Base(
                    hook,
                    priority,
                    each["name"],
                    own,
                    drops=each.get("policy") == "drop",
                    interfaces=(devices,) if isinstance(devices, str) else (*devices,),
                )
            )
    for each in _all(found, "rule", families):
        place = each["family"], each["table"]
        chains[place][each["chain"]].append(_rule(each, place, sets, version))
    return bases


def _all(
    found: Sequence[Mapping[str, Any]], kind: str, families: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a ``kind`` in tables of ``families``."""
    yield from (each[kind] for each in found if kind in each and each[kind]["family"] in families)


@dataclass
class _Reading:
    """A rule for IP ``version`` as far as it has been read: ``fields`` are the arguments of a Rule."""

    version: int
    sets: Mapping[str, Sequence[Any]]
    fields: dict[str, Any] = field(default_factory=dict)
    unclear: list[str] = field(default_factory=list)


def _rule(
    each: Mapping[str, Any],
    place: tuple[str, str],
    sets: Mapping[tuple[str, str, str], Sequence[Any]],
    version: int,
) -> Rule:
    read = _Reading(
        version, {f"@{name}": elements for (*table, name), elements in sets.items() if (*table,) == place}
    )
    for statement in each.get("expr", ()):
        try:
            ((kind, content),) = statement.items()
            _statement(read, kind, content)
        except _Unclear as part:
            read.unclear.append(str(part))
        except (AttributeError, LookupError, TypeError, ValueError):  # of another form than that of 1.0.6
            read.unclear.append(str(statement)[:_WIDTH])
    text = f"nft: {place[0]} {place[1]} {each['chain']}, handle {each['handle']}"
    return Rule(text, **read.fields, unclear=tuple(read.unclear))


def _statement(read: _Reading, kind: str, content: Any) -> None:
    """Add a statement of a rule to what has been ``read``. Raises _Unclear."""
    about = read.fields
    match kind:
        case "match" if "mark" in about or "jump" in about:
            raise _Unclear("a match behind another statement")
        case "match":
            _match(read, content)
        case "mangle" if content["key"] == _MARK:
            about["mark"] = "many"
            about["mark"] = _mark(content["value"])
        case "mangle":
            pass
        case "jump" | "goto":
            about |= {"jump": content["target"], "goto": kind == "goto"}
        case "accept" | "return" | "drop":
            about["jump"] = kind.upper()
        case "reject":
            about["jump"] = "DROP"
        case _ if kind not in _QUIET:
            if kind in {VERDICT_MAP, *_ENDS}:
                about["jump"] = kind
            raise _Unclear(kind)


def _match(read: _Reading, content: Mapping[str, Any]) -> None:
    left, right = content["left"], content["right"]
    what = _name(left)
    if content["op"] != "==":
        raise _Unclear(f"{what} {content['op']} ...")
    if isinstance(right, str) and right.startswith("@"):
        right = {"set": read.sets.get(right, [])}
    if what in ("meta iifname", "meta iif") and isinstance(right, str):
        _add(read, what, "interface", right.replace("*", "+"))  # as iptables writes all with that beginning
    elif what.endswith(" dport"):
        if (protocol := what.split()[0]) != "th":
            _add_protocols(read, protocol)
        _add(read, what, "ports", tuple(_ports(right)) or ((0, -1),))  # an empty set takes nothing
    elif what in ("ip daddr", "ip6 daddr"):
        _add(read, what, "destinations", tuple(_networks(right)) or _NOWHERE)
    elif what in ("ip saddr", "ip6 saddr"):
        _add(read, what, "sources", tuple(_networks(right)) or _NOWHERE)
    elif what == "meta nfproto" and right in ("ipv4", "ipv6"):
        if right != f"ipv{read.version}":
            _add_protocols(read)
    elif what in ("meta l4proto", "ip protocol", "ip6 nexthdr"):
        _add_protocols(read, *map(str, _values(right)))
    else:
        raise _Unclear(what)


def _add(read: _Reading, what: str, field_name: str, value: object) -> None:
    """Add what a rule matches. Raises _Unclear where it matches the same twice."""
    if field_name in read.fields:
        raise _Unclear(f"{what} twice")
    read.fields[field_name] = value


def _add_protocols(read: _Reading, *protocols: str) -> None:
    """Add protocols that a rule matches.

    Of those that it matched before, only those are left that are there again.
    """
    before = read.fields.get("protocols", protocols)
    read.fields["protocols"] = tuple(each for each in before if each in protocols) or ("none",)


def _name(left: Any) -> str:
    """Return what a match looks at, such as ``tcp dport``, ``meta iifname`` and ``ct state``."""
    if isinstance(left, dict):
        for kind, content in left.items():
            if kind == "payload" and "field" in content:
                return f"{content['protocol']} {content['field']}"
            if isinstance(content, dict) and "key" in content:
                return f"{kind} {content['key']}"
            return str(kind)
    return str(left)


def _values(right: Any) -> Iterator[Any]:
    """Yield the elements of a set, or a single value."""
    elements = right["set"] if isinstance(right, dict) and "set" in right else [right]
    for each in elements:
        yield each["elem"]["val"] if isinstance(each, dict) and "elem" in each else each


def _ports(right: Any) -> Iterator[tuple[int, int]]:
    for each in _values(right):
        if isinstance(each, dict) and "range" in each:
            yield (int(each["range"][0]), int(each["range"][1]))
        elif isinstance(each, int):
            yield (each, each)
        else:
            raise _Unclear("dport ...")


def _networks(right: Any) -> Iterator[str]:
    for each in _values(right):
        if isinstance(each, dict) and "prefix" in each:
            yield f"{each['prefix']['addr']}/{each['prefix']['len']}"
        elif isinstance(each, str):
            yield each
        else:
            raise _Unclear("addresses ...")


def _mark(value: Any) -> tuple[int, int]:
    """Return value and mask of what is assigned to the mark, as of ``--set-xmark``. Raises _Unclear."""
    if isinstance(value, int):
        return value, ALL_BITS
    for sign in ("|", "^", "&"):
        if isinstance(value, dict) and sign in value:
            left, right = value[sign]
            if not isinstance(right, int):
                break
            mask = 0 if left == _MARK else _mask(left)
            if sign == "&" and left == _MARK:
                return 0, ~right & ALL_BITS
            if sign != "&":
                return right, mask | right if sign == "|" else mask
    raise _Unclear("meta mark set ...")


def _mask(value: Any) -> int:
    """Return the bits that ``mark & number`` zeroes. Raises _Unclear for anything else."""
    if isinstance(value, dict) and "&" in value:
        left, right = value["&"]
        if left == _MARK and isinstance(right, int):
            return ~right & ALL_BITS
    raise _Unclear("meta mark set ...")
