from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services import servers
from lvslab.boot.services.servers import SERVERS, NodeServers
from lvslab.errors import BootError, UsageError
from lvslab.lab.model import SERVICES, FtpService, HttpService

NOWHERE = Namespaces(-1, -1)


class Stub:
    """A server that only says what it was asked."""

    def __init__(self, kind: str, log: Path, running: bool = False) -> None:
        self.kind, self.running, self.log = kind, running, log

    def access_log(self) -> int:
        return os.open(self.log, os.O_RDONLY)

    def start(self) -> None:
        if self.kind == "broken":
            raise BootError("it does not start")
        self.running = True

    def stop(self) -> None:
        self.running = False


@pytest.fixture
def host(tmp_path: Path) -> NodeServers:
    for kind in ("http", "ftp"):
        (tmp_path / kind).write_text(f"log of {kind}")
    return NodeServers("rs1", [Stub("http", tmp_path / "http"), Stub("ftp", tmp_path / "ftp")])


def test_a_host_has_one_web_server_and_an_ftp_server_for_each_port() -> None:
    services = (HttpService(), FtpService(), HttpService(port=8080), FtpService(port=2121))
    made = servers.on_host(Host("rs1", (), services), NOWHERE, Path("/lab"))
    assert [server.kind for server in made._servers] == ["http", "ftp", "ftp"]
    assert not made.running


def test_every_kind_of_service_has_a_server() -> None:
    assert {kind: server.service for kind, server in SERVERS.items()} == dict(SERVICES)


@pytest.mark.parametrize("kind", SERVICES)
def test_the_kinds_that_run_in_guests_have_a_server_there(kind: str) -> None:
    others: dict[str, dict[str, Any]] = {
        "dns": {"zone": "example.test"},
        "udp": {"port": 7},
        "sctp": {"port": 7},
    }
    service = SERVICES[kind](**others.get(kind, {}))
    machine: Any = SimpleNamespace(guest=SimpleNamespace(name="rs1", services=(service,)))
    if service.in_guests:
        assert [server.kind for server in servers.in_guest(machine)._servers] == [kind]
    else:
        with pytest.raises(NotImplementedError):
            servers.in_guest(machine)


def test_all_of_a_host_are_started_and_stopped(host: NodeServers) -> None:
    assert not host.running
    servers.start([host])
    assert host.running
    host._servers[0].stop()
    assert not host.running
    host.start()
    host.stop()
    assert not any(server.running for server in host._servers)


def test_each_kind_has_its_log(host: NodeServers) -> None:
    for kind in ("http", "ftp"):
        with os.fdopen(host.access_log(kind)) as log:
            assert log.read() == f"log of {kind}"
    with pytest.raises(UsageError, match=r"rs1 has no server for dns\n  it serves http, ftp"):
        host.access_log("dns")


def test_one_that_does_not_start(tmp_path: Path) -> None:
    bad = NodeServers("rs2", [Stub("broken", tmp_path)])
    with pytest.raises(BootError, match="it does not start"):
        servers.start([bad])
