"""Packets of clients that get a firewall mark, by the director's rules.

The rules are those of iptables' table mangle, nft and legacy ones, and those of nft, as the director has
them. Where a rule that is not understood could matter for a packet, its mark cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from lvslab.check.ipvs.table import listed
from lvslab.check.services import nft
from lvslab.check.services.rulesets import HOOKS, Base, Packet, Rule, parse_iptables
from lvslab.errors import LvsLabError

_DEPTH = 8
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
    that rules name are tried as well: masquerading may map a port. The client's packets come in by
    ``interface``, "" if unknown. Only ``port`` is asked for, unless it is 0. Raises MarkUnknown.
    """
    bases = _bases(rules, ip_address(client).version)
    # The chains of a table that is at both hooks are the same ones.
    tables = {id(base.chains): base.chains for base in bases}.values()
    there = [rule for chains in tables for chain in chains.values() for rule in chain]
    setting = _setting(mark, there)
    if not setting:
        raise MarkUnknown(
            f"no rule of the director's mangle table sets mark {mark}",
            "`iptables -t mangle -A PREROUTING ... -j MARK --set-mark` makes one",
        )
    found, unclear = list[Packet](), dict[str, None]()
    for packet in _candidates(there, addresses, ports, client):
        got, why = _mark_of(packet, client, interface, bases)
        if why:
            unclear[why] = None
        elif got == mark:
            found.append(packet)
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


def _reached(base: Base) -> Iterator[Rule]:
    """Yield the rules of the chains that packets may come to from ``base``."""
    met, ahead = set[str](), [base.name]
    while ahead:
        if (name := ahead.pop()) not in met:
            met.add(name)
            yield from (rules := base.chains[name])
            ahead += [rule.jump for rule in rules if rule.jump in base.chains]


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
    marking = [(rule, rule.mark) for rule in rules if rule.mark is not None]
    whole = [rule for rule, given in marking if _marked(0, given) == mark]
    return whole or [
        rule for rule, (value, mask) in marking if value and not value & ~mark and mask != 0xFFFFFFFF
    ]


def _candidates(
    rules: Sequence[Rule], addresses: Sequence[str], ports: Mapping[str, Sequence[int]], client: str
) -> Iterator[Packet]:
    """Yield packets that may get a mark: those to ``addresses`` and ``ports``, and to those in ``rules``.

    Of a range of ports that rules name, the first one, unless servers listen on others of it.
    """
    networks = [ip_network(there, strict=False) for rule in rules for there in rule.destinations]
    version = ip_address(client).version
    named = [
        str(one.network_address) for one in networks if one.num_addresses == 1 and one.version == version
    ]
    ranges = dict.fromkeys(there for rule in rules for there in rule.ports)
    for protocol, listening in ports.items():
        firsts = [
            low for low, high in ranges if low <= high and not any(low <= port <= high for port in listening)
        ]
        for address in dict.fromkeys([*addresses, *named]):
            for port in dict.fromkeys([*listening, *firsts]):
                yield Packet(protocol, address, port)


def _mark_of(packet: Packet, client: str, interface: str, bases: Sequence[Base]) -> tuple[int, str]:
    """Return the mark of ``packet`` before IPVS, and why it cannot be told, or "".

    The mark of a packet that is dropped is 0.
    """
    walk = _Walk(packet, client, interface)
    try:
        for base in bases:
            walk.through(base.name, base.chains, 0)
    except MarkUnknown as unknown:
        return 0, unknown.message
    return (0 if walk.dropped else walk.mark), ""


class _Walk:
    """The way of a packet through chains."""

    def __init__(self, packet: Packet, client: str, interface: str) -> None:
        self.packet, self.client, self.interface = packet, client, interface
        self.mark, self.dropped = 0, False

    def through(self, name: str, chains: Mapping[str, Sequence[Rule]], depth: int) -> bool:
        """Follow a chain; return False where a rule ends the table for the packet. Raises MarkUnknown."""
        for rule in chains[name]:
            if self.dropped:
                return False
            matches = rule.matches(self.packet, self.client, self.interface)
            if matches is False or (rule.mark is None and not rule.jump):
                continue
            if matches is None:
                raise MarkUnknown(f"`{rule.text}` looks at {' '.join(rule.unclear)}")
            if rule.mark is not None:
                self.mark = _marked(self.mark, rule.mark)
            if rule.jump == "RETURN":
                return True
            if rule.jump in ("ACCEPT", "DROP"):
                self.dropped = rule.jump == "DROP"
                return False
            if rule.jump in chains and depth < _DEPTH:
                if not self.through(rule.jump, chains, depth + 1):
                    return False
                if rule.goto:
                    return True
            elif rule.jump:
                raise MarkUnknown(f"`{rule.text}` does more than set a mark")
        return True


def _marked(mark: int, setting: tuple[int, int]) -> int:
    """Return ``mark`` after ``--set-xmark``: zero the bits of the mask, then toggle those of the value."""
    value, mask = setting
    return (mark & ~mask & 0xFFFFFFFF) ^ value
