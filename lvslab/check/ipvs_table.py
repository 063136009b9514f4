"""The director's virtual services as data: from a how-to's own commands, and from what `ipvsadm` prints.

Formats and defaults follow ipvsadm 1.29 and 1.31 (``ipvsadm.c``). Two orders must be told apart:

* the order of the ``-a`` commands, which `parse_rules` keeps;
* the order of the kernel's list, which the schedulers walk: every new destination goes to the *head* of
  it, so it is the reverse of the commands' (see `scan_order`).

``ipvsadm -Ln`` and ``-Sn`` show neither: they sort by address and port (``ipvs_cmp_dests`` in ipvsadm's
``libipvs.c``). ``ipvsadm -Ln --nosort`` shows the kernel's list as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address
from itertools import groupby, takewhile
from typing import Literal

from lvslab.errors import LvsLabError

Protocol = Literal["tcp", "udp", "sctp", "fwmark"]
Forwarding = Literal["masquerading", "gatewaying", "tunneling", "local"]

DEFAULT_SCHEDULER = "wlc"
"""What ``-A`` without ``-s`` means (``DEF_SCHED``, ipvsadm.c 1.29)."""

DEFAULT_PERSISTENCE = 360
"""Seconds that ``-p`` without a value means (``IPVS_SVC_PERSISTENT_TIMEOUT``, libipvs.h of ipvsadm 1.29)."""


class TableError(LvsLabError, ValueError):
    """An ipvsadm command or a listing that cannot be understood. The message quotes it."""


@dataclass(frozen=True)
class Destination:
    """One real server of a virtual service.

    Thresholds are connections, 0 for none; ``-S`` never prints them, so they take no part in comparisons.
    ``tunnel`` is "" for plain IPIP, else the options that say otherwise, as ``gue --tun-port 6080``.
    """

    address: str
    port: int
    forwarding: Forwarding = "gatewaying"
    weight: int = 1
    tunnel: str = ""
    upper_threshold: int = field(default=0, compare=False)
    lower_threshold: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


@dataclass(frozen=True)
class Service:
    """One virtual service. ``address`` is "" and ``port`` 0 for a firewall mark, whose number is ``mark``.

    ``persistent`` is the timeout in seconds, or None; ``netmask`` the persistence granularity as ipvsadm
    prints it, "" where it is a whole address. ``destinations`` are in the order in which they were read.
    """

    protocol: Protocol
    address: str
    port: int
    scheduler: str = DEFAULT_SCHEDULER
    destinations: tuple[Destination, ...] = ()
    mark: int = 0
    ipv6: bool = False
    persistent: int | None = None
    netmask: str = ""
    persistence_engine: str = ""
    one_packet: bool = False
    scheduler_flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return service_name(self.protocol, self.address, self.port, self.mark, self.ipv6)


@dataclass(frozen=True)
class ServerConnections:
    """A destination's line of ``ipvsadm -Ln``: its connections now, by what the scheduler makes of them."""

    address: str
    port: int
    forwarding: Forwarding
    weight: int
    active: int
    inactive: int

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


@dataclass(frozen=True)
class ServiceConnections:
    """A virtual service in ``ipvsadm -Ln``; ``servers`` in the order of the listing."""

    protocol: Protocol
    address: str
    port: int
    scheduler: str
    servers: tuple[ServerConnections, ...] = ()
    mark: int = 0
    ipv6: bool = False
    flags: str = ""

    def __str__(self) -> str:
        return service_name(self.protocol, self.address, self.port, self.mark, self.ipv6)


@dataclass(frozen=True)
class Counters:
    """Totals since the entry was made or zeroed. "In" is from the client, "out" what the director saw of the
    answers: with masquerading all of them, with the other methods none."""

    connections: int
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int

    def since(self, earlier: Counters) -> Counters:
        """What was added after ``earlier`` was read."""
        return Counters(
            self.connections - earlier.connections,
            self.packets_in - earlier.packets_in,
            self.packets_out - earlier.packets_out,
            self.bytes_in - earlier.bytes_in,
            self.bytes_out - earlier.bytes_out,
        )


@dataclass(frozen=True)
class ServerCounters:
    """A destination's line of ``ipvsadm -Ln --stats --exact``."""

    address: str
    port: int
    counters: Counters

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


@dataclass(frozen=True)
class ServiceCounters:
    """A virtual service in ``ipvsadm -Ln --stats --exact``; ``servers`` in the order of the listing."""

    protocol: Protocol
    address: str
    port: int
    counters: Counters
    servers: tuple[ServerCounters, ...] = ()
    mark: int = 0
    ipv6: bool = False

    def __str__(self) -> str:
        return service_name(self.protocol, self.address, self.port, self.mark, self.ipv6)


def endpoint(address: str, port: int) -> str:
    """``address:port`` as ipvsadm writes it, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def service_name(protocol: Protocol, address: str, port: int, mark: int = 0, ipv6: bool = False) -> str:
    """A virtual service's name for people: ``10.0.0.1:80``, ``10.0.0.1:53 (udp)``, ``firewall mark 3``."""
    if protocol == "fwmark":
        return f"firewall mark {mark}" + (" (IPv6)" if ipv6 else "")
    return endpoint(address, port) + ("" if protocol == "tcp" else f" ({protocol})")


def scan_order(service: Service) -> tuple[Destination, ...]:
    """The destinations in the order in which the kernel's schedulers look at them: the last one added first.

    ``service`` must come from the commands that were typed. New destinations are put at the head of the
    list: ``list_add(&dest->n_list, &svc->destinations)`` in ``ip_vs_add_dest`` of Linux 2.4.37.11
    (net/ipv4/ipvs/ip_vs_ctl.c) and in ``__ip_vs_update_dest`` of 2.6.39 and, as ``list_add_rcu``, of 6.1
    (net/netfilter/ipvs/ip_vs_ctl.c). Editing a destination leaves it where it is.
    """
    return service.destinations[::-1]


# --- commands ----------------------------------------------------------------------------------------------

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
_FORWARDING: Mapping[str, Forwarding] = {"m": "masquerading", "g": "gatewaying", "i": "tunneling"}
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(\S*)\s*;?\s*$")
_REDIRECTION = re.compile(r"\d*[<>]")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


def parse_rules(text: str) -> tuple[Service, ...]:
    """The table that rules or commands make, starting from an empty one.

    ``text`` is what ``ipvsadm -Sn`` printed, or what a person types on the director: lines that do not call
    ipvsadm are passed over, shell variables set in one line are seen by the next, a backslash joins lines.
    Services and destinations come in the order in which they were added. Raises TableError on an option
    that ipvsadm does not have, on names instead of numbers, and on what ipvsadm or the kernel refuses.
    """
    table: dict[str, Service] = {}
    variables: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        stripped = line.strip()
        if assigned := _ASSIGNMENT.match(stripped):
            variables[assigned[1]] = "".join(shlex.split(assigned[2]))
            continue
        for words in _ipvsadm_calls(stripped):
            _apply(table, [_expand(word, variables, stripped) for word in words], stripped)
    return tuple(table.values())


def _ipvsadm_calls(line: str) -> Iterable[list[str]]:
    bare = re.match(r"-[AEDaedC]", line) is not None
    if not bare and "ipvsadm" not in line:
        return
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError as error:
        raise TableError(f"cannot read the command {line!r}: {error}") from None
    for separator, group in groupby(tokens, key=lambda token: set(token) <= set(";&|")):
        if separator:
            continue
        words = list(takewhile(lambda word: not _REDIRECTION.match(word), group))
        if words[:1] == ["sudo"]:
            words = words[1:]
        if words and words[0].rpartition("/")[2] == "ipvsadm":
            yield words[1:]
        elif words and bare:
            yield words


def _expand(word: str, variables: Mapping[str, str], line: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            raise TableError(
                f"the variable {name} in {line!r} has no value", f"set it in a line {name}=... before"
            )
        return variables[name]

    return _VARIABLE.sub(value, word)


def _options(words: Sequence[str], line: str) -> dict[str, str]:
    """The options of one command with their values ("" for none), by short name if there is one."""
    found: dict[str, str] = {}
    rest = list(words)

    def value_of(option: str, attached: str) -> str:
        if attached:
            return attached
        if not rest:
            raise TableError(f"{option} needs a value in {line!r}")
        return rest.pop(0)

    def note(option: str, value: str) -> None:
        if option in found:
            raise TableError(f"{_dashed(option)} is given twice in {line!r}")
        found[option] = value

    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name, _, attached = word[2:].partition("=")
            option = _LONG.get(name, name)
            if option == "p":
                note("p", attached or _optional_value(rest))
            else:
                note(option, value_of(word, attached) if option in _WITH_VALUE else "")
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter == "p":
                    note("p", letters or _optional_value(rest))
                    break
                if letter in _WITH_VALUE:
                    note(letter, value_of(f"-{letter}", letters))
                    break
                note(letter, "")
        elif found.keys() & _HARMLESS:
            continue
        else:
            raise TableError(f"ipvsadm does not expect {word!r} in {line!r}")
    return found


def _optional_value(rest: list[str]) -> str:
    return rest.pop(0) if rest and not rest[0].startswith("-") else ""


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
        raise TableError(f"{line!r} reads rules that are not in it", "give the rules themselves")
    for option in options:
        if option not in _ALLOWED[command]:
            raise TableError(f"ipvsadm -{command} has no option {_dashed(option)}, in {line!r}")
    if command == "C":
        table.clear()
        return
    service = _service(options, line)
    key = str(service)
    if command == "A":
        if key in table:
            raise TableError(f"the service {key} exists already, at {line!r}")
        table[key] = service
        return
    if key not in table:
        raise TableError(f"there is no service {key} at {line!r}", "it is made with ipvsadm -A, before")
    if command == "E":
        table[key] = replace(service, destinations=table[key].destinations)
    elif command == "D":
        del table[key]
    else:
        table[key] = _with_destination(table[key], command, options, line)


def _with_destination(service: Service, command: str, options: Mapping[str, str], line: str) -> Service:
    new = _destination(service, options, line)
    kept = [old for old in service.destinations if str(old) != str(new)]
    known = len(kept) < len(service.destinations)
    if command == "a":
        if known:
            raise TableError(f"{service} forwards to {new} already, at {line!r}")
        return replace(service, destinations=(*service.destinations, new))
    if not known:
        raise TableError(
            f"{service} does not forward to {new}, at {line!r}", "add it with ipvsadm -a, before"
        )
    if command == "d":
        return replace(service, destinations=tuple(kept))
    return replace(
        service, destinations=tuple(new if str(old) == str(new) else old for old in service.destinations)
    )


def _service(options: Mapping[str, str], line: str) -> Service:
    kinds: dict[str, Protocol] = {"t": "tcp", "u": "udp", "sctp-service": "sctp", "f": "fwmark"}
    given = [kind for kind in kinds if kind in options]
    if len(given) != 1:
        raise TableError(f"one of -t, -u, -f is needed in {line!r}")
    protocol = kinds[given[0]]
    address, port, mark = "", 0, 0
    if protocol == "fwmark":
        mark = _number(options["f"], line, 1, 2**31 - 1)
    else:
        address, given_port = _address_and_port(options[given[0]], line)
        port = given_port or 0
    persistent = None
    if "p" in options:
        persistent = _number(options["p"], line, 1, 31 * 24 * 3600) if options["p"] else DEFAULT_PERSISTENCE
    if options.keys() & {"A", "E"}:
        if protocol != "fwmark" and not port and persistent is None:
            raise TableError(f"a service for every port (port 0) must be persistent (-p), in {line!r}")
        if "o" in options and protocol not in ("udp", "fwmark"):
            raise TableError(f"one-packet scheduling (-o) is for UDP services, in {line!r}")
    whole = ("", "255.255.255.255", "128")
    return Service(
        protocol=protocol,
        address=address,
        port=port,
        scheduler=options.get("s", DEFAULT_SCHEDULER),
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
    methods = [letter for letter in _FORWARDING if letter in options]
    if len(methods) > 1:
        raise TableError(f"one forwarding method only in {line!r}")
    forwarding = _FORWARDING[methods[0]] if methods else "gatewaying"
    address, port = _address_and_port(options["r"], line)
    if port is None or (service.protocol != "fwmark" and forwarding != "masquerading"):
        # Only masquerading can change the port (process_options, ipvsadm.c 1.29).
        port = service.port
    return Destination(
        address=address,
        port=port,
        forwarding=forwarding,
        weight=_number(options.get("w", "1"), line, 0, 2**31 - 1),
        tunnel=_tunnel(options),
        upper_threshold=_number(options.get("x", "0"), line, 0, 2**31 - 1),
        lower_threshold=_number(options.get("y", "0"), line, 0, 2**31 - 1),
    )


def _tunnel(options: Mapping[str, str]) -> str:
    words = []
    if (kind := options.get("tun-type", "ipip")) != "ipip":
        words.append(kind)
    if "tun-port" in options:
        words.append(f"--tun-port {options['tun-port']}")
    words += [f"--{name}" for name in ("tun-csum", "tun-remcsum") if name in options]
    return " ".join(words)


def _number(text: str, line: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise TableError(f"{text!r} is no number from {least} to {most}, in {line!r}")
    return int(text)


def _address_and_port(text: str, line: str) -> tuple[str, int | None]:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = ip_address(host.rstrip("]"))
    except ValueError:
        raise TableError(
            f"{host!r} is no IP address, in {line!r}", "names are not looked up: use ipvsadm -n"
        ) from None
    if text.startswith("[") != isinstance(address, IPv6Address) and port:
        raise TableError(f"{text!r} is no address and port, in {line!r}")
    return str(address), _number(port, line, 0, 65535) if port else None


# --- listings ----------------------------------------------------------------------------------------------

_SERVICE_LINE = re.compile(r"(TCP|UDP|SCTP|FWM)\s+(\S+)\s*(.*)$")
_SERVER_LINE = re.compile(r"\s+->\s+(\S+)\s+(\S.*)$")
_METHODS: Mapping[str, Forwarding] = {
    "Masq": "masquerading",
    "Route": "gatewaying",
    "Tunnel": "tunneling",
    "Local": "local",
}
_PROTOCOLS: Mapping[str, Protocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp", "FWM": "fwmark"}


@dataclass(frozen=True)
class _Heading:
    protocol: Protocol
    address: str
    port: int
    mark: int
    ipv6: bool
    rest: str


def parse_connections(text: str) -> tuple[ServiceConnections, ...]:
    """The rows of ``ipvsadm -Ln`` (with ``--nosort``: servers in the kernel's order). Raises TableError."""
    table: list[ServiceConnections] = []
    for heading, lines in _listing(text):
        scheduler, _, flags = heading.rest.partition(" ")
        servers = []
        for place, columns, line in lines:
            address, port = _address_and_port(place, line)
            if len(columns) != 4 or columns[0] not in _METHODS:
                raise TableError(f"not a line of `ipvsadm -Ln`: {line!r}")
            weight, active, inactive = (_count(column, line) for column in columns[1:])
            servers.append(
                ServerConnections(address, port or 0, _METHODS[columns[0]], weight, active, inactive)
            )
        table.append(
            ServiceConnections(
                heading.protocol,
                heading.address,
                heading.port,
                scheduler,
                tuple(servers),
                heading.mark,
                heading.ipv6,
                flags.strip(),
            )
        )
    return tuple(table)


def parse_counters(text: str) -> tuple[ServiceCounters, ...]:
    """The rows of ``ipvsadm -Ln --stats --exact``. Raises TableError, also on numbers cut to 12K or 3M."""
    table: list[ServiceCounters] = []
    for heading, lines in _listing(text):
        servers = []
        for place, columns, line in lines:
            address, port = _address_and_port(place, line)
            servers.append(ServerCounters(address, port or 0, _counters(columns, line)))
        table.append(
            ServiceCounters(
                heading.protocol,
                heading.address,
                heading.port,
                _counters(heading.rest.split(), str(heading)),
                tuple(servers),
                heading.mark,
                heading.ipv6,
            )
        )
    return tuple(table)


def _listing(text: str) -> list[tuple[_Heading, list[tuple[str, list[str], str]]]]:
    found: list[tuple[_Heading, list[tuple[str, list[str], str]]]] = []
    for line in text.splitlines():
        titles = ("IP Virtual Server version", "Prot LocalAddress:Port")
        if not line.strip() or line.startswith(titles) or "RemoteAddress:Port" in line:
            continue
        if service := _SERVICE_LINE.match(line):
            protocol, rest = _PROTOCOLS[service[1]], service[3].strip()
            if protocol == "fwmark":
                ipv6 = rest.startswith("IPv6")
                mark = _number(service[2], line, 1, 2**31 - 1)
                found.append((_Heading(protocol, "", 0, mark, ipv6, rest.removeprefix("IPv6").strip()), []))
            else:
                address, port = _address_and_port(service[2], line)
                found.append((_Heading(protocol, address, port or 0, 0, ":" in address, rest), []))
        elif found and (server := _SERVER_LINE.match(line)):
            found[-1][1].append((server[1], server[2].split(), line))
        else:
            raise TableError(f"not a line of `ipvsadm -Ln`: {line!r}")
    return found


def _counters(columns: Sequence[str], line: str) -> Counters:
    if len(columns) != 5:
        raise TableError(f"not a line of `ipvsadm -Ln --stats`: {line!r}")
    return Counters(*(_count(column, line) for column in columns))


def _count(text: str, line: str) -> int:
    if not text.isdecimal():
        hint = "read them with --exact" if text[-1:] in "KMGT" else None
        raise TableError(f"{text!r} is no count, in {line!r}", hint)
    return int(text)


# --- comparing ---------------------------------------------------------------------------------------------

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SWITCH: Mapping[Forwarding, str] = {
    "masquerading": "-m",
    "gatewaying": "-g",
    "tunneling": "-i",
    "local": "-g",
}


def compare(expected: Sequence[Service], observed: Sequence[Service]) -> list[str]:
    """Every way in which the director's table is not what the steps said, in sentences; none when it is.

    The order of services and destinations is not compared: `ipvsadm` sorts what it prints.
    """
    differences: list[str] = []
    there = {str(service): service for service in observed}
    for service in expected:
        if found := there.pop(str(service), None):
            differences += _service_differences(service, found)
        elif observed:
            others = ", ".join(map(str, observed))
            differences.append(f"the director has no virtual service {service}, only {others}")
        else:
            differences.append(
                f"the director's table is empty, the service {service} is missing: was `ipvsadm -A` run?"
            )
    differences += [f"the director has a virtual service {name} that no step makes" for name in there]
    return differences


def _service_differences(expected: Service, observed: Service) -> list[str]:
    differences = []
    if expected.scheduler != observed.scheduler:
        differences.append(
            f"{expected} is scheduled by {observed.scheduler}, not by {expected.scheduler}: "
            f"what does the `-s` of `ipvsadm -A` say?"
        )
    differences += [
        f"{expected} has {_option(observed, name)}; the steps say {_option(expected, name)}"
        for name in ("persistent", "netmask", "persistence_engine", "one_packet", "scheduler_flags")
        if getattr(expected, name) != getattr(observed, name)
    ]
    there = {str(destination): destination for destination in observed.destinations}
    missing = []
    for place, destination in enumerate(expected.destinations):
        if found := there.pop(str(destination), None):
            differences += _destination_differences(expected, destination, found)
        else:
            missing.append((place, destination))
    if missing:
        named = " and ".join(f"{server} (weight {server.weight})" for _, server in missing)
        reaches = _listed([server.address for server in observed.destinations])
        which = " and ".join(_ORDINALS[place] if place < 10 else f"{place + 1}th" for place, _ in missing)
        differences.append(
            f"the director forwards {expected} to {f'{reaches} only' if reaches else 'no server'}; "
            f"{named} {'is' if len(missing) == 1 else 'are'} missing: was the {which} `ipvsadm -a` run?"
        )
    differences += [
        f"the director also forwards {expected} to {extra} (weight {extra.weight}), which no step adds"
        for extra in there.values()
    ]
    return differences


def _destination_differences(service: Service, expected: Destination, observed: Destination) -> list[str]:
    differences = []
    if expected.weight != observed.weight:
        differences.append(
            f"{service} gives {expected} the weight {observed.weight}, not {expected.weight}: "
            f"what does the `-w` of its `ipvsadm -a` say?"
        )
    # A real server that is the director itself is listed as "Local" and saved as -g.
    if _SWITCH[expected.forwarding] != _SWITCH[observed.forwarding]:
        differences.append(
            f"{service} reaches {expected} by {observed.forwarding}, not by {expected.forwarding}: "
            f"its `ipvsadm -a` needs {_SWITCH[expected.forwarding]}"
        )
    if expected.tunnel != observed.tunnel:
        differences.append(
            f"{service} reaches {expected} through a tunnel of type {observed.tunnel or 'ipip'}, "
            f"not {expected.tunnel or 'ipip'}: what does the `--tun-type` of its `ipvsadm -a` say?"
        )
    return differences


def _option(service: Service, name: str) -> str:
    match name:
        case "persistent":
            return (
                "no persistence" if service.persistent is None else f"persistence of {service.persistent} s"
            )
        case "netmask":
            return f"the netmask {service.netmask}" if service.netmask else "no netmask"
        case "persistence_engine":
            engine = service.persistence_engine
            return f"the persistence engine {engine}" if engine else "no persistence engine"
        case "one_packet":
            return "one-packet scheduling" if service.one_packet else "no one-packet scheduling"
        case _:
            return f"the scheduler flags {','.join(service.scheduler_flags) or '(none)'}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
