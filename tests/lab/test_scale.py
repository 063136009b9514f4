"""The lab ``many``: 250 real servers come up, all of them answer, and nothing of them is left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import Box, BoxedCommand

NAME = "t-many"
SERVERS = [f"real-server-{number}" for number in range(1, 251)]

# Prints who made the page of each address, in the page's own words; the machine may have no curl.
_ASK = """
import sys, urllib.request
for address in sys.argv[1:]:
    page = urllib.request.urlopen(f"http://{address}/", timeout=5).read().decode()
    print(page.strip().splitlines()[-1].removeprefix("<h1>This page was made by ").removesuffix("</h1>"))
"""


def good(command: BoxedCommand) -> str:
    ended = command.end()
    assert ended.status == 0, ended.stderr
    return ended.stdout


def shell(box: Box, node: str, command: str) -> list[str]:
    return good(box.start("lab.exec", node, "--name", NAME, "--command", command)).splitlines()


@pytest.mark.slow
def test_250_real_servers(box: Box) -> None:
    up: dict[str, Any] = json.loads(good(box.start("lab.up", "many", "--name", NAME, "--json")))
    assert up["steps"] == {"total": 4, "taken": 4, "failed": 0, "expected_failures": 0}
    servers = {name: node for name, node in up["nodes"].items() if node["role"] == "real-server"}
    assert list(servers) == SERVERS
    assert {(node["state"], node["service"]) for node in servers.values()} == {("up", "up")}
    # One request for each of them, and each has answered one.
    assert up["distribution"] == {server: {"expected": 1, "observed": 1} for server in sorted(SERVERS)}

    lines = shell(box, "director", "ipvsadm -Sn")
    assert len(lines) == 251
    assert set(lines[1:]) == {
        f"-a -t 66.199.240.50:80 -r 10.0.1.{number}:80 -m -w 1" for number in range(1, 251)
    }
    # Without the director as well, and by name.
    addresses = " ".join(f"10.0.1.{number}" for number in range(1, 251))
    assert shell(box, "real-server-250", f"/usr/bin/python3 -c '{_ASK}' {addresses}") == SERVERS

    # A server is two processes of nginx's, run by its own loader; a host is none, the lab itself a few.
    processes = [line for line in box.leftovers() if line.startswith("process ")]
    nginx = [line for line in processes if "/run/lvslab/servers/" in line]
    assert len(nginx) == 2 * len(SERVERS)
    assert len(processes) - len(nginx) < 10, [line for line in processes if line not in nginx]

    good(box.start("lab.down", "--name", NAME))
    # At once, but for unshare, which hears last of the lab's end.
    assert box.remaining(1.0) == []
