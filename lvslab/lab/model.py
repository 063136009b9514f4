"""Model of a lab: plain frozen dataclasses with the keys of ``lab.yaml``.

pydantic validates them in `loader`; nothing here imports it. A kind of service is a subclass of `Service`
with a row in SERVICES.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from lvslab.lab import rules
from lvslab.lab.rules import Address, InterfaceAddress, Matching, OneOrMore, Parsed, Subnet

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

Protocol = Literal["tcp", "udp", "sctp"]
Role = Literal["director", "real-server", "client", "name-server", "router"]

MAX_MTU = 9000
"""Maximum MTU of an interface: that of jumbo frames. The model of card in old guests takes 16110."""

MAX_NODES = 999
"""Maximum number of nodes in a lab: a node's number is part of its interfaces' names, which are short."""

# A network's name and a port's number are the name of a Linux interface, which has at most 15 characters.
NetworkName = Annotated[str, Matching(r"^[a-z][a-z0-9-]{0,8}$")]
NodeName = Annotated[str, Matching(r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
PackageName = Annotated[str, Matching(r"^[a-z0-9][a-z0-9+.-]+$")]
FeatureName = Annotated[str, Matching(r"^[a-z][a-z0-9_]*$")]
GuestPath = Annotated[str, Matching(r"^(/[A-Za-z0-9_@+:,=.-]+)+$")]
InterfaceName = Annotated[str, Matching(r"^[A-Za-z][A-Za-z0-9._-]{0,14}$")]
_ZONE = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"


def _about(description: str, **rules: object) -> Mapping[str, object]:
    """Return a field's metadata: what the key means in the file, and pydantic's rules for its value."""
    return {"description": description, **rules}


def _whole(description: str, low: int, high: int) -> Mapping[str, object]:
    """Return the metadata of a field that is a whole number from ``low`` to ``high``."""
    return _about(description, ge=low, le=high, strict=True)


class Section:
    """A mapping of ``lab.yaml``, which has no other keys than its fields."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Network(Section):
    """One Ethernet segment, and the subnets that its addresses are from: at most one of each family."""

    subnets: Annotated[tuple[Annotated[Subnet, Parsed(rules.subnet, "/")], ...], OneOrMore()] = field(
        metadata=_about(
            "The network's addresses: a subnet such as 10.0.0.0/24 or fd00::/64, or a list of one of each",
            alias="subnet",
        )
    )

    @property
    def subnet(self) -> Subnet:
        """The first subnet."""
        return self.subnets[0]

    def subnet_of(self, address: Address) -> Subnet | None:
        """Return the subnet that ``address`` is in, None if it is in none."""
        return next((subnet for subnet in self.subnets if address in subnet), None)


@dataclass(frozen=True)
class Interface(Section):
    """A network card of a node. ``written`` are its addresses, some with a prefix length of their own."""

    network: str = field(
        metadata=_about("The network that the interface is plugged into: a name from networks")
    )
    written: Annotated[
        tuple[Annotated[Address | InterfaceAddress, Parsed(rules.interface_address)], ...], OneOrMore()
    ] = field(
        metadata=_about(
            "The interface's address, or a list of them: IPv4 or IPv6, from its network,"
            " or any with a prefix length of its own",
            alias="address",
        )
    )
    gateways: Annotated[tuple[Annotated[Address, Parsed(rules.address)], ...], OneOrMore(optional=True)] = (
        field(
            default=(),
            metadata=_about(
                "The default route, in the same network, or a list of one of each family", alias="gateway"
            ),
        )
    )
    mtu: int | None = field(
        default=None, metadata=_whole("The interface's MTU in bytes, 68 to 9000", 68, MAX_MTU)
    )
    loss: Annotated[float, Parsed(rules.loss, form="number")] | None = field(
        default=None,
        metadata=_about("Share of packets that a router drops instead of sending them, in percent"),
    )
    delay: Annotated[str, Parsed(rules.delay, rules.DELAY)] | None = field(
        default=None, metadata=_about("Time for which a router holds each packet before it sends it: 20ms")
    )
    rate: Annotated[str, Parsed(rules.rate, rules.RATE)] | None = field(
        default=None, metadata=_about("Maximum rate at which a router sends packets: 10mbit")
    )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The interface's addresses, without prefix lengths."""
        return tuple(each.ip if isinstance(each, InterfaceAddress) else each for each in self.written)

    @property
    def address(self) -> Address:
        """The first address."""
        return self.addresses[0]

    @property
    def gateway(self) -> Address | None:
        """The first gateway, None if there is none."""
        return self.gateways[0] if self.gateways else None


@dataclass(frozen=True)
class Route(Section):
    """A static route of a node."""

    to: Annotated[Subnet, Parsed(rules.destination, "/")] = field(
        metadata=_about("The destination, a subnet such as 10.2.0.0/24")
    )
    via: Annotated[Address, Parsed(rules.address)] = field(
        metadata=_about("The next router, an address in one of the node's networks")
    )


@dataclass(frozen=True, kw_only=True)
class Service(Section):
    """A server that runs on a node. Each kind is a subclass.

    ``protocols`` are those that its port belongs to. ``in_guests``: virtual machines, too, have a server of
    the kind, not only Mininet hosts. ``one_per_node``: if a node can have only one, how messages call
    several of the kind, and a hint.
    """

    kind: str = ""
    port: int

    protocols: ClassVar[tuple[Protocol, ...]] = ("tcp",)
    in_guests: ClassVar[bool] = False
    one_per_node: ClassVar[tuple[str, str] | None] = None

    @property
    def ports(self) -> Mapping[int, str]:
        """The ports that it takes on its node, beginning with the one that clients know.

        Each has a note on why other services on the node cannot have it, "" if that is plain.
        """
        return {self.port: ""}

    def check_files(self, folder: Path) -> None:
        """Check its files in the lab's ``folder``. Raises LabFileError."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        if cls is not Service:
            return handler(source)
        choices = {kind: handler.generate_schema(service) for kind, service in SERVICES.items()}
        return {"type": "tagged-union", "discriminator": "kind", "choices": choices}


@dataclass(frozen=True, kw_only=True)
class HttpService(Service):
    """A web server whose page names the node that served it."""

    kind: Literal["http"] = field(default="http", metadata=_about("What is served: http"))
    port: int = field(default=80, metadata=_whole("The TCP port, 1 to 65535", 1, 65535))

    in_guests: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class HttpsService(Service):
    """A web server over TLS, with a certificate of its own that names the node."""

    kind: Literal["https"] = field(default="https", metadata=_about("What is served: https"))
    port: int = field(default=443, metadata=_whole("The TCP port, 1 to 65535", 1, 65535))


@dataclass(frozen=True, kw_only=True)
class UdpService(Service):
    """A server that answers each datagram with the node's name and the datagram."""

    kind: Literal["udp"] = field(default="udp", metadata=_about("What is served: udp"))
    port: int = field(metadata=_whole("The UDP port, 1 to 65535", 1, 65535))

    protocols: ClassVar[tuple[Protocol, ...]] = ("udp",)
    in_guests: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SctpService(Service):
    """A server that answers a line over SCTP with the node's name and the line."""

    kind: Literal["sctp"] = field(default="sctp", metadata=_about("What is served: sctp"))
    port: int = field(metadata=_whole("The SCTP port, 1 to 65535", 1, 65535))

    protocols: ClassVar[tuple[Protocol, ...]] = ("sctp",)
    in_guests: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class SmtpService(Service):
    """A mail server that greets with the node's name and takes no mail."""

    kind: Literal["smtp"] = field(default="smtp", metadata=_about("What is served: smtp"))
    port: int = field(default=25, metadata=_whole("The TCP port, 1 to 65535", 1, 65535))

    in_guests: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class FtpService(Service):
    """An FTP server for anonymous users: one file names the server, others have known content."""

    kind: Literal["ftp"] = field(default="ftp", metadata=_about("What is served: ftp"))
    port: int = field(
        default=21, metadata=_whole("The TCP port of control connections, 2 to 65535", 2, 65535)
    )

    @property
    def ports(self) -> Mapping[int, str]:
        """See Service. Active data connections come from the port below (RFC 959, section 5.2)."""
        note = "an ftp service makes its data connections from the port below its own"
        return {self.port: "", self.port - 1: note}


@dataclass(frozen=True, kw_only=True)
class DnsService(Service):
    """A name server for one zone, whose zone file is in the lab's folder."""

    kind: Literal["dns"] = field(default="dns", metadata=_about("What is served: dns"))
    zone: str = field(
        metadata=_about(
            "The zone, such as example.test; its records are in example.test.zone", pattern=_ZONE
        )
    )
    port: int = field(default=53, metadata=_whole("The UDP and TCP port, 1 to 65535", 1, 65535))

    protocols: ClassVar[tuple[Protocol, ...]] = ("udp", "tcp")
    one_per_node: ClassVar[tuple[str, str]] = ("two name servers", "a second zone belongs on another node")

    @property
    def zone_file(self) -> str:
        """The name of the zone file."""
        return f"{self.zone}.zone"

    def check_files(self, folder: Path) -> None:
        """Check the zone file. Raises LabFileError."""
        from lvslab.lab import zone_file  # only a lab that is read has to wait for this import

        zone_file.check(folder / self.zone_file, self.zone)


SERVICES: Mapping[str, type[Service]] = MappingProxyType(
    {
        "http": HttpService,
        "https": HttpsService,
        "udp": UdpService,
        "sctp": SctpService,
        "smtp": SmtpService,
        "ftp": FtpService,
        "dns": DnsService,
    }
)
"""The kinds of services by their ``kind`` in ``lab.yaml``."""


@dataclass(frozen=True, kw_only=True)
class Node(Section):
    """A machine of the lab: with a kernel of its own a virtual machine, else a Mininet host."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {
        **Section.__pydantic_config__,
        "json_schema_extra": {
            "if": {"properties": {"role": {"const": "director"}}},
            "then": {"required": ["kernel"], "properties": {"count": False}},
            "dependentRequired": {key: ["kernel"] for key in ("memory", "packages", "files")},
        },
    }

    role: Role = field(
        metadata=_about("What the node is for: director, real-server, client, name-server or router")
    )
    kernel: str | None = field(
        default=None, metadata=_about("The node's own kernel: debian-cloud, 2.4.37.11", min_length=1)
    )
    # None for as much as the kernel usually gets.
    memory: int | None = field(
        default=None, metadata=_whole("A virtual machine's memory in MiB, 16 to 65536", 16, 65536)
    )
    # In the file only: a lab that was loaded has each of them, without a count.
    count: int | None = field(
        default=None,
        metadata=_whole(
            "Number of nodes alike: NAME-1, NAME-2 and so on, each with the next address", 1, MAX_NODES
        ),
    )
    interfaces: Mapping[InterfaceName, Interface] = field(
        metadata=_about("Network cards by name", min_length=1)
    )
    services: tuple[Service, ...] = field(
        default=(), metadata=_about("The servers that run on the node, a list")
    )
    routes: tuple[Route, ...] = field(
        default=(), metadata=_about("Static routes besides the default ones, a list")
    )
    packages: tuple[PackageName, ...] = field(
        default=(), metadata=_about("Packages of the distribution for a virtual machine, a list of names")
    )
    files: Mapping[GuestPath, str] = field(
        default_factory=dict,
        metadata=_about("Files for a virtual machine: its path there, and the file in the lab's folder"),
    )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses of the node's interfaces, in the order of the file."""
        return tuple(each for interface in self.interfaces.values() for each in interface.addresses)


@dataclass(frozen=True, kw_only=True)
class LabFile(Section):
    """A lab of lvslab: the networks and nodes of a Linux Virtual Server cluster."""

    title: str = field(metadata=_about("What the lab shows, in one line", min_length=1))
    needs: tuple[FeatureName, ...] = field(
        default=(),
        metadata=_about("Features of IPVS that the how-to needs, a list of names such as ipv6"),
    )
    networks: Mapping[NetworkName, Network] = field(
        metadata=_about("The lab's networks by name", min_length=1)
    )
    nodes: Mapping[NodeName, Node] = field(metadata=_about("The lab's machines by host name", min_length=1))


@dataclass(frozen=True, kw_only=True)
class Lab(LabFile):
    """A lab as its folder describes it. Nodes and networks keep the order of the file."""

    name: str
    folder: Path

    @property
    def directors(self) -> Mapping[str, Node]:
        """The directors by host name, at least one."""
        return self._of("director")

    @property
    def real_servers(self) -> Mapping[str, Node]:
        """The real servers by host name."""
        return self._of("real-server")

    @property
    def clients(self) -> Mapping[str, Node]:
        """The clients by host name."""
        return self._of("client")

    @property
    def routers(self) -> Mapping[str, Node]:
        """The routers by host name."""
        return self._of("router")

    @property
    def names(self) -> Mapping[str, str]:
        """The host name of the node with each address."""
        return {str(address): name for name, node in self.nodes.items() for address in node.addresses}

    @property
    def virtual_machines(self) -> Mapping[str, Node]:
        """The nodes with kernels of their own, by host name; directors are among them."""
        return {name: node for name, node in self.nodes.items() if node.kernel is not None}

    def interface_addresses(self, interface: Interface) -> tuple[InterfaceAddress, ...]:
        """Return an interface's addresses, each with its prefix length: its own, or that of its subnet."""
        network = self.networks[interface.network]
        return tuple(_with_prefix(address, network) for address in interface.written)

    def source_address(self, node: str, target: Address) -> Address:
        """Return the address of ``node`` from which it connects to ``target``.

        It is the one in the subnet of ``target``, or else of the next router: that of the narrowest static
        route, or the gateway. Without a route it is the first address of the family.
        """
        about = self.nodes[node]
        own = [each for card in about.interfaces.values() for each in self.interface_addresses(card)]
        routes = sorted(about.routes, key=lambda route: route.to.prefixlen, reverse=True)
        hops = [route.via for route in routes if target in route.to]
        hops += [gateway for card in about.interfaces.values() for gateway in card.gateways]
        for hop in (target, *(hop for hop in hops if hop.version == target.version)):
            if near := [address for address in own if hop in address.network]:
                return near[0].ip
        return next((each.ip for each in own if each.version == target.version), own[0].ip)

    def _of(self, role: Role) -> Mapping[str, Node]:
        return {name: node for name, node in self.nodes.items() if node.role == role}


def _with_prefix(address: Address | InterfaceAddress, network: Network) -> InterfaceAddress:
    if isinstance(address, InterfaceAddress):
        return address
    subnet = network.subnet_of(address)
    assert subnet is not None, f"{address} is in no subnet of its network"  # the loader has checked it
    return ipaddress.ip_interface((address, subnet.prefixlen))
