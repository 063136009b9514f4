"""What a lab is. Wrong files are in tests/errors, each with its message."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from pydantic import TypeAdapter

from lvslab import paths
from lvslab.errors import LabFileError
from lvslab.lab import loader, model
from lvslab.lab.model import SERVICES, FtpService, HttpService, LabFile, Service

LAB = """title: A lab
networks:
  outside: {subnet: 192.0.2.0/24}
  link: {subnet: 10.0.0.0/31}
  six: {subnet: fd00::/64}
nodes:
  web:
    role: real-server
    interfaces:
      eth0: {network: link, address: 10.0.0.0, gateway: 10.0.0.1}
    services:
      - {kind: http}
      - {kind: http, port: 8080}
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: outside, address: 192.0.2.1}
      eth1: {network: link, address: 10.0.0.1}
      eth2: {network: six, address: "fd00::"}
  client: {role: client, interfaces: {eth0: {network: six, address: fd00::2}}}
  dns: {role: name-server, interfaces: {eth0: {network: outside, address: 192.0.2.53}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "lab.yaml").write_text(LAB)
    return tmp_path / "small"


def test_web_nat_is_the_tutorials_cluster() -> None:
    lab = loader.load(paths.labs() / "web-nat")
    assert lab.name == "web-nat"
    addresses = {name: [str(address) for address in node.addresses] for name, node in lab.nodes.items()}
    assert addresses == {
        "director": ["66.199.240.50", "10.0.0.1"],
        "real-server-1": ["10.0.0.100"],
        "real-server-2": ["10.0.0.101"],
        "client": ["66.199.240.10"],
        "client-2": ["66.199.240.11"],
    }
    assert lab.nodes["director"].kernel == "debian-cloud"
    for server in lab.real_servers.values():
        assert server.interfaces["eth0"].gateway == lab.nodes["director"].interfaces["eth1"].address
        assert [service.port for service in server.services] == [80]


def test_load(folder: Path) -> None:
    lab = loader.load(folder)
    assert (lab.name, lab.folder, lab.title) == ("small", folder, "A lab")
    assert list(lab.nodes) == ["web", "director", "client", "dns"]
    assert (list(lab.directors), list(lab.real_servers)) == (["director"], ["web"])
    assert list(lab.clients) == ["client"]
    assert [(one.kind, one.port) for one in lab.nodes["web"].services] == [("http", 80), ("http", 8080)]
    assert lab.nodes["director"].memory is None


def test_each_kind_of_service_has_its_own_defaults(folder: Path) -> None:
    (folder / "lab.yaml").write_text(LAB.replace("- {kind: http}", "- {kind: ftp}"))
    services = loader.load(folder).nodes["web"].services
    assert services == (FtpService(), HttpService(port=8080))
    assert list(services[0].ports) == [21, 20]


@pytest.mark.parametrize("kind", SERVICES)
def test_a_kind_of_service_has_one_name(kind: str) -> None:
    assert SERVICES[kind].kind == kind


def test_one_node_stands_for_many(folder: Path) -> None:
    counted = LAB.replace(
        "client: {role: client, interfaces: {eth0: {network: six, address: fd00::2}}}",
        "client: {role: client, count: 3, interfaces: {eth0: {network: six, address: fd00::9}}}",
    )
    (folder / "lab.yaml").write_text(counted)
    lab = loader.load(folder)
    assert list(lab.nodes) == ["web", "director", "client-1", "client-2", "client-3", "dns"]
    addresses = [str(node.addresses[0]) for node in lab.clients.values()]
    assert addresses == ["fd00::9", "fd00::a", "fd00::b"]


def test_many_has_250_real_servers() -> None:
    lab = loader.load(paths.labs() / "many")
    assert len(lab.real_servers) == 250
    gateway = lab.nodes["director"].interfaces["eth1"].address
    for number, server in enumerate(lab.real_servers.values(), start=1):
        assert str(server.addresses[0]) == f"10.0.1.{number}"
        assert server.interfaces["eth0"].gateway == gateway
        assert [service.port for service in server.services] == [80]


def test_an_address_with_its_prefix(folder: Path) -> None:
    lab = loader.load(folder)
    found = [lab.interface_addresses(interface) for interface in lab.nodes["director"].interfaces.values()]
    wanted = ("192.0.2.1/24", "10.0.0.1/31", "fd00::/64")
    assert found == [(ipaddress.ip_interface(each),) for each in wanted]
    assert lab.nodes["client"].addresses == (ipaddress.IPv6Address("fd00::2"),)


BOTH = """title: Both families
networks:
  outside: {subnet: [192.0.2.0/24, "2001:db8::/64"]}
  lan: {subnet: ["fd00::/64", 10.0.0.0/24]}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: outside, address: [192.0.2.1, "2001:db8::1", 10.9.9.9/32, "fd09::9/128"]}
      eth1: {network: lan, address: ["fd00::1", 10.0.0.1], mtu: 1400}
  web:
    role: real-server
    interfaces:
      eth0: {network: lan, address: [10.0.0.2, 10.0.0.3, "fd00::2"], gateway: ["fd00::1", 10.0.0.1]}
    routes:
      - {to: 192.0.0.0/16, via: 10.0.0.7}
      - {to: "2001:db8::/32", via: "fd00::7"}
  far:
    role: client
    interfaces:
      eth0: {network: outside, address: 10.8.0.5/16, gateway: 10.8.0.1}
      eth1: {network: lan, address: 10.0.0.9}
    routes: [{to: 10.7.0.0/16, via: 10.0.0.1}]
"""


@pytest.fixture
def both(folder: Path) -> loader.Lab:
    (folder / "lab.yaml").write_text(BOTH)
    return loader.load(folder)


def test_several_addresses_of_both_families(both: loader.Lab) -> None:
    assert [*map(str, both.networks["lan"].subnets)] == ["fd00::/64", "10.0.0.0/24"]
    assert str(both.networks["outside"].subnet) == "192.0.2.0/24"
    eth0, eth1 = both.nodes["director"].interfaces.values()
    own = ["192.0.2.1/24", "2001:db8::1/64", "10.9.9.9/32", "fd09::9/128"]
    assert [*map(str, both.interface_addresses(eth0))] == own
    assert (str(eth0.address), eth0.gateways, eth0.gateway, eth0.mtu) == ("192.0.2.1", (), None, None)
    assert (str(eth1.address), eth1.mtu) == ("fd00::1", 1400)
    web = both.nodes["web"]
    assert [*map(str, web.addresses)] == ["10.0.0.2", "10.0.0.3", "fd00::2"]
    assert str(web.interfaces["eth0"].gateway) == "fd00::1"
    assert [(str(route.to), str(route.via)) for route in web.routes] == [
        ("192.0.0.0/16", "10.0.0.7"),
        ("2001:db8::/32", "fd00::7"),
    ]


@pytest.mark.parametrize(
    ("node", "target", "source"),
    [
        ("director", "10.0.0.3", "10.0.0.1"),
        ("director", "fd00::5", "fd00::1"),
        ("director", "198.51.100.1", "192.0.2.1"),  # there is no route to it
        ("web", "192.0.2.1", "10.0.0.2"),
        ("web", "2001:db8::1", "fd00::2"),
        ("far", "10.0.0.1", "10.0.0.9"),
        ("far", "10.7.1.1", "10.0.0.9"),
        ("far", "10.6.1.1", "10.8.0.5"),
        ("far", "fd00::1", "10.8.0.5"),  # it has no address of this family
    ],
)
def test_the_source_of_a_connection(both: loader.Lab, node: str, target: str, source: str) -> None:
    assert str(both.source_address(node, ipaddress.ip_address(target))) == source


def test_a_lab_is_frozen(folder: Path) -> None:
    lab = loader.load(folder)
    with pytest.raises(FrozenInstanceError):
        lab.nodes["web"].role = "client"  # type: ignore[misc]


def test_services_of_different_protocols_share_a_port(folder: Path) -> None:
    for kinds in (("http", "udp"), ("udp", "sctp"), ("sctp", "smtp")):
        own = "\n      ".join(f"- {{kind: {kind}, port: 53}}" for kind in kinds)
        (folder / "lab.yaml").write_text(LAB.replace("- {kind: http}", own))
        assert [each.kind for each in loader.load(folder).nodes["web"].services] == [*kinds, "http"]


@pytest.mark.parametrize("kind", ["http", "udp"])
def test_a_name_server_takes_its_port_of_both_protocols(folder: Path, kind: str) -> None:
    own = f"- {{kind: dns, zone: example.test}}\n      - {{kind: {kind}, port: 53}}"
    (folder / "lab.yaml").write_text(LAB.replace("- {kind: http}", own))
    with pytest.raises(LabFileError, match="web has two services on port 53"):
        loader.load(folder)


def test_a_director_can_serve_too(folder: Path) -> None:
    own = "kernel: debian-cloud\n    services: [{kind: http}, {kind: udp, port: 53}]"
    (folder / "lab.yaml").write_text(LAB.replace("kernel: debian-cloud", own))
    assert [each.kind for each in loader.load(folder).nodes["director"].services] == ["http", "udp"]


def test_a_further_kind_of_service_is_a_dataclass_and_a_row(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Echo(Service):
        """A server that sends back what it gets."""

        kind: Literal["echo"] = field(default="echo", metadata={"description": "What is served: echo"})
        port: int = field(default=7, metadata={"le": 9, "description": "The UDP port, 1 to 9"})

        one_per_node = ("two echoes", "one is enough")

    monkeypatch.setattr(model, "SERVICES", {**SERVICES, "echo": Echo})
    monkeypatch.setattr(loader, "SERVICES", {**SERVICES, "echo": Echo})
    monkeypatch.setattr(loader, "_FILE", TypeAdapter(LabFile))
    (folder / "lab.yaml").write_text(LAB.replace("- {kind: http}", "- {kind: echo}"))
    assert loader.load(folder).nodes["web"].services == (Echo(), HttpService(port=8080))
    assert {"EchoService", "Echo"} & loader.json_schema()["$defs"].keys()
    for wrong, message, hint in (
        ("{kind: echo, port: 10}", "should be less than or equal to 9", "port: The UDP port, 1 to 9"),
        ("{kind: echo, prot: 7}", "unknown key 'prot'", "did you mean 'port'? (known here: kind, port)"),
        ("{kind: http, port: 7}", "web has two services on port 7", "give one of the two another port"),
        ("{kind: echo, port: 8}", "web has two echoes", "one is enough"),
    ):
        (folder / "lab.yaml").write_text(LAB.replace("- {kind: http}", f"- {{kind: echo}}\n      - {wrong}"))
        with pytest.raises(LabFileError, match=message) as caught:
            loader.load(folder)
        assert caught.value.hint == hint


def test_a_merged_key_is_told_by_a_line_that_exists(folder: Path) -> None:
    text = LAB.replace("client: {role", "client: &c {role") + "  other: {<<: *c}\n"
    (folder / "lab.yaml").write_text(text)
    with pytest.raises(LabFileError, match="other has the address fd00::2, which is client's") as caught:
        loader.load(folder)
    assert caught.value.line == len(text.splitlines())


def test_a_folder_without_lab_yaml(tmp_path: Path) -> None:
    with pytest.raises(LabFileError, match="No such file") as caught:
        loader.load(tmp_path)
    assert (caught.value.file, caught.value.line) == (tmp_path / "lab.yaml", 0)


def test_the_schema_file_is_up_to_date() -> None:
    found = loader.json_schema()
    written = json.loads((paths.labs() / "lab.schema.json").read_text())
    assert written == found, "write it anew: ./run lab.schema > labs/lab.schema.json"


def test_the_schema_describes_every_field() -> None:
    found = loader.json_schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for section in [found, *found["$defs"].values()]:
        assert section["additionalProperties"] is False
        for name, about in section["properties"].items():
            assert about.get("description"), f"{section['title']}.{name}"
