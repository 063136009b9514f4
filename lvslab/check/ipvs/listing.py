"""Parsers of ipvsadm's listings.

They are the table (``ipvsadm -Ln``), its connections (``-Lnc``), counters (``-Ln --stats``) and rates
(``--rate``). Without ``--exact`` ipvsadm cuts numbers from 100,000,000 on to 123456K, and so on with M, G
and T (``print_largenum``, ipvsadm.c 1.31). Such numbers are refused here: differences would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from ipaddress import ip_address
from operator import sub

from lvslab.check.ipvs import packed
from lvslab.check.ipvs.rules import address_and_port, number
from lvslab.check.ipvs.table import FORWARDING, Forwarding, Protocol, TableError, endpoint, service_name
from lvslab.errors import CheckFailed

_SERVICE_LINE = re.compile(r"(TCP|UDP|SCTP|FWM)\s+(\S+)\s*(.*)$")
_SERVER_LINE = re.compile(r"\s+->\s+(\S+)\s+(\S.*)$")
_METHODS: Mapping[str, Forwarding] = {syntax.listed: name for name, syntax in FORWARDING.items()}
_PROTOCOLS: Mapping[str, Protocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp", "FWM": "fwmark"}


@dataclass(frozen=True)
class ListedServer:
    """A destination's line of ``ipvsadm -Ln``, with its active and inactive connections."""

    address: str
    port: int
    forwarding: Forwarding
    weight: int
    active: int
    inactive: int

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


@dataclass(frozen=True)
class ListedService:
    """A virtual service's lines of ``ipvsadm -Ln``; ``servers`` are in the order of the listing."""

    protocol: Protocol
    address: str
    port: int
    scheduler: str = ""
    servers: tuple[ListedServer, ...] = ()
    mark: int = 0
    ipv6: bool = False
    flags: str = ""

    def __str__(self) -> str:
        return service_name(self.protocol, self.address, self.port, self.mark, self.ipv6)


@dataclass(frozen=True)
class Counters:
    """Totals since the service or server was added or zeroed.

    "In" is from the client, "out" are the replies that pass through the director.
    """

    connections: int
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int

    def since(self, earlier: Counters) -> Counters:
        """Return the difference to an ``earlier`` reading."""
        return Counters(*map(sub, astuple(self), astuple(earlier)))

    def per(self, seconds: float) -> Rates | None:
        """Return these increments as rates over ``seconds``.

        None where ``seconds`` is 0, and where a counter went backwards: it was zeroed meanwhile, or passed
        32 bits (old kernels).
        """
        added = astuple(self)
        if seconds <= 0 or min(added) < 0:
            return None
        return Rates(*(count / seconds for count in added))


@dataclass(frozen=True)
class Rates:
    """Connections, packets and bytes per second, in the directions of `Counters`."""

    connections: float
    packets_in: float
    packets_out: float
    bytes_in: float
    bytes_out: float


@dataclass(frozen=True)
class Connection:
    """A connection in the director's table: a line of ``ipvsadm -Lnc``.

    ``client``, ``virtual`` and ``server`` are endpoints, ``address:port``; a client's port that is not known
    yet is 0. Without more packets it expires in ``expires`` seconds, rounded down.
    """

    protocol: Protocol
    state: str
    client: str
    virtual: str
    server: str
    expires: int


Line = tuple[str, int, list[str], str]
"""A server's address and port, the columns after them, and the whole line."""


def parse_listing(text: str) -> tuple[ListedService, ...]:
    """Parse ``ipvsadm -Ln`` (with ``--nosort``: servers in the kernel's order). Raises TableError."""
    table: list[ListedService] = []
    for service, rest, lines in _listing(text):
        servers = []
        for address, port, columns, line in lines:
            if len(columns) != 4 or columns[0] not in _METHODS:
                raise TableError(f"not a line of `ipvsadm -Ln`: {line!r}")
            weight, active, inactive = (_count(column, line) for column in columns[1:])
            servers.append(ListedServer(address, port, _METHODS[columns[0]], weight, active, inactive))
        scheduler, _, flags = rest.partition(" ")
        table.append(replace(service, scheduler=scheduler, servers=tuple(servers), flags=flags.strip()))
    return tuple(table)


def parse_counters(text: str) -> dict[tuple[str, str], Counters]:
    """Parse ``ipvsadm -Ln --stats --exact`` to counters by service and server.

    The server is "" for a service's own. Raises TableError, also on numbers cut to 12K or 3M.
    """
    return {ends: Counters(*numbers) for ends, numbers in _fives(text, "stats")}


def parse_rates(text: str) -> dict[tuple[str, str], Rates]:
    """Parse ``ipvsadm -Ln --rate --exact`` to the kernel's rates, as `parse_counters` does.

    They are decaying averages: every 2 s a quarter of the difference between the rate of these 2 s and the
    old one is added (net/netfilter/ipvs/ip_vs_est.c of 6.1, net/ipv4/ipvs/ip_vs_est.c of 2.4.37.11).
    """
    return {ends: Rates(*numbers) for ends, numbers in _fives(text, "rate")}


def parse_thresholds(text: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Parse upper and lower threshold by service and server from ``ipvsadm -Ln --thresholds``.

    They are in connections, 0 for none. Raises TableError.
    """
    found = {}
    for service, _, lines in _listing(text):
        for address, port, columns, line in lines:
            if len(columns) != 4:
                raise TableError(f"not a line of `ipvsadm -Ln --thresholds`: {line!r}")
            upper, lower = (_count(column, line) for column in columns[:2])
            found[str(service), endpoint(address, port)] = (upper, lower)
    return found


def parse_connection_entries(text: str) -> tuple[Connection, ...]:
    """Parse ``ipvsadm -Lnc``, templates of persistence included.

    A text that was packed has `packed.MARK` as its first line. Raises CheckFailed where it is not complete.
    """
    first, _, rest = text.lstrip().partition("\n")
    if first == packed.MARK and not (text := packed.unpack(rest)):
        raise CheckFailed("the list of the director's connections is not complete")
    found = []
    protocols = {**_PROTOCOLS, "IP": "fwmark"}  # templates of firewall marks
    for columns in map(str.split, text.splitlines()):
        if len(columns) >= 6 and columns[0] in protocols:
            minutes, _, seconds = columns[1].partition(":")
            state, client, virtual, server = columns[2:6]
            expires = 60 * int(minutes) + int(seconds)
            found.append(Connection(protocols[columns[0]], state, client, virtual, server, expires))
    return tuple(found)


def parse_kernel_order(text: str) -> dict[str, tuple[str, ...]]:
    """Parse /proc/net/ip_vs to the servers of each service in the kernel's order.

    The order of ``ipvsadm -Ln`` is another one. Lines are as ``ip_vs_info_seq_show`` (ip_vs_ctl.c, 2.4.37.11
    to 6.1) prints them: addresses and ports in hexadecimal digits, and IPv6 addresses in brackets.
    """
    found: dict[str, list[str]] = {}
    own: list[str] = []
    for columns in map(str.split, text.splitlines()):
        if len(columns) >= 2 and columns[0] in _PROTOCOLS:
            protocol = _PROTOCOLS[columns[0]]
            if protocol == "fwmark":
                name = service_name(protocol, "", 0, int(columns[1], 16))  # of either family
            else:
                name = service_name(protocol, *_hexadecimal(columns[1]))
            own = found.setdefault(name, [])
        elif (
            len(columns) >= 2
            and columns[0] == "->"
            and ":" in columns[1]
            and "RemoteAddress" not in columns[1]
        ):
            own.append(endpoint(*_hexadecimal(columns[1])))
    return {name: tuple(servers) for name, servers in found.items()}


def _hexadecimal(text: str) -> tuple[str, int]:
    """Parse ``0A000064:0050`` or ``[fd00:...]:0050``."""
    address, _, port = text.rpartition(":")
    if address.startswith("["):
        return str(ip_address(address.strip("[]"))), int(port, 16)
    return str(ip_address(int(address, 16))), int(port, 16)


def _listing(text: str) -> list[tuple[ListedService, str, list[Line]]]:
    """Return each service, the rest of its line, and its servers' lines."""
    found: list[tuple[ListedService, str, list[Line]]] = []
    for line in text.splitlines():
        titles = ("IP Virtual Server version", "Prot LocalAddress:Port")
        if not line.strip() or line.startswith(titles) or "RemoteAddress:Port" in line:
            continue
        if heading := _SERVICE_LINE.match(line):
            protocol, rest = _PROTOCOLS[heading[1]], heading[3].strip()
            address, port, mark = "", 0, 0
            if protocol == "fwmark":
                mark, ipv6 = number(heading[2], line, 1, 2**31 - 1), rest.startswith("IPv6")
                rest = rest.removeprefix("IPv6").strip()
            else:
                address, port = _end(heading[2], line)
                ipv6 = ":" in address
            found.append((ListedService(protocol, address, port, mark=mark, ipv6=ipv6), rest, []))
        elif found and (server := _SERVER_LINE.match(line)):
            found[-1][2].append((*_end(server[1], line), server[2].split(), line))
        else:
            raise TableError(f"not a line of `ipvsadm -Ln`: {line!r}")
    return found


def _end(text: str, line: str) -> tuple[str, int]:
    address, port = address_and_port(text, line)
    return address, port or 0


def _fives(text: str, option: str) -> Iterator[tuple[tuple[str, str], list[int]]]:
    """Yield connections, packets and bytes, in and out, of each service and server."""
    for service, rest, lines in _listing(text):
        for end, columns, line in [
            ("", rest.split(), str(service)),
            *((endpoint(address, port), columns, line) for address, port, columns, line in lines),
        ]:
            if len(columns) != 5:
                raise TableError(f"not a line of `ipvsadm -Ln --{option}`: {line!r}")
            yield (str(service), end), [_count(column, line) for column in columns]


def _count(text: str, line: str) -> int:
    if not text.isdecimal():
        hint = "read them with --exact" if text[-1:] in "KMGT" else None
        raise TableError(f"{text!r} is not a count, in {line!r}", hint)
    return int(text)
