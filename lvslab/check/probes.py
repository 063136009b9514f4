"""Probes inside a node, for the diagnosis of requests that are not answered."""

from __future__ import annotations

import re
import socket
import struct
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from lvslab.check.traffic import http
from lvslab.check.traffic.clients import CLIENTS
from lvslab.check.traffic.namespace import NamespaceThread
from lvslab.check.traffic.request import RequestFailed, new_request_id
from lvslab.errors import CheckFailed
from lvslab.run import run

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

_ARP = 0x0806
_ETHERNET = struct.Struct("!6s6sH")
# Hardware type Ethernet, protocol IPv4, their lengths, operation, sender's and target's two addresses.
_ARP_MESSAGE = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_ARP_SECONDS = 5.0
# Errors of routes of the types blackhole, prohibit and unreachable (fib_props, fib_semantics.c, 6.1).
_NO_WAY = tuple(
    f"RTNETLINK answers: {error}" for error in ("Invalid argument", "Permission denied", "No route to host")
)

Probe = Literal["answers", "refused", "rejected", "no-answer"]
"""Responses to a request: refused without a program that listens, or rejected although one does."""


@dataclass(frozen=True)
class Route:
    """A node's route to an address.

    ``kind`` is "local" where the node has the address, "none" where it has no route. ``via`` is the next
    router, "" where the address is on the node's own network.
    """

    kind: Literal["local", "unicast", "none"]
    via: str = ""


class NodeView(Protocol):
    """The network as processes on a node see it."""

    def probe(self, address: str, port: int) -> Probe | None:
        """Make a request from inside the node and tell what comes back.

        None where lvslab cannot make one.
        """
        ...

    def read(self, file: str) -> str:
        """Read a file of /proc, such as /proc/net/route for its IPv4 routes.

        Of a file that is not there, raises OSError, or returns "".
        """
        ...

    def output(self, command: str) -> str:
        """Run a program that looks at the network; return its output, whatever its status."""
        ...


@dataclass(frozen=True)
class HostView:
    """The view of a Mininet host, by a thread of this process in its namespace.

    ``kind`` is that of the servers that `probe` asks, as in ``lab.yaml``.
    """

    namespace: NamespaceThread
    kind: str = "http"

    def probe(self, address: str, port: int) -> Probe | None:
        if self.kind != "http":
            return self._ask(address, port)
        made = http.attempt(self.namespace, address, port, new_request_id(), patience=1.0)
        if made.failure in (None, "status"):
            return "answers"
        return "refused" if made.failure == "refused" else "no-answer"

    def _ask(self, address: str, port: int) -> Probe | None:
        if (ask := CLIENTS.get(self.kind)) is None:
            return None
        try:
            self.namespace.call(ask, address, port, new_request_id())
        except RequestFailed as failed:
            return "refused" if failed.kind == "refused" else "no-answer"
        return "answers"

    def read(self, file: str) -> str:
        return self.namespace.call(Path(file.replace("/proc/net/", "/proc/thread-self/net/")).read_text)

    def output(self, command: str) -> str:
        done = self.namespace.call(run, ["sh", "-c", f"{command} 2>&1; :"])
        return done.stdout.decode(errors="replace")


@dataclass(frozen=True)
class GuestView:
    """The view of a virtual machine, by programs that its agent runs. It asks web servers only."""

    cluster: RunningLab
    node: str
    kind: str = "http"

    def probe(self, address: str, port: int) -> Probe | None:
        if self.kind != "http":
            return None
        # Not wget: the distribution's static busybox has one that crashes (1.35).
        asking = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 1 {address} {port} 2>&1"
        said = self.cluster.observe(self.node, f"{asking}; :")
        if said.startswith("HTTP/"):
            return "answers"
        return "refused" if "refused" in said else "no-answer"

    def read(self, file: str) -> str:
        return self.cluster.observe(self.node, f"cat {file} 2> /dev/null; :")

    def output(self, command: str) -> str:
        return self.cluster.observe(self.node, f"{command} 2>&1; :")


def probed(seen: NodeView, address: str, port: int, protocol: str) -> Probe | None:
    """Probe a server on its node; tell a closed port from a filter that rejects.

    None where these cannot be told apart.
    """
    found = seen.probe(address, port)
    if found != "refused":
        return found
    there = listens(seen, address, port, protocol)
    return None if there is None else "rejected" if there else "refused"


def listens(seen: NodeView, address: str, port: int, protocol: str) -> bool | None:
    """Return whether a node's program has a socket for ``address`` or all, and ``port``.

    None where that cannot be told: of SCTP, and of IPv4 where there is a socket for all of IPv6, which may
    be for both families (ipv6(7), IPV6_V6ONLY), and the node has no ss.
    """
    if protocol not in ("tcp", "udp"):
        return None
    if ":" in address:
        return _has_socket(seen, f"{protocol}6", {address, "::"}, port)
    if _has_socket(seen, protocol, {address, "0.0.0.0"}, port):
        return True
    if _has_socket(seen, f"{protocol}6", {f"::ffff:{address}"}, port):
        return True
    if not _has_socket(seen, f"{protocol}6", {"::"}, port):
        return False
    # /proc does not show for which families it is.
    said = seen.output(f"ss -Hln{protocol[0]}e6 sport = :{port}")
    return "v6only:0" in said if "v6only:" in said else None


def _has_socket(seen: NodeView, file: str, own: Collection[str], port: int) -> bool:
    """Return whether ``file`` of /proc/net has a socket that listens.

    It does so at ``port`` of one of the addresses ``own``.
    """
    try:
        text = seen.read(f"/proc/net/{file}")
    except OSError:
        return False
    wanted = {f"{_as_listed(each)}:{port:04X}" for each in own}
    # TCP_LISTEN, and TCP_CLOSE of a UDP socket without a peer (include/net/tcp_states.h).
    state = "07" if file.startswith("udp") else "0A"
    rows = (line.split() for line in text.splitlines())
    return any(len(row) > 3 and row[1] in wanted and row[3] == state for row in rows)


def _as_listed(address: str) -> str:
    """Return ``address`` as /proc/net/tcp has it: words of 32 bits in this machine's byte order."""
    packed = ip_address(address).packed
    words = (packed[place : place + 4] for place in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


def connect_from(cluster: RunningLab, node: str, address: str, port: int) -> None:
    """Have the virtual machine ``node`` make and close a TCP connection. Raises CheckFailed after 5 s."""
    said = cluster.observe(node, f"busybox nc -w 5 {address} {port} < /dev/null 2>&1; echo status $?")
    if not said.rstrip().endswith("status 0"):
        raise CheckFailed(f"{node} cannot connect to {address} port {port}", said.strip())


def route_to(seen: NodeView, address: str, source: str = "") -> Route | None:
    """Look up a node's route to ``address`` for packets from ``source``; None when unknown."""
    text = seen.output(f"ip route get {address}{f' from {source}' if source else ''}")
    if not source and any(error in text for error in _NO_WAY):
        return Route("none")
    return parse_route(text)


def parse_route(text: str) -> Route | None:
    """Parse what ``ip route get`` prints; None where that does not tell the route."""
    line = text.partition("\n")[0]
    words = line.split()
    if "is unreachable" in line or words[:1] in (["unreachable"], ["prohibit"], ["blackhole"]):
        return Route("none")
    if "dev" not in words:
        return None
    if words[0] == "local":
        return Route("local")
    # "via inet6 ADDRESS" is the way of an IPv4 packet to an IPv6 router.
    via = words[words.index("via") + 1] if "via" in words else ""
    return Route("unicast", words[words.index("via") + 2] if via == "inet6" else via)


def is_silent(seen: NodeView, neighbour: str) -> bool:
    """Return whether nobody answers a node's requests for the hardware address of ``neighbour``."""
    return not {"FAILED", "INCOMPLETE"}.isdisjoint(seen.output(f"ip neigh show {neighbour}").split())


def addresses(listing: str) -> list[str]:
    """Return the addresses in a listing of ``ip -o addr show``, in its order."""
    found = re.findall(r"\binet6? ([0-9a-f.:]+)", listing)
    return [str(ip_address(address)) for address in found]


def neighbour_mac(shown: str) -> str:
    """Return the hardware address in the output of ``ip neigh show ADDRESS``, "" for none."""
    words = shown.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


def default_gateway(seen: NodeView, address: str) -> str:
    """Return a node's default gateway in the family of ``address``, "" for none."""
    if ":" not in address:
        return parse_default_gateway(seen.read("/proc/net/route"))
    words = seen.output("ip -6 route show default").partition("\n")[0].split()
    return words[words.index("via") + 1] if "via" in words else ""


def parse_default_gateway(routes: str) -> str:
    """Return the default route's gateway in a listing of /proc/net/route, "" for none."""
    for line in routes.splitlines()[1:]:
        _, destination, gateway, _, _, _, _, mask, *_ = line.split()
        if (destination, mask) == ("00000000", "00000000"):
            # Four bytes in network order, printed as a number in this machine's byte order.
            return str(IPv4Address(int(gateway, 16).to_bytes(4, sys.byteorder)))
    return ""


def who_has(
    namespace: NamespaceThread, interface: str, own: str, address: str, hosts: Mapping[str, str]
) -> tuple[str, ...]:
    """Ask by ARP (RFC 826) for ``address``; return the names of the hosts that answer.

    The requests go out at ``interface`` with the sender's address ``own``. ``hosts`` maps the names of the
    other machines on that network to an address that each has to itself. Each is asked for that address
    afterwards, and its answer shows that it has read the first request. Raises CheckFailed if one does not
    answer for its own address within 5 s.
    """
    return namespace.call(_ask_neighbours, namespace.name, interface, own, address, dict(hosts))


def _ask_neighbours(
    name: str, interface: str, own: str, address: str, hosts: Mapping[str, str]
) -> tuple[str, ...]:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as wire:
        wire.bind((interface, _ARP))
        mac = wire.getsockname()[4]
        for target in (address, *hosts.values()):
            wire.send(_arp_request(mac, own, target))
        answers = _arp_answers(wire, {address, *hosts.values()}, set(hosts.values()))
    missing = [host for host, its in hosts.items() if its not in answers]
    if missing:
        raise CheckFailed(
            f"{', '.join(missing)} did not answer ARP requests of {name} within {_ARP_SECONDS:g} s",
            "is it up, and is its card on the same network?",
        )
    owners = {next(iter(answers[its])): host for host, its in hosts.items()}
    found = [owners.get(who, who.hex(":")) for who in answers.get(address, ())]
    return tuple(sorted(found, key=[*hosts, *found].index))


def _arp_request(mac: bytes, own: str, target: str) -> bytes:
    frame = _ETHERNET.pack(b"\xff" * 6, mac, _ARP)
    addresses = (IPv4Address(own).packed, bytes(6), IPv4Address(target).packed)
    return frame + _ARP_MESSAGE.pack(1, 0x0800, 6, 4, _ARP_REQUEST, mac, *addresses)


def _arp_answers(
    wire: socket.socket, asked: Collection[str], until: Collection[str]
) -> dict[str, dict[bytes, None]]:
    """Return the hardware addresses that answer for each address, until those of ``until`` have one."""
    answers: dict[str, dict[bytes, None]] = {}
    deadline = time.monotonic() + _ARP_SECONDS
    while not answers.keys() >= set(until) and (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            frame = wire.recv(2048)
        except TimeoutError:
            break
        if len(frame) < _ETHERNET.size + _ARP_MESSAGE.size:
            continue
        *_, operation, sender, address, _, _ = _ARP_MESSAGE.unpack_from(frame, _ETHERNET.size)
        target = str(IPv4Address(address))
        if operation == _ARP_REPLY and target in asked:
            answers.setdefault(target, {})[sender] = None
    return answers
