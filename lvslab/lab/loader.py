"""How ``lab.yaml`` is read and checked, by its `schema`.

``load`` turns it into a ``topology.Lab``. Whatever is wrong with the file becomes one LabFileError: the
line, what is wrong there, and what would be right.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lvslab.errors import LabFileError
from lvslab.lab import counts, zone_file
from lvslab.lab import model as topology
from lvslab.lab.model import LAB_FILE, Address, Lab, read_text, suggest
from lvslab.lab.schema import (
    SERVICES,
    DnsService,
    FtpService,
    HttpService,
    Interface,
    LabFile,
    Model,
    Network,
    Node,
    Service,
)

# Of a bridge these would be the loopback interface's, or stand for all interfaces under /proc/sys/net.
_TAKEN = frozenset({"lo", "all", "default"})


def load(folder: Path) -> Lab:
    """Read and check the ``lab.yaml`` of a lab's folder. Raises LabFileError for the first mistake."""
    path = folder / LAB_FILE
    data = _parse(path, read_text(path))
    try:
        spec = LabFile.model_validate(data)
    except ValidationError as error:
        mistakes = _translated(error.errors(include_url=False))
    else:
        mistakes = list(_contradictions(spec))
        if not mistakes:
            lab = _lab(folder.resolve(), spec)
            _check_zones(folder, lab)
            return lab
    place, message, hint = min(mistakes, key=lambda mistake: _line(data, mistake.place))
    if more := len(mistakes) - 1:
        hint += f"\n  {more} more mistake{'s' if more > 1 else ''} in this file"
    raise LabFileError(path, _line(data, place), message, hint)


def _check_zones(folder: Path, lab: Lab) -> None:
    services = (service for node in lab.nodes.values() for service in node.services)
    for service in services:
        if isinstance(service, topology.DnsService):
            zone_file.check(folder / service.zone_file, service.zone)


def _lab(folder: Path, spec: LabFile) -> Lab:
    """``spec`` as plain data."""
    networks = {name: topology.Network(network.subnet) for name, network in spec.networks.items()}
    nodes = {name: _node(node) for name, node in counts.expanded(spec.nodes)}
    return Lab(folder.name, folder, spec.title, networks, nodes)


def _node(node: Node) -> topology.Node:
    interfaces = {
        name: topology.Interface(interface.network, interface.address, interface.gateway)
        for name, interface in node.interfaces.items()
    }
    services = tuple(map(_service, node.services))
    return topology.Node(node.role, node.kernel, node.memory, interfaces, services)


def _service(service: Service) -> topology.Service:
    match service:
        case HttpService():
            return topology.HttpService(service.kind, service.port)
        case FtpService():
            return topology.FtpService(service.kind, service.port)
        case DnsService():
            return topology.DnsService(service.kind, service.port, service.zone)


def _parse(path: Path, text: str) -> CommentedMap:
    line, hint = 0, "a text with characters that mean something to YAML belongs in quotes"
    try:
        data = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        message = f"this is not YAML: {error.problem}"
        if error.context_mark:
            hint = f"{error.context}, begun in line {error.context_mark.line + 1}"
        if isinstance(error, DuplicateKeyError):
            key = str(error.problem).removeprefix("found duplicate key ").split('"')[1]
            message, hint = f"the key {key!r} stands here a second time", "rename or remove one of the two"
        elif "\\t" in str(error.problem):
            hint = "YAML is indented with spaces, never with tabs"
    except (YAMLError, ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        # What ruamel.yaml lets through from a value that contradicts its own tag, such as `!!int x`.
        message = "this is not YAML: " + str(error).partition("\n")[0]
    else:
        if isinstance(data, CommentedMap):
            return data
        message = "the file is empty" if data is None else "the file is not a mapping of keys"
        line, hint = 1, "a lab has the keys title, networks and nodes"
    raise LabFileError(path, line, message, hint)


class _Mistake(NamedTuple):
    place: tuple[int | str, ...]  # The keys that lead to it from the top of the file.
    message: str
    hint: str


def _line(data: Any, place: tuple[int | str, ...]) -> int:
    """The line of the last key of ``place`` that stands in the file, counted from 1."""
    line = 0
    for key in place:
        if isinstance(data, CommentedMap) and key in data:
            if key not in (data.lc.data or {}):
                break  # It came by a merge (`<<: *other`), and the line that merges is what is meant.
            line = data.lc.key(key)[0]
        elif isinstance(data, CommentedSeq) and isinstance(key, int) and key < len(data):
            line = data.lc.item(key)[0]
        else:
            continue  # Such as a union's tag, which pydantic puts into the place.
        data = data[key]
    return line + 1


def _shown(place: Iterable[int | str]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return "".join(parts).removeprefix(".") or "the lab"


def _model(place: tuple[int | str, ...], kind: str = "http") -> type[Model]:
    """The model of the mapping that stands at ``place``; of a service's, that of its ``kind``."""
    if not place:
        return LabFile
    models: dict[str, type[Model]] = {
        "networks": Network,
        "interfaces": Interface,
        "services": SERVICES[kind],
    }
    return models.get(str(place[2] if len(place) > 2 else place[0]), Node)


_NAME_RULES: Mapping[str, tuple[str, str]] = {
    "networks": ("a network", "at most 9 lower case letters, digits and hyphens, a letter first"),
    "nodes": ("a node", "at most 32 lower case letters, digits and hyphens, no hyphen at either end"),
    "interfaces": ("an interface", "at most 15 letters, digits, dots, hyphens, underscores, a letter first"),
}


def _translated(errors: list[ErrorDetails]) -> list[_Mistake]:
    """What pydantic found, in our words."""
    # A key that is missing beside an unknown one most likely is that one, misspelt: told once.
    unknown = {error["loc"][:-1] for error in errors if error["type"] == "extra_forbidden"}
    told = (error for error in errors if error["type"] != "missing" or error["loc"][:-1] not in unknown)
    return [_explained(error) for error in told]


def _explained(error: ErrorDetails) -> _Mistake:
    place, value, context = error["loc"], error["input"], error.get("ctx", {})
    of_kind: tuple[str, ...] = ()
    if place[2:3] == ("services",) and len(place) > 4:
        # What is wrong in a service of a known kind has the kind in its place.
        of_kind, place = (str(place[4]),), place[:4] + place[5:]
    *parent, key = place
    model = _model(tuple(parent), *of_kind)
    field = model.model_fields.get(str(key))
    keys = _model(place, *of_kind).model_fields
    hint = f"{key}: {field.description}" if field else f"its keys: {', '.join(keys)}"
    message = f"{_shown(place)}: {error['msg'].replace('Input', reprlib.repr(value))}"
    match error["type"]:
        case "lab":
            message, hint = f"{_shown(place)}: {context['text']}", context["hint"]
        case "extra_forbidden":
            message = f"unknown key {key!r} in {_shown(parent)}"
            hint = suggest(str(key), model.model_fields)
        case "missing" | "too_short" if key == "interfaces":
            message = f"{_shown(parent)} is on no network"
            hint = "give it an interface: 'interfaces: {eth0: {network: ..., address: ...}}'"
        case "missing":
            message = f"{_shown(parent)} has no key {key!r}"
        case "too_short" | "string_too_short":
            message = f"{_shown(place)} is empty"
        case "union_tag_not_found":
            message, hint = f"{_shown(place)} has no key 'kind'", f"kind: one of {', '.join(SERVICES)}"
        case "union_tag_invalid":
            message = f"{_shown(place)}: unknown kind {context['tag']!r}"
            hint = suggest(str(context["tag"]), SERVICES)
        case "literal_error":
            message = f"{_shown(parent)}: unknown {key} {value!r}"
            hint = suggest(str(value), re.findall(r"'([^']*)'", context["expected"]))
        case "string_pattern_mismatch" if key == "zone":
            message = f"{_shown(place)}: {value!r} is not the name of a zone"
            hint = "a zone is a domain name in lower case without a dot at its end, such as example.test"
        case _ if key == "[key]":
            what, hint = _NAME_RULES[str(place[-3])]
            message = f"{place[-2]!r} cannot be the name of {what}"
            place = place[:-1]
        case (
            "int_type"
            | "string_type"
            | "tuple_type"
            | "mapping_type"
            | "model_type"
            | "model_attributes_type" as kind
        ):
            names = {"int_type": "a whole number", "string_type": "text", "tuple_type": "a list"}
            shown = "nothing" if value is None else reprlib.repr(value)
            if kind == "string_type" and isinstance(value, int | float):
                hint = f'YAML takes it for a number: put it into quotes, as in {key}: "2.6"'
            message = f"{_shown(place)} must be {names.get(kind, 'a mapping')}, not {shown}"
    return _Mistake(place, message, hint)


def _contradictions(spec: LabFile) -> Iterator[_Mistake]:
    """What is wrong between the parts of a lab, each of which is well formed."""
    for name in sorted(_TAKEN & spec.networks.keys()):
        message = f"a network cannot be called {name}: Linux has another use for that name"
        yield _Mistake(("networks", name), message, "choose another name")
    for (other, earlier), (name, network) in combinations(spec.networks.items(), 2):
        if network.subnet.overlaps(earlier.subnet):
            message = f"the subnet {network.subnet} of {name} overlaps {earlier.subnet} of {other}"
            yield _Mistake(("networks", name, "subnet"), message, "every network needs addresses of its own")
    if not any(node.role == "director" for node in spec.nodes.values()):
        yield _Mistake(("nodes",), "the lab has no director", "give one node 'role: director' and a kernel")
    for name, message, hint in (counted := list(counts.mistakes(spec.nodes))):
        yield _Mistake(("nodes", name, "count") if name else ("nodes",), message, hint)
    owners: dict[Address, str] = {}
    for name, node in spec.nodes.items():
        yield from _node_mistakes(name, node)
        if not counted:
            # What is wrong with one of many alike is wrong with more of them, and told once.
            found = _address_mistakes(name, node, spec, owners)
            yield from islice(found, None if node.count is None else 1)


def _address_mistakes(
    name: str, node: Node, spec: LabFile, owners: dict[Address, str]
) -> Iterator[_Mistake]:
    for own_name, copy in counts.expanded({name: node}):
        which = f"{own_name}: " if node.count is not None else ""
        for card, interface in copy.interfaces.items():
            place = ("nodes", name, "interfaces", card)
            for mistake in _interface_mistakes(place, interface, spec):
                yield mistake._replace(message=which + mistake.message)
            if interface.address in owners:
                owner = owners[interface.address]
                message = f"{own_name} has the address {interface.address}, which is {owner}'s already"
                yield _Mistake((*place, "address"), message, "give one of the two another address")
            owners.setdefault(interface.address, own_name)


def _node_mistakes(name: str, node: Node) -> Iterator[_Mistake]:
    place = ("nodes", name)
    if node.role != "director":
        if "memory" in node.model_fields_set and node.kernel is None:
            message = f"{name} has no kernel of its own, and so no memory either"
            yield _Mistake(
                (*place, "memory"), message, "remove it, or name a kernel, which makes it a virtual machine"
            )
    elif node.kernel is None:
        message = f"{name} is a director without a kernel"
        yield _Mistake(place, message, "name the one that it is to run, such as 'kernel: debian-cloud'")
    elif node.services:
        message = f"{name} is a director, and a director runs no services"
        yield _Mistake((*place, "services"), message, "give them to a real server")
    taken: dict[int, Service] = {}
    for number, service in enumerate(node.services):
        yield from _service_mistakes(name, node, number, service, taken)


def _service_mistakes(
    name: str, node: Node, number: int, service: Service, taken: dict[int, Service]
) -> Iterator[_Mistake]:
    """``taken`` are the ports of the services before it."""
    place = ("nodes", name, "services", number)
    if node.kernel is not None and node.role != "director" and service.kind not in topology.IN_GUESTS:
        message = f"{name} is a virtual machine, and those have no server for {service.kind}"
        able = ", ".join(sorted(topology.IN_GUESTS))
        yield _Mistake(
            place,
            message,
            f"remove its kernel, which makes it a Mininet host; virtual machines serve {able}",
        )
    if service.kind == "dns" and any(earlier.kind == "dns" for earlier in taken.values()):
        yield _Mistake(place, f"{name} has two name servers", "a second zone belongs on another node")
        return
    for port in topology.ports_of(_service(service)):
        if port not in taken:
            taken[port] = service
            continue
        message, hint = f"{name} has two services on port {port}", "give one of the two another port"
        if service.port != taken[port].port:
            hint += "; an ftp service makes its data connections from the port below its own"
        yield _Mistake(place, message, hint)
        break


def _interface_mistakes(place: tuple[str, ...], interface: Interface, spec: LabFile) -> Iterator[_Mistake]:
    if interface.network not in spec.networks:
        message = f"there is no network {interface.network!r}"
        yield _Mistake((*place, "network"), message, suggest(interface.network, spec.networks))
        return
    subnet = spec.networks[interface.network].subnet
    # IPv6 has no broadcast address, and a link of two machines needs both its addresses (RFC 3021).
    all_usable = subnet.version == 6 or subnet.prefixlen > 30
    for key, address in (("address", interface.address), ("gateway", interface.gateway)):
        if address is not None and address not in subnet:
            message = f"the {key} {address} is not in the network {interface.network}"
        elif not all_usable and address in (subnet[0], subnet[-1]):
            what = "network" if address == subnet[0] else "broadcast"
            message = f"{address} is the {what} address of {interface.network}, and no machine's"
        else:
            continue
        first, last = (subnet[0], subnet[-1]) if all_usable else (subnet[1], subnet[-2])
        yield _Mistake((*place, key), message, f"{interface.network} is {subnet}: {first} to {last}")
    if interface.gateway == interface.address:
        message = f"the gateway {interface.gateway} is the node's own address"
        yield _Mistake((*place, "gateway"), message, "a gateway is another machine, usually the director")
