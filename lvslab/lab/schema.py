"""The schema of ``lab.yaml``: pydantic's models of it, and the JSON Schema for editors.

`spec` reads a file by it, and says in our words what is wrong with one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from lvslab.lab import counts
from lvslab.lab.model import LAB_FILE, Address, Role, Subnet


def _mistake(message: str, hint: str) -> PydanticCustomError:
    # The text travels as context, because pydantic would take braces in a template for fields of its own.
    return PydanticCustomError("lab", "{text}", {"text": message, "hint": hint})


def _address(value: object) -> Address:
    try:
        return ipaddress.ip_address(str(value))  # As text: the number 5 would become 0.0.0.5.
    except ValueError:
        hint = "an address looks like 10.0.0.1 or fd00::1, and has no prefix length"
        raise _mistake(f"{value!r} is not an address", hint) from None


def _subnet(value: object) -> Subnet:
    hint = "a subnet is an address and a prefix length, such as 10.0.0.0/24 or fd00::/64"
    try:
        # Without a prefix length ipaddress would make a network of one address.
        if "/" in str(value):
            return ipaddress.ip_network(str(value))
    except ValueError:
        with suppress(ValueError):
            hint = f"the subnet that this address is in is {ipaddress.ip_network(str(value), strict=False)}"
    raise _mistake(f"{value!r} is not a subnet", hint)


AddressField = Annotated[Address, BeforeValidator(_address), WithJsonSchema({"type": "string"})]
SubnetField = Annotated[Subnet, BeforeValidator(_subnet), WithJsonSchema({"type": "string", "pattern": "/"})]

# A network's name and a port's number are the name of a Linux interface, which has at most 15 characters.
NetworkName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,8}$")]
NodeName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
Zone = Annotated[
    str, Field(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")
]
InterfaceName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,14}$")]


class Model(BaseModel):
    """A mapping of ``lab.yaml``: no key that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Network(Model):
    """One Ethernet segment, and the subnet that its addresses are from."""

    subnet: SubnetField = Field(description="The network's addresses, such as 10.0.0.0/24 or fd00::/64")


class Interface(Model):
    """A network card of a node."""

    network: str = Field(description="The network that the interface is plugged into: a name from networks")
    address: AddressField = Field(description="The interface's IPv4 or IPv6 address, from its network")
    gateway: AddressField | None = Field(default=None, description="The default route, in the same network")


class HttpService(Model):
    """A web server whose page names the node that served it."""

    kind: Literal["http"] = Field(description="What is served: http")
    port: int = Field(default=80, ge=1, le=65535, strict=True, description="The TCP port, 1 to 65535")


class FtpService(Model):
    """An FTP server for anonymous users, with files that name the server and files of known content."""

    kind: Literal["ftp"] = Field(description="What is served: ftp")
    port: int = Field(
        default=21,
        ge=2,
        le=65535,
        strict=True,
        description="The TCP port of control connections, 2 to 65535",
    )


class DnsService(Model):
    """A name server with authority for one zone, whose records are in a zone file in the lab's folder."""

    kind: Literal["dns"] = Field(description="What is served: dns")
    zone: Zone = Field(description="The zone, such as example.test; its records are in example.test.zone")
    port: int = Field(
        default=53, ge=1, le=65535, strict=True, description="The UDP and TCP port, 1 to 65535"
    )


Service = HttpService | FtpService | DnsService
SERVICES: Mapping[str, type[Service]] = {"http": HttpService, "ftp": FtpService, "dns": DnsService}
"""The kinds of services. A further one stands here, in ``Service``, and in ``_service``."""


class Node(Model):
    """A machine of the lab: with a kernel of its own a virtual machine, else a Mininet host."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"role": {"const": "director"}}},
            "then": {"required": ["kernel"], "properties": {"count": False, "services": False}},
            "dependentRequired": {"memory": ["kernel"]},
        }
    )

    role: Role = Field(description="What the node is for: director, real-server, client or name-server")
    kernel: str | None = Field(
        default=None, min_length=1, description="The node's own kernel: debian-cloud, 2.4.37.11"
    )
    memory: int | None = Field(
        default=None,
        ge=16,
        le=65536,
        strict=True,
        description="A virtual machine's memory in MiB, 16 to 65536",
    )
    count: int | None = Field(
        default=None,
        ge=1,
        le=counts.MOST_NODES,
        strict=True,
        description="So many nodes alike, NAME-1, NAME-2 and so on, each with the next address",
    )
    interfaces: Mapping[InterfaceName, Interface] = Field(min_length=1, description="Network cards by name")
    services: tuple[Annotated[Service, Field(discriminator="kind")], ...] = Field(
        default=(), description="The servers that run on the node, a list"
    )


class LabFile(Model):
    """A lab of lvslab: the networks and nodes of a Linux Virtual Server cluster."""

    title: str = Field(min_length=1, description="What the lab shows, in one line")
    networks: Mapping[NetworkName, Network] = Field(min_length=1, description="The lab's networks by name")
    nodes: Mapping[NodeName, Node] = Field(min_length=1, description="The lab's machines by host name")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``lab.yaml``, for editors. It cannot say all that ``load`` checks."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **LabFile.model_json_schema(), "title": f"lvslab {LAB_FILE}"}
