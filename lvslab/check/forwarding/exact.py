"""Comparison of every packet that left a director with the one that should have left.

Captures at the director's cards are compared as they are. Where kernels and virtual cards leave work to the
card, that shows in a capture, and is not an error:

* a checksum may hold the sum of the pseudo header only, and the kernel says so of each such packet;
* a packet may be larger than the network's MTU, and be cut or joined on the way (TSO, GRO). TCP's data are
  therefore compared piece by piece, cut wherever one side has the boundary of a packet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Literal

from lvslab.check.forwarding import Method, method_for
from lvslab.check.forwarding.flow import Flow, Way
from lvslab.check.forwarding.icmp import Refusal, is_quoted, refusal_in
from lvslab.check.forwarding.packet import NETWORKS, Difference, Packet, compare
from lvslab.check.ipvs.table import Destination, Service, endpoint
from lvslab.errors import CheckFailed

Kind = Literal["request", "reply"]
End = tuple[str, int]


@dataclass(frozen=True)
class Seen:
    """A packet at the director's card ``card``, which it has ``sent`` or received.

    ``moment`` is in nanoseconds since 1970.
    """

    packet: Packet
    moment: int
    card: str
    sent: bool

    @property
    def at(self) -> str:
        """Card and time, as in a sentence."""
        seconds, nanoseconds = divmod(self.moment, 1_000_000_000)
        return f"{self.card} at {datetime.fromtimestamp(seconds):%H:%M:%S}.{nanoseconds // 1000:06d}"


@dataclass(frozen=True)
class Mismatch:
    """A packet that did not pass the director as it should have.

    It ``arrived`` and none has ``left``, it has left without having arrived, or both are there and differ.
    """

    kind: Kind
    flow: str
    arrived: Seen | None
    left: Seen | None
    differences: tuple[Difference, ...] = ()

    @property
    def nature(self) -> Hashable:
        """The properties that mismatches of one kind share."""
        fields = tuple(each.field for each in self.differences)
        return self.kind, self.arrived is None, self.left is None, fields

    def __str__(self) -> str:
        if self.left is None:
            assert self.arrived is not None
            return f"{self.kind} of {self.flow}: arrived at {self.arrived.at}, and no packet left for it"
        if self.arrived is None:
            return f"{self.kind} of {self.flow}: left at {self.left.at}, and none had arrived for it"
        found = "; ".join(map(str, self.differences))
        when = f"arrived at {self.arrived.at}, left at {self.left.at}"
        return f"{found}\n    {self.kind} of {self.flow}: {when}"


@dataclass(frozen=True)
class Compared:
    """The result of a comparison: ``pairs`` of packets that fit or differ, and all mismatches."""

    pairs: int
    flows: tuple[Flow, ...]
    mismatches: tuple[Mismatch, ...]

    @property
    def waiting(self) -> bool:
        """True if a packet has no partner, which may be on its way still."""
        return any(each.arrived is None or each.left is None for each in self.mismatches)


@dataclass(frozen=True)
class Director:
    """A director: MACs of its ``cards``, ways to addresses, the kernel's version, and services.

    ``marked`` are the virtual addresses and ports whose packets get the mark of a service, ``copies_df`` is
    as in `Flow`.
    """

    cards: Mapping[str, str]
    way_to: Callable[[str], Way]
    kernel: tuple[int, ...]
    services: tuple[Service, ...]
    marked: Mapping[int, tuple[End, ...]] = field(default_factory=dict)
    copies_df: bool = True

    def service_of(self, protocol: str, target: End) -> Service | None:
        """Return the service that takes packets to ``target``."""
        return next((each for each in self.services if self._takes(each, protocol, target)), None)

    def _takes(self, service: Service, protocol: str, target: End) -> bool:
        if service.protocol == "fwmark":
            return any(
                target[0] == address and port in (0, target[1])
                for address, port in self.marked.get(service.mark, ())
            )
        return (
            service.protocol == protocol and service.address == target[0] and service.port in (0, target[1])
        )


@dataclass
class _Stream:
    """The packets of one connection in one direction."""

    arrived: list[Seen] = field(default_factory=list)
    left: list[Seen] = field(default_factory=list)


@dataclass
class _Connection:
    protocol: str
    client: End
    virtual: End
    service: Service
    refused: list[tuple[Seen, Refusal]] = field(default_factory=list)
    requests: _Stream = field(default_factory=_Stream)
    replies: _Stream = field(default_factory=_Stream)

    def __str__(self) -> str:
        return f"{endpoint(*self.client)} to {endpoint(*self.virtual)} ({self.protocol})"


def packets_match(director: Director, seen: Sequence[Seen]) -> Compared:
    """Check that every packet of the director's services left as its forwarding method makes it.

    Raises CheckFailed, which names the fields that differ, and where there was no packet to compare.
    """
    found = compare_all(director, seen)
    names = ", ".join(map(str, director.services)) or "any virtual service"
    if not found.pairs and not found.mismatches:
        raise CheckFailed(f"no packet of {names} was captured", "was there a request in the block?")
    if not found.mismatches:
        return found
    groups = defaultdict[Hashable, list[Mismatch]](list)
    for mismatch in found.mismatches:
        groups[mismatch.nature].append(mismatch)
    lines = [f"{len(found.mismatches)} packets of {names} did not pass the director as they should"]
    for alike in list(groups.values())[:_MOST_GROUPS]:
        more = f" (and {len(alike) - 1} more like this)" if len(alike) > 1 else ""
        lines.append(f"{alike[0]}{more}")
    if (left_out := len(groups) - _MOST_GROUPS) > 0:
        lines.append(f"and packets with {left_out} other differences")
    raise CheckFailed("\n  ".join(lines))


_MOST_GROUPS = 6
_NOT_SENT = Difference("packet", "none", "one")


def compare_all(director: Director, seen: Sequence[Seen]) -> Compared:
    """Compare the packets of all connections to the director's services."""
    connections, strays = _sorted(director, seen)
    pairs, flows, mismatches = 0, list[Flow](), list[Mismatch]()
    for connection in connections:
        comparing = _Comparing(director, connection, strays)
        mismatches += comparing.mismatches()
        pairs += comparing.pairs
        flows += comparing.flows
    mismatches.sort(key=lambda each: (each.arrived or each.left or seen[0]).moment)
    return Compared(pairs, tuple(flows), tuple(mismatches))


def _sorted(director: Director, seen: Sequence[Seen]) -> tuple[list[_Connection], list[Seen]]:
    """Return the connections, and packets that left the director and belong to none."""
    connections = dict[tuple[str, End, End], _Connection]()
    of_client = defaultdict[tuple[str, End], list[_Connection]](list)
    own = set(director.cards.values())
    mine = [each for each in seen if each.packet.transport and (each.sent or _to(each) in own)]
    for each in mine:
        protocol, source, target = _ends(each.packet)
        if each.sent or _is_tunneled(each.packet) or (protocol, source, target) in connections:
            continue
        if (service := director.service_of(protocol, target)) is not None:
            made = connections[protocol, source, target] = _Connection(protocol, source, target, service)
            of_client[protocol, source].append(made)
    strays = []
    for each in mine:
        protocol, source, target = _ends(each.packet)
        if there := _likeliest(of_client[protocol, source], target):
            stream = there.requests
        elif there := _likeliest(of_client[protocol, target], source):
            stream = there.replies
        else:
            strays += [each] if each.sent else []
            continue
        (stream.left if each.sent else stream.arrived).append(each)
    for each in seen:
        if each.sent and (found := refusal_in(each.packet)):
            _refuse(connections.values(), *found)
    return [*connections.values()], strays


def _refuse(connections: Iterable[_Connection], refusal: Refusal, quoted: bytes) -> None:
    """Take the request that an ICMP message quotes out of those that should have left."""
    for connection in connections:
        for each in connection.requests.arrived:
            if is_quoted(quoted, each.packet):
                connection.requests.arrived.remove(each)
                connection.refused.append((each, refusal))
                return


def _likeliest(connections: Sequence[_Connection], other: End) -> _Connection | None:
    """Return a client's connection with ``other``, or else its last one."""
    for connection in connections:
        servers = ((each.address, each.port) for each in connection.service.destinations)
        if other == connection.virtual or other in servers:
            return connection
    return connections[-1] if connections else None


def _to(seen: Seen) -> str:
    return str(seen.packet.ethernet["dst"])


def _ends(packet: Packet) -> tuple[str, End, End]:
    return packet.headers[-1].protocol, packet.source, packet.target


def _is_tunneled(packet: Packet) -> bool:
    return sum(header.protocol in NETWORKS for header in packet.headers) > 1


class _Comparing:
    """The comparison of one connection's packets. ``strays`` may be packets of it that have other ends."""

    def __init__(self, director: Director, connection: _Connection, strays: list[Seen]) -> None:
        self.director = director
        self.connection = connection
        self.strays = strays
        self.pairs = 0
        self.flows: list[Flow] = []

    def mismatches(self) -> Iterator[Mismatch]:
        """Yield packets that did not pass as they should, those without partners last."""
        there = _Pairing(self.connection.requests, self.strays)
        back = _Pairing(self.connection.replies, self.strays)
        destinations = self._destinations(there)
        if not destinations:
            return
        chosen = self.flow(destinations[0])
        for (arrived, left), destination in zip(there.pairs, destinations, strict=False):
            flow = self.flow(destination)
            yield from self.compared("request", arrived, left, _method(flow).forwarded(arrived.packet, flow))
        method = _method(chosen)
        for arrived, left in back.pairs:
            yield from self.compared("reply", arrived, left, method.returned(arrived.packet, chosen))
        for arrived, refusal in self.connection.refused:
            self.pairs += 1
            if (right := method.refused(arrived.packet, chosen)) != refusal:
                told = Difference("icmp", str(right or "none"), str(refusal))
                yield self.mismatch("request", arrived, arrived, [told])
        for arrived in there.only_arrived:
            # Other messages of ICMP than those of the MTU may be left out, so that there are not too many.
            right = method.refused(arrived.packet, chosen)
            silent = right is not None and right.reason != "too big"
            if not silent and method.forwarded(arrived.packet, chosen) is not None:
                yield self.mismatch("request", arrived, None)
        for left in there.only_left:
            yield self.mismatch("request", None, left)
        for arrived in back.only_arrived:
            if method.replies_pass_director:
                yield self.mismatch("reply", arrived, None)
        for left in back.only_left:
            expected = method.answered(left.packet, chosen)
            if expected is None:
                yield self.mismatch("reply", None, left)
            else:
                yield from self.compared("reply", left, left, expected)

    def compared(self, kind: Kind, arrived: Seen, left: Seen, expected: Packet | None) -> Iterator[Mismatch]:
        self.pairs += 1
        if found := [_NOT_SENT] if expected is None else compare(expected, left.packet):
            yield self.mismatch(kind, arrived, left, found)

    def mismatch(
        self, kind: Kind, arrived: Seen | None, left: Seen | None, found: Iterable[Difference] = ()
    ) -> Mismatch:
        return Mismatch(kind, str(self.connection), arrived, left, tuple(found))

    def flow(self, destination: Destination) -> Flow:
        """Return the flow of this connection to ``destination``."""
        for known in self.flows:
            if known.destination is destination:
                return known
        there = self.director.way_to(destination.address)
        back = self.director.way_to(self.connection.client[0])
        connection, kernel = self.connection, self.director.kernel
        made = Flow(
            connection.protocol,
            connection.client,
            connection.virtual,
            destination,
            there,
            back,
            kernel,
            self.director.copies_df,
        )
        self.flows.append(made)
        return made

    def _destinations(self, there: _Pairing) -> list[Destination]:
        """Return the destination of each pair: the one whose model fits best.

        All pairs of a connection have that of the first one, but with one-packet scheduling.
        """
        among = self.connection.service.destinations
        if not among:
            return []
        if not there.pairs:
            # Nothing was sent on: as it should be, where one of the destinations is the director itself.
            local = [each for each in among if _method(self.flow(each)).name == "local"]
            self.flows.clear()
            return [*local, *among][:1]
        if self.connection.service.one_packet:
            return [self._best(among, arrived, left) for arrived, left in there.pairs]
        return [self._best(among, *there.pairs[0])] * len(there.pairs)

    def _best(self, among: Sequence[Destination], arrived: Seen, left: Seen) -> Destination:
        def misfit(destination: Destination) -> int:
            flow = self.flow(destination)
            expected = _method(flow).forwarded(arrived.packet, flow)
            if expected is None or expected.protocols != left.packet.protocols:
                return 1 << 15
            return len(compare(expected, left.packet))

        best = min(among, key=misfit)
        self.flows = [flow for flow in self.flows if flow.destination is best]
        return best


def _method(flow: Flow) -> Method:
    """Return the model for ``flow``: an address of the director's own is local, whatever was typed."""
    return method_for("local" if flow.there.is_local else flow.destination.forwarding)


class _Pairing:
    """Pairs of packets that arrived and left, and packets without a partner."""

    def __init__(self, stream: _Stream, strays: list[Seen]) -> None:
        arrived, left = _cut_alike(stream.arrived, stream.left)
        found = list[tuple[Seen, Seen]]()
        for key in (_identity, _content, _place):
            found += _taken(arrived, left, key)
        if len(arrived) == len(left):
            found += zip(arrived, left, strict=True)
            arrived, left = [], []
        for key in (_content, _place):
            found += _taken(arrived, strays, key)
        self.pairs = sorted(found, key=lambda pair: pair[0].moment)
        self.only_arrived, self.only_left = arrived, left


def _taken(
    arrived: list[Seen], left: list[Seen], key: Callable[[Packet], Hashable]
) -> list[tuple[Seen, Seen]]:
    """Take pairs with the same ``key`` out of both lists, in their order."""
    there = defaultdict[Hashable, list[Seen]](list)
    for each in reversed(left):
        there[key(each.packet)].append(each)
    found = []
    for each in [*arrived]:
        if others := there[key(each.packet)]:
            other = others.pop()
            found.append((each, other))
            arrived.remove(each)
            left.remove(other)
    return found


def _identity(packet: Packet) -> Hashable:
    fields = packet.network.fields
    return _content(packet), str(fields.get("id"))


def _content(packet: Packet) -> Hashable:
    last = packet.headers[-1]
    names = ("seq", "ack", "flags") if last.protocol == "tcp" else ()
    return last.protocol, *(last[name] for name in names), packet.payload


def _place(packet: Packet) -> Hashable:
    last = packet.headers[-1]
    return last.protocol, last["seq"] if last.protocol == "tcp" else 0, len(packet.payload)


def _cut_alike(arrived: Sequence[Seen], left: Sequence[Seen]) -> tuple[list[Seen], list[Seen]]:
    """Cut segments of TCP at the boundaries that the other side has within them."""
    cuts = [{place for each in side for place in _span(each.packet)} for side in (arrived, left)]
    if cuts[0] == cuts[1]:
        return [*arrived], [*left]
    return [*_cut(arrived, cuts[1])], [*_cut(left, cuts[0])]


def _span(packet: Packet) -> tuple[int, ...]:
    """Begin and end of the data of a TCP segment, as sequence numbers."""
    last = packet.headers[-1]
    if last.protocol != "tcp" or not packet.payload:
        return ()
    begin = last["seq"]
    assert isinstance(begin, int)
    return begin, (begin + len(packet.payload)) % (1 << 32)


def _cut(side: Sequence[Seen], cuts: Iterable[int]) -> Iterator[Seen]:
    for each in side:
        begin, *_ = _span(each.packet) or (0,)
        length = len(each.packet.payload)
        inside = {(cut - begin) % (1 << 32) for cut in cuts} if length else set()
        places = sorted(place for place in inside if 0 < place < length)
        if not places:
            yield each
        for one, other in pairwise([0, *places, length] if places else []):
            yield replace(each, packet=each.packet.piece(one, other))
