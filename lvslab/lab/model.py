"""The model of a lab: plain frozen dataclasses, which the file ``lab.yaml`` spells out.

`loader` reads the file and has pydantic validate these classes; nothing here imports it. The metadata of a
field are pydantic's: its description, and the rules that its value keeps. A kind of service is a subclass of
`Service` with a row in SERVICES.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from lvslab.lab import rules
from lvslab.lab.rules import Address, Matching, Parsed, Subnet

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

InterfaceAddress = IPv4Interface | IPv6Interface
"""An address with the prefix length of its network."""
Role = Literal["director", "real-server", "client", "name-server"]

MAX_NODES = 999
"""Maximum number of nodes of a lab: a node's number is part of its interfaces' names, which are short."""

# A network's name and a port's number are the name of a Linux interface, which has at most 15 characters.
NetworkName = Annotated[str, Matching(r"^[a-z][a-z0-9-]{0,8}$")]
NodeName = Annotated[str, Matching(r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
InterfaceName = Annotated[str, Matching(r"^[A-Za-z][A-Za-z0-9._-]{0,14}$")]
_ZONE = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"


class Section:
    """A mapping of ``lab.yaml``, which has no other keys than its fields."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True)
class Network(Section):
    """One Ethernet segment, and the subnet that its addresses are from."""

    subnet: Annotated[Subnet, Parsed(rules.subnet, "/")] = field(
        metadata={"description": "The network's addresses, such as 10.0.0.0/24 or fd00::/64"}
    )


@dataclass(frozen=True)
class Interface(Section):
    """A network card of a node."""

    network: str = field(
        metadata={"description": "The network that the interface is plugged into: a name from networks"}
    )
    address: Annotated[Address, Parsed(rules.address)] = field(
        metadata={"description": "The interface's IPv4 or IPv6 address, from its network"}
    )
    gateway: Annotated[Address, Parsed(rules.address)] | None = field(
        default=None, metadata={"description": "The default route, in the same network"}
    )


@dataclass(frozen=True, kw_only=True)
class Service(Section):
    """A server that runs on a node. Each kind is a subclass.

    Class variables: ``in_guests``, virtual machines have a server of the kind too, not only Mininet hosts;
    ``one_per_node``, what messages call several of the kind, where a node can have one only, and a hint.
    """

    kind: str = ""
    port: int

    in_guests: ClassVar[bool] = False
    one_per_node: ClassVar[tuple[str, str] | None] = None

    @property
    def ports(self) -> Mapping[int, str]:
        """The ports that it takes on its node, the one that clients know first.

        Each has a note on why the node's other services cannot have it ("" where that is plain).
        """
        return {self.port: ""}

    def check_files(self, folder: Path) -> None:
        """Check the files that it has in the lab's ``folder``. Raises LabFileError."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        if cls is not Service:
            return handler(source)
        choices = {kind: handler.generate_schema(service) for kind, service in SERVICES.items()}
        return {"type": "tagged-union", "discriminator": "kind", "choices": choices}


@dataclass(frozen=True, kw_only=True)
class HttpService(Service):
    """A web server whose page names the node that served it."""

    kind: Literal["http"] = field(default="http", metadata={"description": "What is served: http"})
    port: int = field(
        default=80,
        metadata={"ge": 1, "le": 65535, "strict": True, "description": "The TCP port, 1 to 65535"},
    )

    in_guests: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class FtpService(Service):
    """An FTP server for anonymous users, with files that name the server and files of known content."""

    kind: Literal["ftp"] = field(default="ftp", metadata={"description": "What is served: ftp"})
    port: int = field(
        default=21,
        metadata={
            "ge": 2,
            "le": 65535,
            "strict": True,
            "description": "The TCP port of control connections, 2 to 65535",
        },
    )

    @property
    def ports(self) -> Mapping[int, str]:
        """See Service. Active data connections come from the port below the control port (RFC 959, 5.2)."""
        note = "an ftp service makes its data connections from the port below its own"
        return {self.port: "", self.port - 1: note}


@dataclass(frozen=True, kw_only=True)
class DnsService(Service):
    """A name server with authority for one zone, whose records are in a zone file in the lab's folder."""

    kind: Literal["dns"] = field(default="dns", metadata={"description": "What is served: dns"})
    zone: str = field(
        metadata={
            "pattern": _ZONE,
            "description": "The zone, such as example.test; its records are in example.test.zone",
        }
    )
    port: int = field(
        default=53,
        metadata={"ge": 1, "le": 65535, "strict": True, "description": "The UDP and TCP port, 1 to 65535"},
    )

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
    {"http": HttpService, "ftp": FtpService, "dns": DnsService}
)
"""The kinds of services by their ``kind`` in ``lab.yaml``."""


@dataclass(frozen=True, kw_only=True)
class Node(Section):
    """A machine of the lab: with a kernel of its own a virtual machine, else a Mininet host."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {
        **Section.__pydantic_config__,
        "json_schema_extra": {
            "if": {"properties": {"role": {"const": "director"}}},
            "then": {"required": ["kernel"], "properties": {"count": False, "services": False}},
            "dependentRequired": {"memory": ["kernel"]},
        },
    }

    role: Role = field(
        metadata={"description": "What the node is for: director, real-server, client or name-server"}
    )
    kernel: str | None = field(
        default=None,
        metadata={"min_length": 1, "description": "The node's own kernel: debian-cloud, 2.4.37.11"},
    )
    # None for as much as the kernel usually gets.
    memory: int | None = field(
        default=None,
        metadata={
            "ge": 16,
            "le": 65536,
            "strict": True,
            "description": "A virtual machine's memory in MiB, 16 to 65536",
        },
    )
    # In the file only: a lab that was loaded has each of them, without a count.
    count: int | None = field(
        default=None,
        metadata={
            "ge": 1,
            "le": MAX_NODES,
            "strict": True,
            "description": "So many nodes alike, NAME-1, NAME-2 and so on, each with the next address",
        },
    )
    interfaces: Mapping[InterfaceName, Interface] = field(
        metadata={"min_length": 1, "description": "Network cards by name"}
    )
    services: tuple[Service, ...] = field(
        default=(), metadata={"description": "The servers that run on the node, a list"}
    )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of the node's interfaces, in the order of the file."""
        return tuple(interface.address for interface in self.interfaces.values())


@dataclass(frozen=True, kw_only=True)
class LabFile(Section):
    """A lab of lvslab: the networks and nodes of a Linux Virtual Server cluster."""

    title: str = field(metadata={"min_length": 1, "description": "What the lab shows, in one line"})
    networks: Mapping[NetworkName, Network] = field(
        metadata={"min_length": 1, "description": "The lab's networks by name"}
    )
    nodes: Mapping[NodeName, Node] = field(
        metadata={"min_length": 1, "description": "The lab's machines by host name"}
    )


@dataclass(frozen=True, kw_only=True)
class Lab(LabFile):
    """A lab as its folder describes it. Nodes and networks keep the order of the file."""

    name: str
    folder: Path

    @property
    def directors(self) -> Mapping[str, Node]:
        """The directors by host name; at least one."""
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
    def virtual_machines(self) -> Mapping[str, Node]:
        """The nodes with kernels of their own by host name, directors included."""
        return {name: node for name, node in self.nodes.items() if node.kernel is not None}

    def interface_address(self, interface: Interface) -> InterfaceAddress:
        """``interface``'s address with its network's prefix length: ``66.199.240.50/24``."""
        prefix_length = self.networks[interface.network].subnet.prefixlen
        return ipaddress.ip_interface((interface.address, prefix_length))

    def _of(self, role: Role) -> Mapping[str, Node]:
        return {name: node for name, node in self.nodes.items() if node.role == role}
