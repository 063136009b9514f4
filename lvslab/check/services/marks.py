"""Reader of a director's mangle rules: what a client must ask for so that its packets get a firewall mark.

It reads ``iptables-save -t mangle`` as the director has it. Rules that look at anything but interface,
addresses, protocol and ports are not understood: where one of them could matter for a packet, its mark
cannot be told.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from lvslab.errors import LvsLabError

COMMAND = (
    "{{ {save} -t mangle || {tables} -t mangle -S; }} 2> /dev/null; "
    "nft list ruleset 2> /dev/null | sed 's/^/nft: /'; :"
)
"""Shell command that prints the rules, by ``save`` or, where that is missing, by ``tables``.

Rules of nft come after those, each line with a mark in front.
"""

Ports = tuple[tuple[int, int], ...]

_CHAIN = "PREROUTING"
_PROTOCOLS: Mapping[str, str] = {"6": "tcp", "17": "udp", "132": "sctp"}
_LEAVE_MARKS_ALONE = frozenset({"LOG", "TOS", "DSCP", "TTL", "HL", "TCPMSS", "CLASSIFY", "NFLOG", "ULOG"})
_DEPTH = 8


class MarkUnknown(LvsLabError):
    """The packets that get a mark cannot be told from the director's rules."""


@dataclass(frozen=True)
class Asked:
    """A packet that a client sends: its protocol, and where it goes."""

    protocol: str
    address: str
    port: int


@dataclass(frozen=True)
class _Rule:
    """A rule: ``unclear`` are words that are not understood; ``jump`` is the target, "" for none."""

    text: str
    protocol: str = ""
    source: str = ""
    destination: str = ""
    ports: Ports = ()
    jump: str = ""
    mark: tuple[int, int] = (0, 0)
    unclear: tuple[str, ...] = ()

    def matches(self, packet: Asked, client: str) -> bool | None:
        """Return whether the rule takes ``packet`` from ``client``, None where that cannot be told."""
        if (
            (self.protocol and self.protocol != packet.protocol)
            or not _within(packet.address, self.destination)
            or not _within(client, self.source)
            or (self.ports and not any(low <= packet.port <= high for low, high in self.ports))
        ):
            return False
        return None if self.unclear else True


def asked_for(
    mark: int, rules: str, *, client: str, addresses: Sequence[str], ports: Mapping[str, Sequence[int]]
) -> tuple[Asked, ...]:
    """Return what ``client`` can ask for so that its packets get ``mark``.

    ``rules`` are the director's, ``addresses`` its own that clients may ask for, the likeliest first, and
    ``ports`` are those that real servers listen on, by protocol. Raises MarkUnknown.
    """
    chains = _chains(rules)
    there = [rule for chain in chains.values() for rule in chain]
    setting = [rule for rule in there if rule.jump == "MARK" and _marked(0, rule.mark) == mark]
    if not setting and _by_nft(rules):
        raise MarkUnknown(
            f"nft has rules that set marks, and none of iptables sets mark {mark}",
            "lvslab reads rules of iptables only",
        )
    if not setting:
        raise MarkUnknown(
            f"no rule of the director's mangle table sets mark {mark}",
            "`iptables -t mangle -A PREROUTING ... -j MARK --set-mark` makes one",
        )
    packets = dict.fromkeys(
        Asked(protocol, address, port)
        for rule in setting
        for protocol, listening in ports.items()
        for address in _candidates(rule.destination, addresses)
        for port in listening
    )
    found, unclear = list[Asked](), dict[str, None]()
    for packet in packets:
        got, why = _mark_of(packet, client, chains)
        if why:
            unclear[why] = None
        elif got == mark:
            found.append(packet)
    if found:
        return tuple(found)
    if unclear:
        raise MarkUnknown(f"it cannot be told which packets get mark {mark}: {'; '.join(unclear)}")
    raise MarkUnknown(
        f"no packet to a port that the real servers listen on gets mark {mark}: {setting[0].text}",
        "do the rule's addresses and ports fit those of the servers in lab.yaml?",
    )


def _by_nft(text: str) -> bool:
    """Return whether a table of nft's own, and not of iptables, sets marks."""
    table = ""
    for line in text.splitlines():
        if line.startswith("nft: table "):
            table = line.removeprefix("nft: table ").rstrip(" {")
        elif line.startswith("nft: ") and "mark set" in line and not table.endswith(" mangle"):
            return True
    return False


def _mark_of(packet: Asked, client: str, chains: Mapping[str, Sequence[_Rule]]) -> tuple[int, str]:
    """Return the mark of ``packet`` behind PREROUTING, and why it cannot be told, or ""."""
    mark = 0

    def walk(chain: str, depth: int) -> bool:
        """Follow ``chain``; return False where a rule ends the table for the packet."""
        nonlocal mark
        for rule in chains.get(chain, ()):
            matches = rule.matches(packet, client)
            if matches is False or rule.jump in _LEAVE_MARKS_ALONE or not rule.jump:
                continue
            if matches is None:
                raise MarkUnknown(f"`{rule.text}` looks at {' '.join(rule.unclear)}")
            if rule.jump == "MARK":
                mark = _marked(mark, rule.mark)
            elif rule.jump == "RETURN":
                return True
            elif rule.jump == "ACCEPT":
                return False
            elif rule.jump in chains and depth < _DEPTH:
                if not walk(rule.jump, depth + 1):
                    return False
            else:
                raise MarkUnknown(f"`{rule.text}` does more than set a mark")
        return True

    try:
        walk(_CHAIN, 0)
    except MarkUnknown as unknown:
        return 0, unknown.message
    return mark, ""


def _marked(mark: int, setting: tuple[int, int]) -> int:
    """Return ``mark`` after ``--set-xmark``: zero the bits of the mask, then toggle those of the value."""
    value, mask = setting
    return (mark & ~mask & 0xFFFFFFFF) ^ value


def _candidates(destination: str, addresses: Sequence[str]) -> Iterator[str]:
    """Yield the addresses that a rule for ``destination`` takes: one address, or some of ``addresses``."""
    if destination:
        network = ip_network(destination, strict=False)
        if network.num_addresses == 1:
            yield str(network.network_address)
            return
    yield from (address for address in addresses if _within(address, destination))


def _within(address: str, network: str) -> bool:
    if not network:
        return True
    parsed, inside = ip_address(address), ip_network(network, strict=False)
    return parsed.version == inside.version and parsed in inside


def _chains(text: str) -> dict[str, list[_Rule]]:
    found: dict[str, list[_Rule]] = {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith(":"):
            found.setdefault(line[1:].split()[0], [])
        elif line.startswith(("-N ", "-P ")):
            found.setdefault(line.split()[1], [])
        elif line.startswith("-A "):
            chain, rule = _rule(line)
            found.setdefault(chain, []).append(rule)
    return found


@dataclass
class _Reading:
    """A rule as far as it has been read."""

    fields: dict[str, str] = field(default_factory=dict)
    ports: Ports = ()
    mark: tuple[int, int] = (0, 0)
    unclear: list[str] = field(default_factory=list)


def _rule(line: str) -> tuple[str, _Rule]:
    words = shlex.split(line)
    chain, rest, read = words[1], words[2:], _Reading()
    while rest:
        option, *rest = rest
        if option == "!":
            read.unclear += ["!", *rest[:2]]
            rest = rest[2:]
            continue
        value = rest[0] if rest and not rest[0].startswith("-") and rest[0] != "!" else ""
        rest = rest[1:] if value else rest
        _option(read, option, value)
    about = read.fields
    protocol = _PROTOCOLS.get(about.get("-p", ""), about.get("-p", ""))
    return chain, _Rule(
        text=line,
        protocol="" if protocol == "all" else protocol,
        source=about.get("-s", ""),
        destination=about.get("-d", ""),
        ports=read.ports,
        jump=about.get("-j", about.get("-g", "")),
        mark=read.mark,
        unclear=tuple(read.unclear),
    )


def _option(read: _Reading, option: str, value: str) -> None:
    """Add an option of a rule to what has been ``read``."""
    match option:
        case "-p" | "-s" | "-d" | "-j" | "-g":
            read.fields[option] = value
        case "-i" | "--in-interface":
            pass  # taken to be the one that clients' packets come in by
        case "-m" if value in ("tcp", "udp", "sctp", "multiport", "comment", "mark"):
            pass
        case "--comment":
            pass
        case "--dport" | "--destination-port" | "--dports" | "--destination-ports":
            read.ports = tuple(_range(part) for part in value.split(","))
        case "--set-mark" | "--set-xmark":
            number, _, mask = value.partition("/")
            given, bits = int(number, 0), int(mask or "0xffffffff", 0)
            # --set-mark zeroes the value's bits too; old ones print no mask.
            read.mark = (given, bits | given if option == "--set-mark" else bits)
        case "--or-mark":
            read.mark = (int(value, 0), int(value, 0))
        case _:
            read.unclear += [option, *([value] if value else [])]


def _range(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    first = int(low) if low else 0
    return first, (int(high) if high else 65535) if colon else first
