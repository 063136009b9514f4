"""Packets that nodes drop: rules of iptables and the reverse path filter, by their counters."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from lvslab.check.forwarding.facts import Asked, Finding
from lvslab.check.probes import NodeView
from lvslab.check.services.rulesets import parse_rule
from lvslab.check.traffic.http import padded
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.errors import BootError

_PATIENCE = 1.0
_MOST_REQUESTS = 8

# With both variants of iptables where a node has them; legacy tables only where there are some, since
# listing them would load their module.
_FILTERS = (
    "{six}tables-save -c; if [ -s /proc/net/{six}_tables_names ] && command -v {six}tables-legacy-save;"
    " then {six}tables-legacy-save -c; fi"
)
_CHAIN = re.compile(r":(\S+) (DROP|REJECT) \[(\d+):\d+\]")
_RULE = re.compile(r"\[(\d+):\d+\] (-A .*)")
_TABLE = re.compile(r"\*(\w+)")


def losses_of(
    see: Callable[[str], NodeView],
    director: str,
    asked: Asked,
    again: Callable[[], bool],
    others: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """Make requests until one is not answered, and find the filters that drop packets meanwhile.

    ``again`` makes one and returns whether it was answered; there are two for each real server, at most 8.
    The filters are rules of iptables and the reverse path filter, of the director and of ``others``.
    """
    program, nodes = "ip6tables" if ":" in asked.target else "iptables", [director, *others]
    before = {node: _filters(see, node, program) for node in nodes}
    for _ in range(min(_MOST_REQUESTS, 2 * max(1, len(asked.service.destinations)))):
        if not again():
            break
    found = list[Finding]()
    for node in nodes:
        earlier, later = before[node], _filters(see, node, program)
        if earlier is None or later is None:
            continue
        who, its = ("the director", "the director's") if node == director else (node, f"{node}'s")
        found += [
            Finding(
                f"{who} drops packets while this service is asked: {rule}",
                f"look at its counters in `{program} -vL` on {node}, and let these packets pass",
            )
            for rule, count in later[0].items()
            if count > earlier[0].get(rule, 0)
        ]
        if later[1] > earlier[1]:
            found.append(
                Finding(
                    f"{its} rp_filter drops packets while this service is asked: they arrive on another "
                    "interface than the one by which their source is reached",
                    "set rp_filter to 0 in net.ipv4.conf.all and for the interface, or mend the routes",
                )
            )
    return tuple(found)


def _filters(
    see: Callable[[str], NodeView], node: str, program: str
) -> tuple[Mapping[str, int], int] | None:
    """Return what a node's filters have dropped, None where it does not tell."""
    try:
        seen = see(node)
        saved = seen.output(_FILTERS.format(six=program.removesuffix("tables")))
        return drops(saved, program), reverse_path_drops(seen)
    except BootError:
        return None


def drops(saved: str, program: str = "iptables") -> Mapping[str, int]:
    """Return the packets that each dropping policy and rule has taken, from ``iptables-save -c``.

    Rules that are the same count as one.
    """
    found, table = dict[str, int](), ""
    for line in saved.splitlines():
        if begun := _TABLE.fullmatch(line.strip()):
            table = begun[1]
        elif policy := _CHAIN.match(line):
            found[f"the policy of {policy[1]} in the table {table} is {policy[2]}"] = int(policy[3])
        elif (rule := _RULE.match(line)) and parse_rule(rule[2])[1].jump == "DROP":
            name = f"`{program} -t {table} {rule[2]}`"
            found[name] = found.get(name, 0) + int(rule[1])
    return found


def reverse_path_drops(seen: NodeView) -> int:
    """Return the number of packets that a node's reverse path filter has dropped (IPReversePathFilter)."""
    try:
        rows = [line.split() for line in seen.read("/proc/net/netstat").splitlines()]
    except OSError:
        return 0
    for names, values in zip(rows[::2], rows[1::2], strict=False):
        if "IPReversePathFilter" in names:
            return int(values[names.index("IPReversePathFilter")])
    return 0


def ask_briefly(
    namespace: NamespaceThread, address: str, port: int, protocol: str, padding: int = 0
) -> bool:
    """Ask a service once more; return whether an answer comes within 1 s. ``padding`` is as for rounds."""
    return namespace.call(_ask_briefly, address, port, protocol, padding)


def _ask_briefly(address: str, port: int, protocol: str, padding: int = 0) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    answered = False
    with (
        suppress(OSError),
        socket.socket(family, kind, socket.IPPROTO_SCTP if protocol == "sctp" else 0) as asking,
    ):
        asking.settimeout(_PATIENCE)
        asking.connect((address, port))
        asking.sendall(b"GET / HTTP/1.0\r\n" + padded(padding) + b"\r\n")
        answered = asking.recv(65536) != b""
        if answered and kind == socket.SOCK_STREAM:
            _finish(asking)
    return answered


def _finish(connection: socket.socket) -> None:
    """Read what else comes on a connection, for 1 s at most.

    Closed before the server's end, it is reset, and forecasts have to wait until that is forgotten. Servers
    that would go on waiting for commands are told that none comes. Raises OSError.
    """
    connection.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + _PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        if not connection.recv(65536):
            return
