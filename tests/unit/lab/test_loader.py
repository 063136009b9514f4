"""What a lab is. Wrong files are in tests/errors, each with its message."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from lvslab import paths
from lvslab.boot.services.bundles import RECIPES
from lvslab.errors import LabFileError, UsageError
from lvslab.lab import loader, schema
from lvslab.lab import model as topology

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
    assert services == (topology.FtpService("ftp", 21), topology.HttpService("http", 8080))
    assert topology.ports_of(services[0]) == (21, 20)


def test_every_kind_of_service_has_a_server() -> None:
    assert schema.SERVICES.keys() == RECIPES.keys()
    assert schema.SERVICES.keys() >= topology.IN_GUESTS


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
    shown = [lab.with_prefix(interface) for interface in lab.nodes["director"].interfaces.values()]
    assert shown == ["192.0.2.1/24", "10.0.0.1/31", "fd00::/64"]
    assert lab.nodes["client"].addresses == (ipaddress.IPv6Address("fd00::2"),)


def test_a_lab_is_frozen(folder: Path) -> None:
    lab = loader.load(folder)
    with pytest.raises(FrozenInstanceError):
        lab.nodes["web"].role = "client"  # type: ignore[misc]


def test_all_that_a_file_may_say_is_in_the_lab() -> None:
    """The schema and the plain data are two lists of the same things."""
    for plain, model in (
        (topology.Network, schema.Network),
        (topology.Interface, schema.Interface),
        (topology.HttpService, schema.HttpService),
        (topology.FtpService, schema.FtpService),
        (topology.DnsService, schema.DnsService),
        (topology.Node, schema.Node),
    ):
        # What one node stands for has been written out.
        assert {field.name for field in fields(plain)} == set(model.model_fields) - {"count"}


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


def test_find(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labs = folder.parent
    (labs / "no-lab").mkdir()
    assert topology.list_labs(labs) == ("small",)
    assert topology.list_labs(labs / "nowhere") == ()
    assert topology.find("small", labs) == folder
    monkeypatch.chdir(labs)
    assert topology.find("./small", Path("nowhere")) == Path("small")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", "there is no lab 'smal'\n  did you mean 'small'? (known here: small)"),
        ("web", "there is no lab 'web'\n  known here: small"),
        ("..", "there is no lab '..'\n  known here: small"),
        ("./web", "./web is not a lab: it holds no lab.yaml"),
    ],
)
def test_an_unknown_lab(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        topology.find(name, folder.parent)
    assert str(caught.value) == message


def test_the_schema_file_is_up_to_date() -> None:
    found = schema.json_schema()
    written = json.loads((paths.labs() / "lab.schema.json").read_text())
    assert written == found, "write it anew: ./run lab.schema > labs/lab.schema.json"


def test_the_schema_describes_every_field() -> None:
    found = schema.json_schema()
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for model in [found, *found["$defs"].values()]:
        assert model["additionalProperties"] is False
        for name, field in model["properties"].items():
            assert field.get("description"), f"{model['title']}.{name}"
