from __future__ import annotations

import os
from pathlib import Path

import pytest

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Ftp, Host, Web
from lvslab.boot.services import servers
from lvslab.boot.services.servers import HostServers
from lvslab.errors import BootError, UsageError

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
def host(tmp_path: Path) -> HostServers:
    for kind in ("http", "ftp"):
        (tmp_path / kind).write_text(f"log of {kind}")
    return HostServers(Host("rs1", (), ()), [Stub("http", tmp_path / "http"), Stub("ftp", tmp_path / "ftp")])


def test_a_host_has_one_web_server_and_an_ftp_server_for_each_port() -> None:
    made = servers.of(Host("rs1", (), (Web(80), Ftp(21), Web(8080), Ftp(2121))), NOWHERE)
    assert [server.kind for server in made._servers] == ["http", "ftp", "ftp"]
    assert not made.running


def test_all_of_a_host_are_started_and_stopped(host: HostServers) -> None:
    assert not host.running
    servers.start([host])
    assert host.running
    host._servers[0].stop()
    assert not host.running
    host.start()
    host.stop()
    assert not any(server.running for server in host._servers)


def test_each_kind_has_its_log(host: HostServers) -> None:
    for kind in ("http", "ftp"):
        with os.fdopen(host.access_log(kind)) as log:
            assert log.read() == f"log of {kind}"
    with pytest.raises(UsageError, match=r"rs1 has no server for dns\n  it serves http, ftp"):
        host.access_log("dns")


def test_one_that_does_not_start(tmp_path: Path) -> None:
    bad = HostServers(Host("rs2", (), ()), [Stub("broken", tmp_path)])
    with pytest.raises(BootError, match="it does not start"):
        servers.start([bad])
