"""Equal nodes that ``lab.yaml`` has as one, with ``count: 250``.

A node NAME with a count stands for NAME-1, NAME-2 and so on. The first has the addresses of the file, and
each further one the next ones; a prefix length stays the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace

from lvslab.lab.model import MAX_NODES, Node
from lvslab.lab.rules import Address, InterfaceAddress

MAX_NAME = 32
"""Maximum length of a node's name."""


def expanded(nodes: Mapping[str, Node]) -> Iterator[tuple[str, Node]]:
    """Yield every node with its host name, in the order of the file.

    Raises ValueError if there is not a next address: after 255.255.255.255.
    """
    for name, node in nodes.items():
        if node.count is None:
            yield name, node
        else:
            yield from ((f"{name}-{number + 1}", _copy(node, number)) for number in range(node.count))


def _copy(node: Node, number: int) -> Node:
    interfaces = {
        card: replace(interface, written=tuple(_next(each, number) for each in interface.written))
        for card, interface in node.interfaces.items()
    }
    return replace(node, count=None, interfaces=interfaces)


def _next(address: Address | InterfaceAddress, number: int) -> Address | InterfaceAddress:
    if isinstance(address, InterfaceAddress):
        return ipaddress.ip_interface((address.ip + number, address.network.prefixlen))
    return address + number


def mistakes(nodes: Mapping[str, Node]) -> Iterator[tuple[str, str, str]]:
    """Yield mistakes in counts: the node ("" for all of them), a message and a hint."""
    total = sum(node.count or 1 for node in nodes.values())
    if total > MAX_NODES:
        yield "", f"the lab has {total} nodes", f"a lab has {MAX_NODES} at most"
    single = [name for name, node in nodes.items() if node.count is None]
    for name, node in nodes.items():
        if node.count is None:
            continue
        if node.role == "director":
            message = f"{name} is a director, and each director is written down by itself"
            yield name, message, "remove 'count'"
        if len(last := f"{name}-{node.count}") > MAX_NAME:
            hint = f"a name has {MAX_NAME} characters at most, the number among them"
            yield name, f"{last!r} cannot be the name of a node", hint
        made = {f"{name}-{number + 1}" for number in range(node.count)}
        if taken := next((other for other in single if other in made), None):
            message = f"{name} with the count {node.count} makes a node {taken}, and there is one already"
            yield name, message, "rename one of the two"
        try:
            _copy(node, node.count - 1)
        except ValueError:
            message = f"{name} with the count {node.count} needs more addresses than there are"
            yield name, message, "begin with a smaller address, or make fewer nodes"
