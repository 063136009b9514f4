"""The director's virtual services as data, and the differences between two tables.

Formats and defaults follow ipvsadm 1.29 and 1.31 (``ipvsadm.c``). Two orders must be told apart:

* the order of the ``-a`` commands, which `rules.table_of` keeps;
* the order of the kernel's list, which the schedulers walk: every new destination goes to the *head* of
  it, so it is the reverse of the commands' (see `scan_order`).

``ipvsadm -Ln`` and ``-Sn`` show neither: they sort by address and port (``ipvs_cmp_dests`` in ipvsadm's
``libipvs.c``). ``ipvsadm -Ln --nosort`` shows the kernel's list as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lvslab.errors import LvsLabError

Protocol = Literal["tcp", "udp", "sctp", "fwmark"]
Forwarding = Literal["masquerading", "gatewaying", "tunneling", "local"]


@dataclass(frozen=True)
class ForwardingSyntax:
    """ipvsadm's notation of a forwarding method: the ``option`` of ``-a``, and the word in its listings.

    With ``maps_ports`` a destination may have another port than its service.
    """

    option: str
    listed: str
    maps_ports: bool = False


FORWARDING: Mapping[Forwarding, ForwardingSyntax] = {
    "masquerading": ForwardingSyntax("-m", "Masq", maps_ports=True),
    "gatewaying": ForwardingSyntax("-g", "Route"),
    "tunneling": ForwardingSyntax("-i", "Tunnel"),
    # A real server that is the director itself: ``-S`` saves it as -g.
    "local": ForwardingSyntax("-g", "Local"),
}
"""``process_options`` and ``fwd_name`` of ipvsadm.c (1.29)."""

DEFAULT_SCHEDULER = "wlc"
"""The scheduler of ``-A`` without ``-s`` (``DEF_SCHED``, ipvsadm.c 1.29)."""

DEFAULT_PERSISTENCE = 360
"""Seconds of ``-p`` without a value (``IPVS_SVC_PERSISTENT_TIMEOUT``, libipvs.h of ipvsadm 1.29)."""


class TableError(LvsLabError, ValueError):
    """An ipvsadm command or a listing that cannot be parsed. The message quotes it."""


@dataclass(frozen=True)
class Destination:
    """One real server of a virtual service.

    Thresholds are in connections, 0 for none. ``-S`` never prints them, so they do not count in equality;
    ``compare`` does compare them, and `director.read_director` takes them from another listing.
    ``tunnel`` is "" for plain IPIP, else the options of another one, as ``gue --tun-port 6080``.
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


def endpoint(address: str, port: int) -> str:
    """Return ``address:port`` as ipvsadm writes it, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def address_of(end: str) -> str:
    """Return the address of an ``endpoint``."""
    return end.rpartition(":")[0].strip("[]")


def service_name(protocol: Protocol, address: str, port: int, mark: int = 0, ipv6: bool = False) -> str:
    """Return a virtual service's name: ``10.0.0.1:80``, ``10.0.0.1:53 (udp)``, ``firewall mark 3``."""
    if protocol == "fwmark":
        return f"firewall mark {mark}" + (" (IPv6)" if ipv6 else "")
    return endpoint(address, port) + ("" if protocol == "tcp" else f" ({protocol})")


def scan_order(service: Service) -> tuple[Destination, ...]:
    """Return the destinations in the order of the kernel's schedulers: the last one added first.

    ``service`` must come from the calls of ipvsadm. New destinations are put at the head of the list:
    ``list_add(&dest->n_list, &svc->destinations)`` in ``ip_vs_add_dest`` of Linux 2.4.37.11
    (net/ipv4/ipvs/ip_vs_ctl.c) and in ``__ip_vs_update_dest`` of 2.6.39 and, as ``list_add_rcu``, of 6.1
    (net/netfilter/ipvs/ip_vs_ctl.c). Editing a destination leaves it where it is.
    """
    return service.destinations[::-1]


def compare(expected: Sequence[Service], observed: Sequence[Service]) -> list[str]:
    """Return the differences between the steps' table and the director's, in sentences.

    The order of services and destinations is not compared: ipvsadm sorts its output.
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
            differences.append(f"the director's table is empty; the steps made the service {service}")
    differences += [
        f"the director has a virtual service {name}, which no ipvsadm of the steps made" for name in there
    ]
    return differences


def _service_differences(expected: Service, observed: Service) -> list[str]:
    differences = []
    if expected.scheduler != observed.scheduler:
        differences.append(f"{expected} is scheduled by {observed.scheduler}, not by {expected.scheduler}")
    differences += [
        f"{expected} has {_option(observed, name)}; the steps say {_option(expected, name)}"
        for name in ("persistent", "netmask", "persistence_engine", "one_packet", "scheduler_flags")
        if getattr(expected, name) != getattr(observed, name)
    ]
    there = {str(destination): destination for destination in observed.destinations}
    missing = []
    for destination in expected.destinations:
        if found := there.pop(str(destination), None):
            differences += _destination_differences(expected, destination, found)
        else:
            missing.append(destination)
    if missing:
        named = " and ".join(f"{server} (weight {server.weight})" for server in missing)
        reaches = listed([server.address for server in observed.destinations])
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        differences.append(
            f"the director forwards {expected} to {f'{reaches} only' if reaches else 'no server'}; "
            f"{named} {are} missing, though the steps added {them}"
        )
    differences += [
        f"the director also forwards {expected} to {extra} (weight {extra.weight}), which no ipvsadm of the "
        "steps added"
        for extra in there.values()
    ]
    return differences


def _destination_differences(service: Service, expected: Destination, observed: Destination) -> list[str]:
    differences = []
    if expected.weight != observed.weight:
        differences.append(f"{service} gives {expected} the weight {observed.weight}, not {expected.weight}")
    if FORWARDING[expected.forwarding].option != FORWARDING[observed.forwarding].option:
        differences.append(
            f"{service} reaches {expected} by {observed.forwarding}, not by {expected.forwarding}"
        )
    wanted, found = ((server.upper_threshold, server.lower_threshold) for server in (expected, observed))
    if wanted != found:
        differences.append(
            f"{service} gives {expected} the thresholds {found[0]} (upper) and {found[1]} (lower), not "
            f"{wanted[0]} and {wanted[1]}"
        )
    if expected.tunnel != observed.tunnel:
        differences.append(
            f"{service} reaches {expected} through a tunnel of type {observed.tunnel or 'ipip'}, "
            f"not {expected.tunnel or 'ipip'}"
        )
    return differences


def _option(service: Service, name: str) -> str:
    value = getattr(service, name)
    match name:
        case "persistent":
            return "no persistence" if value is None else f"persistence of {value} s"
        case "one_packet":
            return "one-packet scheduling" if value else "no one-packet scheduling"
        case "scheduler_flags":
            return f"the scheduler flags {','.join(value) or '(none)'}"
        case _:
            what = name.replace("_", " ")
            return f"the {what} {value}" if value else f"no {what}"


def listed(words: Sequence[str]) -> str:
    """Return ``words`` as in a sentence: ``a, b and c``."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
