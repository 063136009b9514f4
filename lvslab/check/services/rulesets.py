"""Rules of a director's firewall as data, and the reader of iptables' rules.

Rules that look at anything else but addresses, interface, protocol and ports are not understood, and say so
in ``unclear``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Literal

Ports = tuple[tuple[int, int], ...]

HOOKS = ("ingress", "prerouting", "input")
"""The hooks that a client's packet passes before IPVS takes it, in their order."""
MANGLE = -150
"""Priority of iptables' table mangle at each hook (NF_IP_PRI_MANGLE, netfilter_ipv4.h of Linux 6.1)."""
ALL_BITS = 0xFFFFFFFF
"""The mask of a whole mark."""
VERDICT_MAP = "vmap"
"""The `Rule.jump` of a rule that looks up what happens in a map."""

_PROTOCOLS: Mapping[str, str] = {"6": "tcp", "17": "udp", "132": "sctp", "all": ""}
# fmt: off
_LEAVE_MARKS_ALONE = frozenset({
    "CHECKSUM", "CLASSIFY", "CONNSECMARK", "DSCP", "ECN", "HL", "IDLETIMER", "LOG", "NFLOG", "RATEEST",
    "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG",
})
# fmt: on
_ANY_VALUE = frozenset({"--comment", "--log-prefix", "--nflog-prefix", "--string", "--hex-string"})
_DROPS = frozenset({"DROP", "REJECT"})


@dataclass(frozen=True)
class Packet:
    """A packet that a client sends: its protocol, and where it goes."""

    protocol: str
    address: str
    port: int


@dataclass(frozen=True)
class Rule:
    """A rule. An empty tuple matches everything.

    ``mark`` are value and mask as of ``--set-xmark``, None where it sets no mark, and "many" where it sets
    one that cannot be told. ``jump`` is the name of a chain, ``ACCEPT``, ``RETURN`` or ``DROP``, "" for
    none, and anything else is not understood. With ``goto`` the chain's end is that of this one.
    ``unclear`` are words that are not understood.
    """

    text: str
    protocols: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    interface: str = ""
    ports: Ports = ()
    mark: tuple[int, int] | Literal["many"] | None = None
    jump: str = ""
    goto: bool = False
    unclear: tuple[str, ...] = ()

    def matches(self, packet: Packet, client: str, interface: str = "") -> bool | None:
        """Return whether the rule takes ``packet`` from ``client``, None where that cannot be told.

        The packet comes in by ``interface``, "" if unknown.
        """
        if (
            (interface and not is_interface(interface, self.interface))
            or (self.protocols and packet.protocol not in self.protocols)
            or not within(packet.address, self.destinations)
            or not within(client, self.sources)
            or (self.ports and not any(low <= packet.port <= high for low, high in self.ports))
        ):
            return False
        return None if self.unclear else True


@dataclass(frozen=True)
class Base:
    """A chain that packets come to by themselves: at a hook, those of lower ``priority`` first.

    ``chains`` are all chains of its table, by name, and ``name`` is the one. With ``drops``, packets that
    come to its end are dropped. Packets come to it from ``interfaces``, from all if there are none.
    """

    hook: str
    priority: int
    name: str
    chains: Mapping[str, Sequence[Rule]]
    drops: bool = False
    interfaces: tuple[str, ...] = ()


def is_interface(interface: str, pattern: str) -> bool:
    """Return whether a rule's ``-i`` is for ``interface``: "" is for all, ``eth+`` for eth0."""
    return pattern in ("", interface) or (pattern[-1:] == "+" and interface.startswith(pattern[:-1]))


def within(address: str, networks: Sequence[str]) -> bool:
    """Return whether ``address`` is in one of ``networks``, True for no networks."""
    parsed = ip_address(address)
    return not networks or any(
        parsed.version == inside.version and parsed in inside
        for inside in (ip_network(network, strict=False) for network in networks)
    )


def parse_iptables(text: str) -> list[Base]:
    """Parse the output of ``iptables-save -t mangle``, or of ``-S``; lines of neither are skipped."""
    chains, dropping = dict[str, list[Rule]](), set[str]()
    for line in map(str.strip, text.splitlines()):
        if line.startswith((":", "-N ", "-P ")):
            name, *policy = line.removeprefix(":").removeprefix("-N ").removeprefix("-P ").split()
            chains.setdefault(name, [])
            if policy[:1] == ["DROP"]:
                dropping.add(name)
        elif line.startswith("-A "):
            chain, rule = parse_rule(line)
            chains.setdefault(chain, []).append(rule)
    return [
        Base(hook, MANGLE, hook.upper(), chains, drops=hook.upper() in dropping)
        for hook in HOOKS
        if hook.upper() in chains
    ]


@dataclass
class _Reading:
    """A rule as far as it has been read."""

    fields: dict[str, str] = field(default_factory=dict)
    ports: Ports = ()
    mark: tuple[int, int] | None = None
    restores: bool = False
    """Whether it takes the mark of the connection (CONNMARK)."""
    unclear: list[str] = field(default_factory=list)


def parse_rule(line: str) -> tuple[str, Rule]:
    """Parse a rule as iptables-save prints it, ``-A CHAIN ...``.

    Returns its chain's name, and the rule.
    """
    words = shlex.split(line)
    chain, rest, read = words[1], words[2:], _Reading()
    while rest:
        option, *rest = rest
        if option == "!":
            read.unclear += ["!", *rest[:2]]
            rest = rest[2:]
            continue
        is_value = bool(rest) and (option in _ANY_VALUE or not rest[0].startswith(("-", "!")))
        value, rest = (rest[0], rest[1:]) if is_value else ("", rest)
        _option(read, option, value)
    about = read.fields

    def one(option: str) -> tuple[str, ...]:
        return (about[option],) if about.get(option) else ()

    protocol = _PROTOCOLS.get(about.get("-p", ""), about.get("-p", ""))
    jump = about.get("-j", about.get("-g", ""))
    if jump in _DROPS:
        jump = "DROP"
    elif jump in {"MARK", *_LEAVE_MARKS_ALONE} or (jump == "CONNMARK" and not read.restores):
        jump = ""
    return chain, Rule(
        text=line,
        protocols=(protocol,) if protocol else (),
        sources=one("-s"),
        destinations=one("-d"),
        interface=about.get("-i", about.get("--in-interface", "")),
        ports=read.ports,
        mark=read.mark if about.get("-j") == "MARK" else None,
        jump=jump,
        goto="-g" in about,
        unclear=tuple(read.unclear),
    )


def _option(read: _Reading, option: str, value: str) -> None:
    """Add an option of a rule to what has been ``read``."""
    match option:
        case "-p" | "-s" | "-d" | "-j" | "-g" | "-i" | "--in-interface":
            read.fields[option] = value
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
        case "--restore-mark":
            read.restores = True
        case "--save-mark" | "--nfmask" | "--ctmask":
            pass
        case "--or-mark":
            read.mark = (int(value, 0), int(value, 0))
        case "--and-mark":
            read.mark = (0, ~int(value, 0) & ALL_BITS)
        case "--xor-mark":
            read.mark = (int(value, 0), 0)
        case _:
            read.unclear += [option, *([value] if value else [])]


def _range(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    first = int(low) if low else 0
    return first, (int(high) if high else 65535) if colon else first
