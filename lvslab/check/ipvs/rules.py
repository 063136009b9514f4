"""Parser of ipvsadm's rules, and the table that calls of ipvsadm make."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address

from lvslab.check.ipvs import table as tables
from lvslab.check.ipvs.table import FORWARDING, Destination, Protocol, Service, TableError

# Options that take a value, with the long forms of ipvsadm's option table; -p's value may be missing.
_WITH_VALUE = frozenset("tufsMrwxyb") | {"sctp-service", "pe", "tun-type", "tun-port"}
_LONG = {
    "add-service": "A",
    "edit-service": "E",
    "delete-service": "D",
    "clear": "C",
    "list": "L",
    "zero": "Z",
    "add-server": "a",
    "edit-server": "e",
    "delete-server": "d",
    "restore": "R",
    "save": "S",
    "tcp-service": "t",
    "udp-service": "u",
    "fwmark-service": "f",
    "scheduler": "s",
    "persistent": "p",
    "netmask": "M",
    "real-server": "r",
    "masquerading": "m",
    "ipip": "i",
    "gatewaying": "g",
    "weight": "w",
    "u-threshold": "x",
    "l-threshold": "y",
    "numeric": "n",
    "ipv6": "6",
    "ops": "o",
    "sched-flags": "b",
}
_COMMANDS = frozenset("AEDCaedR")
_TUNNEL = frozenset({"tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum"})
_ALLOWED = {
    "A": frozenset("Atuf6spMob") | {"sctp-service", "pe"},
    "E": frozenset("Etuf6spMob") | {"sctp-service", "pe"},
    "D": frozenset("Dtuf6") | {"sctp-service"},
    "C": frozenset("C"),
    "a": frozenset("atuf6rmigwxy") | _TUNNEL | {"sctp-service"},
    "e": frozenset("etuf6rmigwxy") | _TUNNEL | {"sctp-service"},
    "d": frozenset("dtuf6r") | {"sctp-service"},
}
# Commands that show or tune, and change no rule.
_HARMLESS = frozenset("LlSZhv") | {"set", "start-daemon", "stop-daemon", "help", "version"}
_FORWARDING: Mapping[str, tables.Forwarding] = {
    syntax.option[1:]: name for name, syntax in FORWARDING.items() if name != "local"
}
_RULE = re.compile(r"-[AEDaedC]")
_MOST = 2**31 - 1


def parse_rules(text: str) -> tuple[Service, ...]:
    """Parse rules as ``ipvsadm -Sn`` prints them; other lines are ignored. Raises as `table_of` does."""
    lines = [line.strip() for line in text.splitlines() if _RULE.match(line.strip())]
    return table_of((shlex.split(line), line) for line in lines)


def table_of(commands: Iterable[tuple[Sequence[str], str]]) -> tuple[Service, ...]:
    """Return the table that calls of ipvsadm make from an empty one.

    Each is its arguments, and the line that error messages quote. Services and destinations come in the
    order in which they were added. Raises TableError on an option that ipvsadm does not have, on names
    instead of numbers, and on commands that ipvsadm or the kernel refuses.
    """
    table: dict[str, Service] = {}
    for arguments, line in commands:
        _apply(table, arguments, line)
    return tuple(table.values())


def _options(words: Sequence[str], line: str) -> dict[str, str]:
    """Return the options of one command with their values ("" for none).

    Keys are short names, or long ones where an option has no other.
    """
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if long := word.startswith("--"):
            word, _, value = word.partition("=")
            option = _LONG.get(word[2:], word[2:])
        elif word.startswith("-") and len(word) > 1:
            word, option, value = word[:2], word[1], word[2:]
        elif found.keys() & _HARMLESS:
            continue
        else:
            raise TableError(f"ipvsadm does not expect {word!r} in {line!r}")
        if option == "p":
            value = value or (rest.pop(0) if rest and not rest[0].startswith("-") else "")
        elif option in _WITH_VALUE:
            if not value and not rest:
                raise TableError(f"{word} needs a value in {line!r}")
            value = value or rest.pop(0)
        else:
            if value and not long:
                rest.insert(0, f"-{value}")  # more letters
            value = ""
        if option in found:
            raise TableError(f"{_dashed(option)} is given twice in {line!r}")
        found[option] = value
    return found


def _dashed(option: str) -> str:
    return f"-{option}" if len(option) == 1 else f"--{option}"


def _apply(table: dict[str, Service], words: Sequence[str], line: str) -> None:
    options = _options(words, line)
    commands = [option for option in options if option in _COMMANDS]
    if (not commands and options.keys() & _HARMLESS) or not options:
        return
    if len(commands) != 1:
        raise TableError(f"one of -A, -E, -D, -C, -a, -e, -d is needed in {line!r}")
    command = commands[0]
    if command == "R":
        raise TableError(
            f"{line!r} reads rules that are not in it",
            "give it the rules from a here-document, or from echo, in a for loop or without",
        )
    for option in options:
        if option not in _ALLOWED[command]:
            raise TableError(f"ipvsadm -{command} has no option {_dashed(option)}, in {line!r}")
    if command == "C":
        table.clear()
        return
    service = _service(options, line)
    key = str(service)
    if command == "A" and key in table:
        raise TableError(f"the service {key} exists already, at {line!r}")
    if command != "A" and key not in table:
        raise TableError(
            f"the service {key} does not exist, at {line!r}", "it is made with ipvsadm -A, before"
        )
    match command:
        case "A":
            table[key] = service
        case "E":
            table[key] = replace(service, destinations=table[key].destinations)
        case "D":
            del table[key]
        case _:
            table[key] = _with_destination(table[key], command, options, line)


def _with_destination(service: Service, command: str, options: Mapping[str, str], line: str) -> Service:
    new = _destination(service, options, line)
    there = {str(old): old for old in service.destinations}
    if command == "a" and str(new) in there:
        raise TableError(f"{service} forwards to {new} already, at {line!r}")
    if command != "a" and str(new) not in there:
        raise TableError(
            f"{service} does not forward to {new}, at {line!r}", "add it with ipvsadm -a, before"
        )
    if command == "d":
        del there[str(new)]
    else:
        there[str(new)] = new
    return replace(service, destinations=tuple(there.values()))


def _service(options: Mapping[str, str], line: str) -> Service:
    kinds: dict[str, Protocol] = {"t": "tcp", "u": "udp", "sctp-service": "sctp", "f": "fwmark"}
    given = [kind for kind in kinds if kind in options]
    if len(given) != 1:
        raise TableError(f"one of -t, -u, -f is needed in {line!r}")
    protocol, named = kinds[given[0]], options[given[0]]
    mark = number(named, line, 1, _MOST) if protocol == "fwmark" else 0
    address, port = ("", 0) if protocol == "fwmark" else address_and_port(named, line)
    persistent = None
    if "p" in options:
        persistent = number(options["p"] or str(tables.DEFAULT_PERSISTENCE), line, 1, 31 * 24 * 3600)
    if options.keys() & {"A", "E"}:
        if protocol != "fwmark" and not port and persistent is None:
            raise TableError(f"a service for every port (port 0) must be persistent (-p), in {line!r}")
        if "o" in options and protocol not in ("udp", "fwmark"):
            raise TableError(f"one-packet scheduling (-o) is for UDP services, in {line!r}")
    whole = ("", "255.255.255.255", "128")
    return Service(
        protocol,
        address,
        port or 0,
        scheduler=options.get("s", tables.DEFAULT_SCHEDULER),
        mark=mark,
        ipv6="6" in options or ":" in address,
        persistent=persistent,
        netmask="" if options.get("M", "") in whole else options["M"],
        persistence_engine=options.get("pe", ""),
        one_packet="o" in options,
        scheduler_flags=tuple(sorted(flag for flag in options.get("b", "").split(",") if flag)),
    )


def _destination(service: Service, options: Mapping[str, str], line: str) -> Destination:
    if "r" not in options:
        raise TableError(f"-r is needed in {line!r}")
    methods = [name for letter, name in _FORWARDING.items() if letter in options] or ["gatewaying"]
    if len(methods) > 1:
        raise TableError(f"one forwarding method only in {line!r}")
    (forwarding,) = methods
    address, port = address_and_port(options["r"], line)
    if port is None or (service.protocol != "fwmark" and not FORWARDING[forwarding].maps_ports):
        # ipvsadm sets the port itself (process_options, ipvsadm.c 1.29).
        port = service.port
    return Destination(
        address,
        port,
        forwarding,
        weight=number(options.get("w", "1"), line, 0, _MOST),
        tunnel=_tunnel(options),
        upper_threshold=number(options.get("x", "0"), line, 0, _MOST),
        lower_threshold=number(options.get("y", "0"), line, 0, _MOST),
    )


def _tunnel(options: Mapping[str, str]) -> str:
    kind = options.get("tun-type", "ipip")
    words = [] if kind == "ipip" else [kind]
    if "tun-port" in options:
        words.append(f"--tun-port {options['tun-port']}")
    words += [f"--{name}" for name in ("tun-csum", "tun-remcsum") if name in options]
    return " ".join(words)


def number(text: str, line: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise TableError(f"{text!r} is not a number from {least} to {most}, in {line!r}")
    return int(text)


def address_and_port(text: str, line: str) -> tuple[str, int | None]:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ip_address(host.rstrip("]"))
    except ValueError:
        raise TableError(
            f"{host!r} is not an IP address, in {line!r}", "names are not looked up: use ipvsadm -n"
        ) from None
    if text.startswith("[") != isinstance(address, IPv6Address) and port:
        raise TableError(f"{text!r} is not an address and port, in {line!r}")
    return str(address), number(port, line, 0, 65535) if port else None
