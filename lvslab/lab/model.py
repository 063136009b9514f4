"""What a lab is, as plain data, and where its folder is found.

`spec` reads it from ``lab.yaml`` and checks it, which takes pydantic and a YAML parser; what is done with a
lab after that needs neither of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Literal

from lvslab.errors import LabFileError, UsageError

LAB_FILE = "lab.yaml"

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network
Role = Literal["director", "real-server", "client", "name-server"]


@dataclass(frozen=True)
class Network:
    """One Ethernet segment, and the subnet that its addresses are from."""

    subnet: Subnet


@dataclass(frozen=True)
class Interface:
    """A network card of a node."""

    network: str
    address: Address
    gateway: Address | None


@dataclass(frozen=True)
class HttpService:
    """A web server whose page names the node that served it."""

    kind: Literal["http"]
    port: int


@dataclass(frozen=True)
class FtpService:
    """An FTP server with anonymous users only, whose files name the server and are the same on all else."""

    kind: Literal["ftp"]
    port: int


@dataclass(frozen=True)
class DnsService:
    """A name server with authority for ``zone``, whose zone file is ``zone_file`` in the lab's folder."""

    kind: Literal["dns"]
    port: int
    zone: str

    @property
    def zone_file(self) -> str:
        """The file's name."""
        return f"{self.zone}.zone"


Service = HttpService | FtpService | DnsService

IN_GUESTS = frozenset({"http"})
"""The kinds of services that a virtual machine can run: a guest's image has busybox httpd and no more."""


def ports_of(service: Service) -> tuple[int, ...]:
    """The ports that ``service`` takes on its node, the one that clients know first."""
    # Data connections in active mode come from the port below the control connection's (RFC 959, 5.2).
    return (service.port, service.port - 1) if service.kind == "ftp" else (service.port,)


@dataclass(frozen=True)
class Node:
    """A machine of the lab. One with a kernel of its own, as each director has, is a virtual machine with
    ``memory`` in MiB (None for what its kernel usually gets), any other a Mininet host."""

    role: Role
    kernel: str | None
    memory: int | None
    interfaces: Mapping[str, Interface]
    services: tuple[Service, ...]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of the node's interfaces, in the order of the file."""
        return tuple(interface.address for interface in self.interfaces.values())


@dataclass(frozen=True)
class Lab:
    """A lab as its folder describes it. Nodes and networks keep the order of the file."""

    name: str
    folder: Path
    title: str
    networks: Mapping[str, Network]
    nodes: Mapping[str, Node]

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

    def with_prefix(self, interface: Interface) -> str:
        """``interface``'s address with its network's prefix length: ``66.199.240.50/24``."""
        return f"{interface.address}/{self.networks[interface.network].subnet.prefixlen}"

    def _of(self, role: Role) -> Mapping[str, Node]:
        return {name: node for name, node in self.nodes.items() if node.role == role}


def list_labs(labs: Path) -> tuple[str, ...]:
    """The names of the labs in the folder ``labs``, sorted; none where there is no such folder."""
    return tuple(sorted(file.parent.name for file in labs.glob(f"*/{LAB_FILE}")))


def find(name: str, labs: Path) -> Path:
    """The folder of the lab ``name`` in ``labs``; a ``name`` with a slash is the path of the folder itself.

    Raises UsageError where there is no such lab.
    """
    if "/" in name:
        if (Path(name) / LAB_FILE).is_file():
            return Path(name)
        raise UsageError(f"{name} is not a lab: it holds no {LAB_FILE}")
    known = list_labs(labs)
    if name in known:
        return labs / name
    raise UsageError(f"there is no lab {name!r}", suggest(name, known))


def read_text(path: Path) -> str:
    """The text of a lab's file. Raises LabFileError where it is not there, or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LabFileError(path, line, "this is not UTF-8 text", "save the file as UTF-8") from None
    except OSError as error:
        raise LabFileError(path, 0, f"cannot be read: {error.strerror}", "every lab has one") from None


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint for a ``word`` that is none of ``known``: the nearest one, if any is near, and all of them."""
    from difflib import get_close_matches  # only a mistake has to wait for this import

    names = list(known)
    near = get_close_matches(word, names, n=1)
    listed = f"known here: {', '.join(names) or 'none'}"
    return f"did you mean {near[0]!r}? ({listed})" if near else listed
