from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services.script.server import GuestScript, ScriptServer
from lvslab.boot.services.sctp import SctpServer
from lvslab.boot.services.smtp import SmtpServer
from lvslab.boot.services.udp import UdpServer
from lvslab.lab.model import HttpService, SmtpService, UdpService

SERVICES = (UdpService(port=53), HttpService(), UdpService(port=5000), SmtpService())


@pytest.mark.parametrize(
    ("kind", "ports"), [(UdpServer, ["53", "5000"]), (SmtpServer, ["25"]), (SctpServer, [])]
)
def test_one_program_for_all_ports_of_a_kind(kind: type[ScriptServer], ports: list[str]) -> None:
    (server,) = kind.on_host(Host("rs1", (), SERVICES), Namespaces(-1, -1), None)  # type: ignore[arg-type]
    assert isinstance(server, kind)
    name = kind.service.kind
    log = f"/var/log/{name}/access.log"
    assert server._argv[-5 - len(ports) :] == [
        "-S", f"/run/lvslab/nodes/rs1/{name}.py", name, "rs1", log, *ports
    ]  # fmt: skip
    assert not server.running


def guest() -> GuestScript:
    machine: Any = SimpleNamespace(guest=SimpleNamespace(name="rs1", services=SERVICES))
    return GuestScript(machine, "udp", "the UDP server")


def test_orders_are_single_lines_of_sh() -> None:
    server = guest()
    for order in (server.start_order, server.stop_order, server.running_order):
        assert "\n" not in order
        subprocess.run(["sh", "-n"], input=order.encode(), check=True)
    assert " /run/udp.py udp rs1 /var/log/udp/access.log 53 5000 " in server.start_order
