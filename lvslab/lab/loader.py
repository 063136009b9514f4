"""Reader of ``lab.yaml``: pydantic validates the `model`, and the rest is checked here.

The first mistake in the file becomes a LabFileError with its line, what is wrong there, and a hint.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, fields
from itertools import combinations, islice, product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lvslab.errors import LabFileError
from lvslab.lab import counts, guest_files
from lvslab.lab.files import LAB_FILE, read_text, suggest
from lvslab.lab.model import (
    SERVICES,
    Interface,
    Lab,
    LabFile,
    Network,
    Node,
    Protocol,
    Route,
    Section,
    Service,
)
from lvslab.lab.rules import Address, InterfaceAddress, Subnet, Wrong

_FILE = TypeAdapter(LabFile)

# A bridge of this name would be the loopback interface, or mean all interfaces under /proc/sys/net.
_TAKEN = frozenset({"lo", "all", "default"})

# Linux makes such devices itself, for tunnels when their module is loaded; mgmt0 is a guest's way in.
_DEVICES = _TAKEN | {"tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip_vti0", "ip6tnl0", "ip6gre0"}
_DEVICES |= {"ip6_vti0", "dummy0", "mgmt0"}

_IMPAIRMENTS = ("loss", "delay", "rate")

_MIN_IPV6_MTU = 1280  # RFC 8200, section 5


def load(folder: Path) -> Lab:
    """Read and check the ``lab.yaml`` of a lab's folder. Raises LabFileError for the first mistake."""
    path = folder / LAB_FILE
    data = _parse(path, read_text(path))
    mistakes = list(_key_mistakes(data, set()))
    try:
        if not mistakes:
            file = _FILE.validate_python(data)
            mistakes = list(_contradictions(file))
    except ValidationError as error:
        mistakes = _translated(data, error.errors(include_url=False))
    if not mistakes:
        for node in file.nodes.values():
            for service in node.services:
                service.check_files(folder)
        folder, nodes = folder.resolve(), dict(counts.expanded(file.nodes))
        return Lab(**{**vars(file), "nodes": nodes}, name=folder.name, folder=folder)
    place, message, hint = min(mistakes, key=lambda mistake: _line(data, mistake.place))
    if more := len(mistakes) - 1:
        hint += f"\n  {more} more mistake{'s' if more > 1 else ''} in this file"
    raise LabFileError(path, _line(data, place), message, hint)


def mistake_of(
    lab: Lab, node: str, place: tuple[int | str, ...], message: str, hint: str | None
) -> LabFileError:
    """Return the error of a key of a node, or of the lab ("").

    It is for mistakes found after the lab was read.
    """
    path = lab.folder / LAB_FILE
    data = _parse(path, read_text(path))
    written = node if node in data["nodes"] else node.rpartition("-")[0]  # one of a count
    of_node, of_written = (("nodes", name) if name else () for name in (node, written))
    line = _line(data, (*of_written, *place))
    return LabFileError(path, line, f"{_shown((*of_node, *place))}: {message}", hint)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``lab.yaml``. It cannot express all that ``load`` checks."""
    found = _FILE.json_schema()
    for kind in SERVICES.values():
        # The default is for programs: in the file the kind tells services apart.
        about = found["$defs"][kind.__name__]
        del about["properties"]["kind"]["default"]
        about["required"] = ["kind", *about.get("required", ())]
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **found, "title": f"lvslab {LAB_FILE}"}


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
    """Return the line, from 1, of the last key of ``place`` in the file."""
    line = 0
    for key in place:
        if isinstance(data, CommentedMap) and key in data:
            if key not in (data.lc.data or {}):
                break  # It comes from a merge (`<<: *other`): the line of the merge counts.
            line = data.lc.key(key)[0]
        elif isinstance(data, CommentedSeq) and isinstance(key, int) and key < len(data):
            line = data.lc.item(key)[0]
        else:
            continue  # Such as a union's tag, which pydantic adds to the place.
        data = data[key]
    return line + 1


def _key_mistakes(data: Any, seen: set[int], place: tuple[Any, ...] = ()) -> Iterator[_Mistake]:
    """Yield a mistake for each key that is not text. Parts ``seen`` already, by aliases, are left out."""
    if id(data) in seen:
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(data, CommentedMap):
        parts = data.items()
    elif isinstance(data, CommentedSeq):
        parts = enumerate(data)
    if parts:
        seen.add(id(data))
    for key, part in parts:
        if isinstance(data, CommentedMap) and not isinstance(key, str):
            message = f"the key {reprlib.repr(key)} in {_shown(place)} is not text"
            hint = 'a key that YAML takes for a number or another value belongs in quotes, as in "1":'
            yield _Mistake((*place, key), message, hint)
        else:
            yield from _key_mistakes(part, seen, (*place, key))


def _in_file(data: Any, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return ``place`` without indexes of lists that the file has as single values."""
    found = list[int | str]()
    for key in place:
        if isinstance(key, int) and not isinstance(data, CommentedSeq):
            continue
        found.append(key)
        if isinstance(data, CommentedMap):
            data = data.get(key, data)  # Such as a union's tag, which pydantic adds to the place.
        elif isinstance(data, CommentedSeq) and isinstance(key, int) and key < len(data):
            data = data[key]
    return tuple(found)


def _shown(place: Iterable[int | str]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return "".join(parts).removeprefix(".") or "the lab"


def _fields(place: tuple[int | str, ...], kind: str = "http") -> dict[str, Field[Any]]:
    """Return the fields of the mapping at ``place``; ``kind`` is that of a service."""
    sections: dict[str, type[Section]] = {"networks": Network, "interfaces": Interface, "routes": Route}
    sections["services"] = SERVICES[kind]
    section = sections.get(str(place[2] if len(place) > 2 else place[0]), Node) if place else LabFile
    found: tuple[Field[Any], ...] = fields(section)  # type: ignore[arg-type]  # all are dataclasses
    return {each.metadata.get("alias", each.name): each for each in found}


_FORMS = dict.fromkeys(("dict_type", "mapping_type", "dataclass_type", "model_attributes_type"), "a mapping")
_FORMS |= {"int_type": "a whole number", "string_type": "text", "tuple_type": "a list"}
"""Names of the types that pydantic's errors are about."""
_NAME_RULES: Mapping[str, tuple[str, str]] = {
    "networks": ("a network", "at most 9 lower case letters, digits and hyphens, a letter first"),
    "nodes": ("a node", "at most 32 lower case letters, digits and hyphens, no hyphen at either end"),
    "files": ("a file", "an absolute path in the guest, such as /etc/keepalived/keepalived.conf"),
    "interfaces": ("an interface", "at most 15 letters, digits, dots, hyphens, underscores, a letter first"),
}


def _translated(data: CommentedMap, errors: list[ErrorDetails]) -> list[_Mistake]:
    """Return pydantic's errors as mistakes with messages and hints of our own."""
    for error in errors:
        error["loc"] = _in_file(data, error["loc"])
    # A missing key beside an unknown one most likely is that one, misspelt: reported once.
    unknown = {error["loc"][:-1] for error in errors if error["type"] == "unexpected_keyword_argument"}
    told = (error for error in errors if error["type"] != "missing" or error["loc"][:-1] not in unknown)
    return [_explained(error) for error in told]


def _explained(error: ErrorDetails) -> _Mistake:
    place, value, context = error["loc"], error["input"], error.get("ctx", {})
    kind = "http"
    if place[2:3] == ("services",) and len(place) > 4:
        # The place of an error in a service of a known kind has the kind in it.
        kind, place = str(place[4]), place[:4] + place[5:]
    *parent, key = place
    siblings = _fields(tuple(parent), kind)
    field, keys = siblings.get(str(key)), ", ".join(_fields(place, kind))
    hint = f"{key}: {field.metadata['description']}" if field else f"its keys: {keys}"
    if place[:1] == ("needs",):
        hint = f"needs: {_fields(())['needs'].metadata['description']}"
    if place[2:3] in (("packages",), ("files",)):
        hint = f"{place[2]}: {_fields(place[:2])[str(place[2])].metadata['description']}"
    message = f"{_shown(place)}: {error['msg'].replace('Input', reprlib.repr(value))}"
    match error["type"]:
        case "value_error" if isinstance(wrong := context["error"], Wrong):
            message, hint = f"{_shown(place)}: {wrong}", wrong.hint
        case "unexpected_keyword_argument":
            message = f"unknown key {key!r} in {_shown(parent)}"
            hint = suggest(str(key), siblings)
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
        case "string_pattern_mismatch" if place[2:3] == ("packages",):
            message = f"{_shown(place)}: {value!r} is not the name of a package"
            hint = "a package has a name such as keepalived, in lower case and without a version"
        case "string_pattern_mismatch" if place[:1] == ("needs",):
            message = f"{_shown(place)}: {value!r} is not the name of a feature"
        case "string_pattern_mismatch" if key == "zone":
            message = f"{_shown(place)}: {value!r} is not the name of a zone"
            hint = "a zone is a domain name in lower case without a dot at its end, such as example.test"
        case _ if key == "[key]":
            what, hint = _NAME_RULES[str(place[-3])]
            message = f"{place[-2]!r} cannot be the name of {what}"
            place = place[:-1]
        case form if form in _FORMS:
            shown = "nothing" if value is None else reprlib.repr(value)
            if form == "string_type" and isinstance(value, int | float):
                hint = f'YAML takes it for a number: put it into quotes, as in {key}: "2.6"'
            message = f"{_shown(place)} must be {_FORMS[form]}, not {shown}"
    return _Mistake(place, message, hint)


def _contradictions(file: LabFile) -> Iterator[_Mistake]:
    """Yield contradictions between well-formed parts of a lab."""
    for name in sorted(_TAKEN & file.networks.keys()):
        message = f"a network cannot be called {name}: Linux has another use for that name"
        yield _Mistake(("networks", name), message, "choose another name")
    subnets = [(name, subnet) for name, network in file.networks.items() for subnet in network.subnets]
    for (other, earlier), (name, subnet) in combinations(subnets, 2):
        if other == name and subnet.version == earlier.version:
            message = f"{name} has two IPv{subnet.version} subnets, {earlier} and {subnet}"
            yield _Mistake(("networks", name, "subnet"), message, "a network has one of each family at most")
        elif subnet.overlaps(earlier):
            message = f"the subnet {subnet} of {name} overlaps {earlier} of {other}"
            yield _Mistake(("networks", name, "subnet"), message, "every network needs addresses of its own")
    if not any(node.role == "director" for node in file.nodes.values()):
        yield _Mistake(("nodes",), "the lab has no director", "give one node 'role: director' and a kernel")
    for name, message, hint in (counted := list(counts.mistakes(file.nodes))):
        yield _Mistake(("nodes", name, "count") if name else ("nodes",), message, hint)
    owners: dict[Address, str] = {}
    for name, node in file.nodes.items():
        yield from _node_mistakes(name, node)
        if not counted:
            # Nodes with a count have the same mistakes: reported once.
            found = _address_mistakes(name, node, file, owners)
            yield from islice(found, None if node.count is None else 1)


def _address_mistakes(
    name: str, node: Node, file: LabFile, owners: dict[Address, str]
) -> Iterator[_Mistake]:
    for own_name, copy in counts.expanded({name: node}):
        which = f"{own_name}: " if node.count is not None else ""
        for card, interface in copy.interfaces.items():
            place = ("nodes", name, "interfaces", card)
            for mistake in _interface_mistakes(place, interface, file):
                yield mistake._replace(message=which + mistake.message)
            for address in interface.addresses:
                if (owner := owners.get(address)) is not None:
                    whose = " twice" if owner == own_name else f", which is {owner}'s already"
                    message = f"{own_name} has the address {address}{whose}"
                    hint = "give one of the two another address"
                    yield _Mistake((*place, "address"), message, hint)
                owners.setdefault(address, own_name)
        if all(interface.network in file.networks for interface in copy.interfaces.values()):
            for mistake in _route_mistakes(name, copy, file):
                yield mistake._replace(message=which + mistake.message)


def _node_mistakes(name: str, node: Node) -> Iterator[_Mistake]:
    place = ("nodes", name)
    if node.role != "director":
        if node.memory is not None and node.kernel is None:
            message = f"{name} has no kernel of its own, and so no memory either"
            hint = "remove it, or name a kernel, which makes it a virtual machine"
            yield _Mistake((*place, "memory"), message, hint)
    elif node.kernel is None:
        message = f"{name} is a director without a kernel"
        yield _Mistake(place, message, "name the one that it is to run, such as 'kernel: debian-cloud'")
    if node.role != "router":
        for card, interface in node.interfaces.items():
            if key := next((key for key in _IMPAIRMENTS if getattr(interface, key) is not None), None):
                message = f"{name} is a {node.role}, and only a router has a {key}"
                hint = "let a node with 'role: router' send its packets on"
                yield _Mistake((*place, "interfaces", card, key), message, hint)
    for keys, message, hint in guest_files.mistakes(name, node):
        yield _Mistake((*place, *keys), message, hint)
    taken: dict[tuple[Protocol, int], Service] = {}
    for number, service in enumerate(node.services):
        yield from _service_mistakes(name, node, number, service, taken)


def _service_mistakes(
    name: str, node: Node, number: int, service: Service, taken: dict[tuple[Protocol, int], Service]
) -> Iterator[_Mistake]:
    """Yield mistakes of one service; ``taken`` are the ports of those before it."""
    place = ("nodes", name, "services", number)
    if node.kernel is not None and not service.in_guests:
        message = f"{name} is a virtual machine, and those have no server for {service.kind}"
        able = ", ".join(sorted(kind for kind, each in SERVICES.items() if each.in_guests))
        hint = f"virtual machines serve {able}"
        if node.role != "director":
            hint = f"remove its kernel, which makes it a Mininet host; {hint}"
        yield _Mistake(place, message, hint)
    if service.one_per_node and any(earlier.kind == service.kind for earlier in taken.values()):
        several, hint = service.one_per_node
        yield _Mistake(place, f"{name} has {several}", hint)
        return
    for (port, note), protocol in product(service.ports.items(), service.protocols):
        other = taken.setdefault((protocol, port), service)
        if other is service:
            continue
        message, hint = f"{name} has two services on port {port}", "give one of the two another port"
        if why := note or other.ports[port]:
            hint += f"; {why}"
        yield _Mistake(place, message, hint)
        break


def _interface_mistakes(place: tuple[str, ...], interface: Interface, file: LabFile) -> Iterator[_Mistake]:
    if place[-1] in _DEVICES:
        message = f"an interface cannot be called {place[-1]}: Linux has another use for that name"
        hint = "'ip address add' in howto.md gives lo another address" if place[-1] == "lo" else "rename it"
        yield _Mistake(place, message, hint)
    if interface.network not in file.networks:
        message = f"there is no network {interface.network!r}"
        yield _Mistake((*place, "network"), message, suggest(interface.network, file.networks))
        return
    network = file.networks[interface.network]
    for written in interface.written:
        if not isinstance(written, InterfaceAddress):
            yield from _subnet_mistakes((*place, "address"), "address", written, interface.network, network)
        elif what := _reserved(written.ip, own := written.network):
            message = f"{written.ip} is the {what} address of {own}, and no machine's"
            hint = f"choose another one, or write {written.ip}/32 if it is in no subnet"
            yield _Mistake((*place, "address"), message, hint)
    for gateway in interface.gateways:
        yield from _gateway_mistakes((*place, "gateway"), gateway, interface, network)
    for earlier, gateway in combinations(interface.gateways, 2):
        if earlier.version == gateway.version:
            message = f"there are two IPv{gateway.version} gateways, {earlier} and {gateway}"
            yield _Mistake((*place, "gateway"), message, "an interface has one of each family at most")
    if interface.mtu and interface.mtu < _MIN_IPV6_MTU and any(a.version == 6 for a in interface.addresses):
        message = f"the MTU {interface.mtu} is too small for an interface with an IPv6 address"
        yield _Mistake((*place, "mtu"), message, f"IPv6 needs {_MIN_IPV6_MTU} bytes at least (RFC 8200)")


def _gateway_mistakes(
    place: tuple[str, ...], gateway: Address, interface: Interface, network: Network
) -> Iterator[_Mistake]:
    if gateway in interface.addresses:
        message = f"the gateway {gateway} is the node's own address"
        yield _Mistake(place, message, "a gateway is another machine, usually the director")
    elif any(gateway in each.network for each in interface.written if isinstance(each, InterfaceAddress)):
        return
    elif all(address.version != gateway.version for address in interface.addresses):
        message = f"the gateway {gateway} is an IPv{gateway.version} address, and the interface has none"
        yield _Mistake(place, message, f"give the interface an IPv{gateway.version} address too")
    elif (subnet := network.subnet_of(gateway)) and not _plain(interface, gateway.version):
        message = f"the gateway {gateway} is in none of the interface's own subnets"
        hint = f"give the interface an address from {subnet} without a prefix length"
        yield _Mistake(place, message, hint)
    else:
        yield from _subnet_mistakes(place, "gateway", gateway, interface.network, network)


def _plain(interface: Interface, version: int) -> list[Address]:
    """Return the addresses of an IP ``version`` that are written without a prefix length."""
    return [
        each
        for each in interface.written
        if not isinstance(each, InterfaceAddress) and each.version == version
    ]


def _subnet_mistakes(
    place: tuple[str, ...], key: str, address: Address, name: str, network: Network
) -> Iterator[_Mistake]:
    """Yield the mistake of an ``address`` that no machine of the network ``name`` can have."""
    subnet = network.subnet_of(address)
    if subnet is None:
        message = f"the {key} {address} is not in the network {name}"
        family = [each for each in network.subnets if each.version == address.version] or network.subnets
        hint = f"{name} is {_range(family[0])}"
    elif what := _reserved(address, subnet):
        message = f"{address} is the {what} address of {name}, and no machine's"
        hint = f"{name} is {_range(subnet)}"
    else:
        return
    yield _Mistake(place, message, hint)


def _reserved(address: Address, subnet: Subnet) -> str:
    """Return "network" or "broadcast" where ``address`` is that of ``subnet``, else ""."""
    if _all_usable(subnet) or address not in (subnet[0], subnet[-1]):
        return ""
    return "network" if address == subnet[0] else "broadcast"


def _all_usable(subnet: Subnet) -> bool:
    # IPv6 has no broadcast address, and a link of two machines needs both its addresses (RFC 3021).
    return subnet.version == 6 or subnet.prefixlen > 30


def _range(subnet: Subnet) -> str:
    first, last = (subnet[0], subnet[-1]) if _all_usable(subnet) else (subnet[1], subnet[-2])
    return f"{subnet}: {first} to {last}"


def _route_mistakes(name: str, node: Node, file: LabFile) -> Iterator[_Mistake]:
    """Yield mistakes in a node's default and static routes; its networks are known."""
    defaults = dict[int, str]()
    near = list[Subnet]()
    for card, interface in node.interfaces.items():
        for gateway in interface.gateways:
            if (other := defaults.setdefault(gateway.version, card)) != card:
                message = f"{name} has two default routes for IPv{gateway.version}, at {other} and at {card}"
                hint = "keep one; 'routes' of the node lead to other networks"
                yield _Mistake(("nodes", name, "interfaces", card, "gateway"), message, hint)
        subnets = file.networks[interface.network].subnets
        near += [
            each for each in subnets if any(address in each for address in _plain(interface, each.version))
        ]
        near += [each.network for each in interface.written if isinstance(each, InterfaceAddress)]
    seen = set[Subnet]()
    for number, route in enumerate(node.routes):
        place = ("nodes", name, "routes", number)
        if route.to.version != route.via.version:
            message = f"the route to {route.to} goes via {route.via}, which is of the other family"
            yield _Mistake((*place, "via"), message, f"its next router has an IPv{route.to.version} address")
        elif route.via in node.addresses:
            message = f"the route to {route.to} goes via {route.via}, which is the node's own address"
            yield _Mistake((*place, "via"), message, "the next router is another machine")
        elif not any(route.via in subnet for subnet in near):
            message = f"the route to {route.to} goes via {route.via}, and {name} is in no network with it"
            yield _Mistake((*place, "via"), message, f"{name} is in {', '.join(map(str, near))}")
        if route.to in near:
            message = f"{name} is in {route.to} itself, and needs no route to it"
            yield _Mistake((*place, "to"), message, "write a subnet that is behind the router")
        elif route.to.prefixlen == 0:
            message = f"{route.to} is the default route"
            yield _Mistake((*place, "to"), message, "write it as the 'gateway' of an interface")
        elif route.to in seen:
            message = f"{name} has two routes to {route.to}"
            yield _Mistake((*place, "to"), message, "keep one of the two")
        seen.add(route.to)
