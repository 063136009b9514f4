"""Parser of ipvsadm's rules, and the table that calls of ipvsadm make."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

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
_CHANGES = frozenset("AEDCaed")
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
# Commands that change no rule. The first option is the command (parse_options, ipvsadm.c 1.31).
_HARMLESS = frozenset("LlSZhvR") | {"set", "start-daemon", "stop-daemon", "help", "version"}
_LONG_NAMES = frozenset(_LONG) | _TUNNEL | {name for name in _WITH_VALUE | _HARMLESS if len(name) > 1}
_FORWARDING: Mapping[str, tables.Forwarding] = {
    syntax.option[1:]: name for name, syntax in FORWARDING.items() if name != "local"
}
_RULE = re.compile(r"-[AEDaedC]")
_NUMBER = re.compile(r"\s*[+-]?\d+", re.ASCII)
_MOST = 2**31 - 1


class Refusal(TableError):
    """A call that the kernel refuses: a service or server exists already, or does not."""


class UnknownName(TableError):
    """A name of a host or a service without a known address or port."""


@dataclass(frozen=True)
class Names:
    """Addresses by hosts' names, and ports by services' names and protocols."""

    hosts: Mapping[str, str]
    services: Mapping[tuple[str, str], int]


def parse_rules(text: str) -> tuple[Service, ...]:
    """Parse rules as ``ipvsadm -Sn`` prints them; other lines are ignored. Raises as `table_of` does."""
    lines = [line.strip() for line in text.splitlines() if _RULE.match(line.strip())]
    return table_of((shlex.split(line), line) for line in lines)


def table_of(commands: Iterable[tuple[Sequence[str], str]]) -> tuple[Service, ...]:
    """Return the table that calls of ipvsadm make from an empty one.

    Each is its arguments, and the line that error messages quote. Services and destinations come in the
    order in which they were added. Raises as `apply_call` does.
    """
    table = Draft()
    for arguments, line in commands:
        apply_call(table, arguments, line)
    return table.services()


@dataclass
class Draft:
    """A table that calls change: its services by their names, and the destinations of each by theirs."""

    heads: dict[str, Service] = field(default_factory=dict)
    destinations: dict[str, dict[str, Destination]] = field(default_factory=dict)

    def services(self) -> tuple[Service, ...]:
        """Return the services as they are now."""
        return tuple(
            replace(service, destinations=tuple(self.destinations[name].values()))
            for name, service in self.heads.items()
        )


def apply_call(
    table: Draft,
    words: Sequence[str],
    line: str,
    names: Names | None = None,
    *,
    accepted: bool = False,
) -> None:
    """Change ``table`` as a call of ipvsadm with the arguments ``words`` does.

    Messages quote ``line``. With ``accepted`` the kernel took the call, whatever the table has. Raises
    Refusal where it would have; UnknownName where a name is not in ``names``; TableError on an option that
    ipvsadm does not have, and on commands that it refuses.
    """
    options = _options(words, line)
    if not options or next(iter(options)) in _HARMLESS:
        return
    commands = [option for option in options if option in _CHANGES]
    if len(commands) != 1:
        raise TableError(f"one of -A, -E, -D, -C, -a, -e, -d is needed in {line!r}")
    (command,) = commands
    for option in options:
        if option not in _ALLOWED[command]:
            raise TableError(f"ipvsadm -{command} has no option {_dashed(option)}, in {line!r}")
    if command == "C":
        table.heads.clear()
        return
    service = _service(options, line, names)
    key = str(service)
    if command == "A" and key in table.heads and not accepted:
        raise Refusal(f"the service {key} exists already, at {line!r}")
    if command != "A" and key not in table.heads:
        if accepted:
            return
        raise Refusal(f"the service {key} does not exist, at {line!r}", "it is made with ipvsadm -A, before")
    match command:
        case "A":
            table.heads.pop(key, None)
            table.heads[key], table.destinations[key] = service, {}
        case "E":
            table.heads[key] = service
        case "D":
            del table.heads[key]
        case _:
            server = _destination(table.heads[key], options, line, names)
            _change(table.destinations[key], command, server, key, line, accepted)


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
            name = _whole(word[2:])
            option = _LONG.get(name, name)
        elif word.startswith("-") and len(word) > 1:
            word, option, value = word[:2], word[1], word[2:]
        elif next(iter(found), "") in _HARMLESS:
            continue
        else:
            raise TableError(f"ipvsadm does not expect {word!r} in {line!r}")
        if not long and (option == "p" or option in _WITH_VALUE):
            value = value.removeprefix("=")
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


def _whole(name: str) -> str:
    """Return the long option that ``name`` begins, if it is one only: with getopt_long that is enough."""
    begun = {known for known in _LONG_NAMES if known.startswith(name)}
    return begun.pop() if len(begun) == 1 else name


def _dashed(option: str) -> str:
    return f"-{option}" if len(option) == 1 else f"--{option}"


def _change(
    there: dict[str, Destination], command: str, new: Destination, service: str, line: str, accepted: bool
) -> None:
    """Change the destinations of ``service``, which are ``there``."""
    name = str(new)
    if command == "a" and name in there and not accepted:
        raise Refusal(f"{service} forwards to {name} already, at {line!r}")
    if command != "a" and name not in there and not accepted:
        raise Refusal(f"{service} does not forward to {name}, at {line!r}", "add it with ipvsadm -a, before")
    if command in "ad":
        there.pop(name, None)
    if command != "d":
        there[name] = new


def _service(options: Mapping[str, str], line: str, names: Names | None) -> Service:
    kinds: dict[str, Protocol] = {"t": "tcp", "u": "udp", "sctp-service": "sctp", "f": "fwmark"}
    given = [kind for kind in kinds if kind in options]
    if len(given) != 1:
        raise TableError(f"one of -t, -u, -f is needed in {line!r}")
    protocol, named = kinds[given[0]], options[given[0]]
    mark = number(named, line, 1, _MOST) if protocol == "fwmark" else 0
    address, port = ("", 0) if protocol == "fwmark" else address_and_port(named, line, names, protocol)
    persistent = None
    if "p" in options:
        persistent = number(options["p"] or str(tables.DEFAULT_PERSISTENCE), line, 1, 31 * 24 * 3600)
    if options.keys() & {"A", "E"}:
        if protocol != "fwmark" and not port and persistent is None:
            raise TableError(f"a service for every port (port 0) must be persistent (-p), in {line!r}")
        if "o" in options and protocol not in ("udp", "fwmark"):
            raise TableError(f"one-packet scheduling (-o) is for UDP services, in {line!r}")
    netmask = options.get("M", "")
    if netmask and ":" not in address and "6" not in options:
        netmask = _dotted(netmask)
    return Service(
        protocol,
        address,
        port or 0,
        scheduler=options.get("s", tables.DEFAULT_SCHEDULER),
        mark=mark,
        ipv6="6" in options or ":" in address,
        persistent=persistent,
        netmask="" if netmask in ("255.255.255.255", "128") else netmask,
        persistence_engine=options.get("pe", ""),
        one_packet="o" in options,
        scheduler_flags=tuple(sorted(flag for flag in options.get("b", "").split(",") if flag)),
    )


def _destination(
    service: Service, options: Mapping[str, str], line: str, names: Names | None
) -> Destination:
    if "r" not in options:
        raise TableError(f"-r is needed in {line!r}")
    methods = [name for letter, name in _FORWARDING.items() if letter in options] or ["gatewaying"]
    if len(methods) > 1:
        raise TableError(f"one forwarding method only in {line!r}")
    (forwarding,) = methods
    address, port = address_and_port(options["r"], line, names, service.protocol)
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
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise TableError(f"{text!r} is not a number from {least} to {most}, in {line!r}")
    return int(text)


def address_and_port(
    text: str, line: str, names: Names | None = None, protocol: Protocol = "tcp"
) -> tuple[str, int | None]:
    """Return the address and the port, None for none, of ``text`` as in `apply_call`."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    address = _address(host.rstrip("]"), line, names)
    if text.startswith("[") != (":" in address) and port:
        raise TableError(f"{text!r} is not an address and port, in {line!r}")
    if port and not _NUMBER.fullmatch(port):
        # The port of a firewall mark's server is looked up for TCP (parse_options, ipvsadm.c 1.31).
        known = names.services if names else {}
        if (found := known.get((port, "tcp" if protocol == "fwmark" else protocol))) is None:
            raise UnknownName(f"{port!r} is not a number from 0 to 65535, in {line!r}")
        return address, found
    return address, number(port, line, 0, 65535) if port else None


def _address(host: str, line: str, names: Names | None) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return _dotted(host)
    except OSError:
        pass
    if names is None or host not in names.hosts:
        raise UnknownName(f"{host!r} is not an IP address, in {line!r}")
    return names.hosts[host]


def _dotted(text: str) -> str:
    """Return an IPv4 address with four numbers, as inet_aton(3) understands ``text``. Raises OSError."""
    return socket.inet_ntoa(socket.inet_aton(text))
