"""Packets of clients that get a firewall mark, by the director's rules.

The rules are those of iptables' table mangle, nft and legacy ones, and those of nft, as the director has
them. Where a rule that is not understood could matter for a packet, its mark cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from lvslab.check.ipvs.table import listed
from lvslab.check.services import nft
from lvslab.check.services.rulesets import ALL_BITS, HOOKS, VERDICT_MAP, Base, Packet, Rule, parse_iptables
from lvslab.errors import LvsLabError

_DEPTH = 8
_VERDICTS = frozenset({"ACCEPT", "RETURN", "DROP"})

Marks = frozenset[int | None]
_NONE: Marks = frozenset()
_NFT = "-- nft"
_TABLES = "-- another variant of iptables"


class MarkUnknown(LvsLabError):
    """The packets that get a mark cannot be told from the director's rules."""


def command(version: int) -> str:
    """Return the shell command that prints a director's rules for IPv4 or IPv6.

    Legacy tables are listed only where there are some: listing them would load their module. An iptables
    without a variant of nft, as that of old guests, is the only one.
    """
    six = "ip6" if version == 6 else "ip"
    return (
        f"{{ if command -v {six}tables-nft-save > /dev/null; then {six}tables-nft-save -t mangle; "
        f"if grep -q mangle /proc/net/{six}_tables_names; then "
        f"echo '{_TABLES}'; {six}tables-legacy-save -t mangle; fi; "
        f"else {six}tables-save -t mangle || {six}tables -t mangle -S; fi; "
        f"echo '{_NFT}'; nft -j list ruleset || nft list ruleset; }} 2> /dev/null; :"
    )


def asked_for(
    mark: int,
    rules: str,
    *,
    client: str,
    addresses: Sequence[str],
    ports: Mapping[str, Sequence[int]],
    interface: str = "",
    port: int = 0,
) -> tuple[Packet, ...]:
    """Return what ``client`` can ask for so that its packets get ``mark``.

    ``rules`` are the director's, as `command` prints them; ``addresses`` its own that clients may ask for,
    the likeliest first; ``ports`` are those that real servers listen on, by protocol. Ports and addresses
    that rules name are tried as well: masquerading may map a port. A rule that drops packets by something
    that is not understood is taken to let these pass. The client's packets come in by ``interface``, "" if
    unknown. Only ``port`` is asked for, unless it is 0. Raises MarkUnknown.
    """
    bases = _bases(rules, ip_address(client).version)
    # The chains of a table that is at both hooks are the same ones.
    tables = {id(base.chains): base.chains for base in bases}.values()
    there = [rule for chains in tables for chain in chains.values() for rule in chain]
    setting = _setting(mark, there)
    opaque = [
        rule for chains in tables for chain in chains.values() for rule in chain if _opaque(rule, chains)
    ]
    if not setting and not opaque:
        raise MarkUnknown(
            f"no rule of the director's mangle table sets mark {mark}",
            "`iptables -t mangle -A PREROUTING ... -j MARK --set-mark` makes one",
        )
    found, unclear = list[Packet](), dict[str, None]()
    for candidates in _candidates(there, addresses, ports, client, port):
        for packet in candidates:
            walk = _Walk(packet, client, interface)
            marks = walk.all_through(bases)
            if marks == {mark}:
                found.append(packet)
            elif marks & {mark, None}:
                unclear |= walk.doubts
        if found or unclear:
            break
    if wanted := tuple(packet for packet in found if port in (0, packet.port)):
        return wanted
    if unclear:
        raise MarkUnknown(f"it cannot be told which packets get mark {mark}: {'; '.join(unclear)}")
    if found:
        others = listed([str(each) for each in sorted({packet.port for packet in found})])
        raise MarkUnknown(
            f"no rule of the director gives packets to port {port} the mark {mark}; those to port {others} "
            "get it",
            "`iptables -t mangle -S PREROUTING` on the director shows the rules",
        )
    if not setting:
        raise MarkUnknown(f"it cannot be told which packets get mark {mark}: {_doubt(opaque[0])}")
    reached = {id(rule) for base in bases for rule in _reached(base)}
    if not any(id(rule) in reached for rule in setting):
        raise MarkUnknown(
            f"requests do not pass the chain in which mark {mark} is set: {setting[0].text}",
            "put the rule into PREROUTING",
        )
    raise MarkUnknown(
        f"no packet to an address of the director gets mark {mark}: {setting[0].text}",
        "do the rule's interface, protocol, ports and addresses fit the client's packets and lab.yaml, and "
        "does another rule come before or after it?",
    )


def _opaque(rule: Rule, chains: Mapping[str, Sequence[Rule]]) -> bool:
    """Return whether a rule may set marks that cannot be told."""
    return rule.mark == "many" or bool(rule.jump and rule.jump not in chains and rule.jump not in _VERDICTS)


def _doubt(rule: Rule) -> str:
    """Say what of a rule is not understood."""
    if rule.unclear:
        return f"`{rule.text}` looks at {' '.join(rule.unclear)}"
    return f"`{rule.text}` does more than set a mark"


def _reached(base: Base) -> Iterator[Rule]:
    """Yield the rules of the chains that packets may come to from ``base``."""
    met, ahead = set[str](), [base.name]
    while ahead:
        if (name := ahead.pop()) not in met:
            met.add(name)
            yield from (rules := base.chains[name])
            for rule in rules:
                # Of a map of verdicts, the chains are not known.
                ahead += base.chains if rule.jump == VERDICT_MAP else {rule.jump} & base.chains.keys()


def _bases(text: str, version: int) -> list[Base]:
    """Return the chains that packets come to, in their order. Raises MarkUnknown."""
    tables, _, own = text.partition(f"{_NFT}\n")
    variants = tables.split(f"{_TABLES}\n")
    found = [base for variant in variants for base in parse_iptables(variant)]
    if own.strip():
        try:
            found += nft.parse_nft(own, version, without_mangle="*mangle" in variants[0])
        except ValueError:
            # An nft without JSON: only the absence of marks can be told.
            if "mark set" in own:
                raise MarkUnknown(
                    "the director's nft cannot print its rules as JSON, and some of them set marks",
                    "lvslab reads rules of iptables, and those that `nft -j list ruleset` prints",
                ) from None
    return sorted(found, key=lambda base: (HOOKS.index(base.hook), base.priority))


def _setting(mark: int, rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules that set ``mark``, or else some of its bits alone."""
    marking = [(rule, rule.mark) for rule in rules if isinstance(rule.mark, tuple)]
    whole = [rule for rule, given in marking if _marked(0, given) == mark]
    return whole or [
        rule for rule, (value, mask) in marking if value and not value & ~mark and mask != ALL_BITS
    ]


def _candidates(
    rules: Sequence[Rule],
    addresses: Sequence[str],
    ports: Mapping[str, Sequence[int]],
    client: str,
    wanted: int,
) -> Iterator[Iterator[Packet]]:
    """Yield packets that may get a mark, to ``addresses`` and those in ``rules``.

    First those to ``ports``, to the ``wanted`` one, and to the first one of each range of ports in which no
    server listens; then those to each port at which rules begin or cease to match.
    """
    networks = [ip_network(there, strict=False) for rule in rules for there in rule.destinations]
    version = ip_address(client).version
    named = [
        str(one.network_address) for one in networks if one.num_addresses == 1 and one.version == version
    ]
    ranges = dict.fromkeys(there for rule in rules for there in rule.ports if there[0] <= there[1])

    def packets(protocol: str, there: Iterable[int]) -> Iterator[Packet]:
        for address in dict.fromkeys([*addresses, *named]):
            yield from (Packet(protocol, address, port) for port in dict.fromkeys(there))

    def likely() -> Iterator[Packet]:
        for protocol, listening in ports.items():
            firsts = [low for low, high in ranges if not any(low <= port <= high for port in listening)]
            yield from packets(protocol, [*listening, *firsts, *([wanted] if wanted else [])])

    def others() -> Iterator[Packet]:
        edges = [port for low, high in ranges for port in (low, high, low - 1, high + 1)]
        for protocol in ports:
            yield from packets(protocol, (port for port in edges if 0 < port < 65536))

    yield likely()
    yield others()


class _Walk:
    """The way of a packet through chains, with all marks that it may get.

    A mark is None where it cannot be told. ``doubts`` are the rules for that, and those of which it cannot
    be told whether they take the packet.
    """

    def __init__(self, packet: Packet, client: str, interface: str) -> None:
        self.doubts: dict[str, None] = {}
        self._packet, self._client, self._interface = packet, client, interface

    def all_through(self, bases: Sequence[Base]) -> Marks:
        """Return the marks that the packet may have before IPVS, none where it is dropped."""
        marks: Marks = frozenset({0})
        for base in bases:
            if self._interface and base.interfaces and self._interface not in base.interfaces:
                continue
            ends, accepted = self._through(base.name, base.chains, marks, 0)
            marks = accepted if base.drops else ends | accepted
        return marks

    def _through(
        self, name: str, chains: Mapping[str, Sequence[Rule]], marks: Marks, depth: int
    ) -> tuple[Marks, Marks]:
        """Follow a chain; return the marks at its end, and those of accepted packets."""
        here, ends, accepted = marks, _NONE, _NONE
        for rule in chains[name]:
            matches = bool(here) and rule.matches(self._packet, self._client, self._interface)
            if matches is False or (rule.mark is None and not rule.jump):
                continue
            if matches is None or _opaque(rule, chains):
                self.doubts[_doubt(rule)] = None
            taken = frozenset(_given(mark, rule) for mark in here)
            here = here if matches is None else _NONE
            match rule.jump:
                case "":
                    here |= taken
                case "ACCEPT":
                    accepted |= taken
                case "RETURN":
                    ends |= taken
                case "DROP":
                    pass
                case jump if jump in chains and depth < _DEPTH:
                    behind, inside = self._through(jump, chains, taken, depth + 1)
                    accepted |= inside
                    if rule.goto:
                        ends |= behind
                    else:
                        here |= behind
                case _:
                    here |= {None}
        return here | ends, accepted


def _given(mark: int | None, rule: Rule) -> int | None:
    """Return ``mark`` after a rule that takes the packet."""
    if rule.mark is None:
        return mark
    if rule.mark == "many":
        return None
    value, mask = rule.mark
    return value if mask == ALL_BITS else None if mark is None else _marked(mark, rule.mark)


def _marked(mark: int, setting: tuple[int, int]) -> int:
    """Return ``mark`` after ``--set-xmark``: zero the bits of the mask, then toggle those of the value."""
    value, mask = setting
    return (mark & ~mask & 0xFFFFFFFF) ^ value
