"""Content of a drawing: networks as bars, nodes as boxes, and the rows that are written in a box."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from lvslab.check.ipvs.table import FORWARDING, Service
from lvslab.lab.model import Interface, Lab, Node, Role

Kind = Literal["about", "card", "gateway", "service", "virtual", "server", "more"]

MOST_NODES = 20
"""Maximum number of nodes that a box lists; of more, those in the middle are counted."""
MOST_SERVERS = 8
"""The same for the real servers of a virtual service."""
_PLURALS: Mapping[Role, str] = {
    "director": "directors",
    "real-server": "real servers",
    "client": "clients",
    "name-server": "name servers",
    "router": "routers",
}


@dataclass(frozen=True)
class Row:
    """One line of text in a box."""

    text: str
    kind: Kind


@dataclass(frozen=True)
class Box:
    """A node, or several that are alike. ``networks`` are those of its cards, in order."""

    title: str
    role: Role
    rows: tuple[Row, ...]
    networks: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """A network."""

    name: str
    subnets: str

    def __str__(self) -> str:
        return f"{self.name}  {self.subnets}"


@dataclass(frozen=True)
class Content:
    """All that a drawing shows. ``bars`` come in the order of their distance from the clients."""

    title: str
    bars: tuple[Bar, ...]
    boxes: tuple[Box, ...]


def content_of(
    lab: Lab,
    states: Mapping[str, str] = MappingProxyType({}),
    tables: Mapping[str, Sequence[Service]] = MappingProxyType({}),
) -> Content:
    """Return what a drawing of ``lab`` shows.

    Of a lab that is up, ``states`` are those of its nodes, and ``tables`` the virtual services of its
    directors, by name.
    """
    bars = tuple(Bar(name, ", ".join(map(str, lab.networks[name].subnets))) for name in _from_clients(lab))
    boxes = list[Box]()
    for names in _alike(lab, states):
        nodes = {name: lab.nodes[name] for name in names}
        table = tables.get(names[0], ())
        boxes.append(_box(nodes, states.get(names[0], ""), table))
    return Content(lab.title, bars, tuple(boxes))


def _from_clients(lab: Lab) -> list[str]:
    """Return the lab's networks in the order of their distance from the clients."""
    ahead = deque(card.network for node in lab.clients.values() for card in node.interfaces.values())
    found = dict[str, None]()
    while ahead:
        if (network := ahead.popleft()) in found:
            continue
        found[network] = None
        for node in lab.nodes.values():
            if node.role != "client" and network in (own := _networks(node)):
                ahead.extend(own)
    return list(found | dict.fromkeys(lab.networks))


def _networks(node: Node) -> tuple[str, ...]:
    return tuple(card.network for card in node.interfaces.values())


def _alike(lab: Lab, states: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the names of nodes that share a box: alike but for their addresses. Directors never do."""
    groups = dict[object, list[str]]()
    for name, node in lab.nodes.items():
        cards = [(card.network, card.gateways, card.mtu) for card in node.interfaces.values()]
        alike = node.role, node.kernel, node.services, *cards, states.get(name)
        groups.setdefault(name if node.role == "director" else alike, []).append(name)
    yield from groups.values()


def _box(nodes: Mapping[str, Node], state: str, table: Sequence[Service]) -> Box:
    first = next(iter(nodes.values()))
    rows, many = list[Row](), len(nodes) > 1
    if about := ", ".join(filter(None, [f"kernel {first.kernel}" if first.kernel else "", state])):
        rows.append(Row(about, "about"))
    if many:
        rows += _listed(nodes)
    else:
        rows += [row for name, card in first.interfaces.items() for row in _card(name, card)]
    for card in first.interfaces.values():
        rows += [Row(f"gateway {gateway}", "gateway") for gateway in card.gateways]
        if many and card.mtu is not None:
            rows.append(Row(f"MTU {card.mtu}", "about"))
    rows += [Row(f"{service.kind} {service.port}", "service") for service in first.services]
    for service in table:
        rows.append(Row(f"{_protocol(service)}{service}  {service.scheduler}", "virtual"))
        servers = [
            Row(f"→ {each}  {FORWARDING[each.forwarding].listed}, weight {each.weight}", "server")
            for each in service.destinations
        ]
        rows += _without_middle(servers, MOST_SERVERS)
    title = f"{len(nodes)} {_PLURALS[first.role]}" if many else next(iter(nodes))
    return Box(title, first.role, tuple(rows), _networks(first))


def _protocol(service: Service) -> str:
    return "" if service.protocol == "fwmark" else f"{service.protocol} "


def _listed(nodes: Mapping[str, Node]) -> list[Row]:
    """Return a row for each node, with names and addresses in columns."""
    width = max(map(len, nodes))
    rows = [
        Row(f"{name:{width}}  {', '.join(map(str, node.addresses))}", "card") for name, node in nodes.items()
    ]
    return _without_middle(rows, MOST_NODES)


def _without_middle(rows: list[Row], most: int) -> list[Row]:
    if len(rows) <= most:
        return rows
    begin, end = rows[: most - 2], rows[-1:]
    return [*begin, Row(f"… {len(rows) - len(begin) - len(end)} more …", "more"), *end]


def _card(name: str, card: Interface) -> Iterator[Row]:
    mtu = f"  MTU {card.mtu}" if card.mtu is not None else ""
    for number, address in enumerate(card.written):
        yield Row(f"{'' if number else name:{len(name)}}  {address}{'' if number else mtu}", "card")
