"""A network of two hosts and a client, made for real in namespaces that end with the test."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from typing import Any

import pytest

from lvslab.boot.net import network
from lvslab.errors import MachineError
from lvslab.paths import PROJECT

# Runs as process 1 of its own namespaces, as a lab's supervisor does. Prints one JSON document.
_PROGRAM = r"""
import json, os, socket, sys, time
from pathlib import Path

from lvslab.boot import supervisor
from lvslab.boot.net import hosts, network
from ipaddress import ip_interface
from lvslab.boot.plan import Card, Host, Plan, Route
from lvslab.run import run

def lan(number, gateway=None):
    mac, address = f"02:4c:56:00:0{number}:00", f"10.0.0.1{number}/24"
    routes = () if gateway is None else (Route("default", gateway),)
    return Card("eth0", "lan", f"lan-{number}.0", mac, (ip_interface(address),), routes)

def six(number):
    mac, address = f"02:4c:56:00:0{number}:01", f"fd00::1{number}/64"
    more = ip_interface(f"10.6.0.{number}/24")
    mtu = 4000 if number == 1 else None
    return Card("eth1", "six", f"six-{number}.1", mac, (ip_interface(address), more), mtu=mtu)

nodes = (
    Host("rs1", (lan(1, "10.0.0.1"), six(1)), ()),
    Host("rs2", (lan(2), six(2)), ()),
    Host("client", (lan(3),), ()),
    Host("router", (lan(4), six(4)), (), forwards=True),
)
plan = Plan("n", "n", Path("/"), ("lan", "six"), nodes, (), {}, b"key", "client key", Path("/"), True)
supervisor._mounts()
supervisor._keys(plan)
Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
before = len(list(Path("/proc").glob("[0-9]*")))
network.keep_quiet()
made = network.build(plan)
there = {host.name: made[host.name].namespaces for host in nodes}
after = len(list(Path("/proc").glob("[0-9]*")))

def ask(host, *words):
    done = there[host].call(run, list(words))
    return done.stdout.decode()

def veths():
    return json.loads(run(["ip", "-j", "link", "show", "type", "veth"]).stdout)

def mounts():
    rows = [row.split() for row in Path("/proc/thread-self/mountinfo").read_text().splitlines()]
    return {row[4]: row[5].split(",")[0] for row in rows}

def write(path):
    try:
        Path(path).write_text("x")
    except OSError as refused:
        return refused.strerror
    return "written"

def served(server, client, address, family):
    with there[server].call(socket.create_server, (address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        with there[client].call(socket.create_connection, (address, port), 5):
            listener.settimeout(5)
            connection, (seen, *_) = listener.accept()
            connection.close()
            return seen

# The kernel notices a little later that a card has a partner, and makes its own IPv6 address then.
deadline = time.monotonic() + 10
while time.monotonic() < deadline and not (
    all(link["operstate"] == "UP" for link in veths())
    and "fe80" in ask("rs1", "ip", "-o", "address", "show", "eth1")
):
    time.sleep(0.01)

places = sys.argv[1:]
print(json.dumps({
    "new processes": after - before,
    "links": {host: json.loads(ask(host, "ip", "-j", "address")) for host in there},
    "bridges": veths(),
    "routes": {host: json.loads(ask(host, "ip", "-j", "route", "show", "default")) for host in there},
    "forwarding": {
        host: ask(host, "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
        for host in there
    },
    "seen": [
        served("rs1", "client", "10.0.0.11", socket.AF_INET),
        served("rs1", "rs2", "fd00::11", socket.AF_INET6),
    ],
    "mounts": there["rs1"].call(mounts),
    "written": {place: there["rs1"].call(write, place) for place in places},
    "on the other": [place for place in places if there["rs2"].call(os.path.exists, place)],
    "on the machine": [place for place in places if os.path.exists(place)],
    "authorized": there["rs2"].call(Path("~/.ssh/authorized_keys").expanduser().read_text),
    "shell": [
        made["rs1"].shell is None,
        made["rs1"].cmd("ip -color=never -o address show eth0"),
        made["lan"].cmd("echo here"),
    ],
    "shells": len(list(Path("/proc").glob("[0-9]*"))) - after,
    "popen": made["rs2"].pexec("ip", "-o", "address", "show", "eth0"),
    "entrance": run([*there["client"].entrance, "ip", "-o", "address", "show", "eth0"]).stdout.decode(),
}))
sys.stdout.flush()
os._exit(0)
"""

MARK = f"lvslab-{os.getpid()}"
WRITABLE = [f"{folder}/{MARK}" for folder in ("/etc", "/root", "/var/log", "/tmp", "/dev/shm")]
READ_ONLY = [f"{folder}/{MARK}" for folder in ("/usr", "/usr/local/bin", "/dev", "")]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("namespaces take root")
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    done = subprocess.run(
        [*unshare, sys.executable, "-P", "-c", _PROGRAM, *WRITABLE, *READ_ONLY],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("this machine lets nobody make namespaces")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def addresses(found: dict[str, Any], host: str) -> dict[str, list[str]]:
    """The addresses of each interface of a host, but for those that the kernel makes itself."""
    return {
        link["ifname"]: [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"]]
        for link in found["links"][host]
    }


def test_no_process_holds_a_host(found: dict[str, Any]) -> None:
    assert found["new processes"] == 0


def test_cards_have_their_addresses_and_macs(found: dict[str, Any]) -> None:
    assert addresses(found, "client") == {"lo": ["127.0.0.1/8", "::1/128"], "eth0": ["10.0.0.13/24"]}
    rs1 = addresses(found, "rs1")
    assert rs1["eth0"] == ["10.0.0.11/24"]
    # On a network of IPv6 the kernel makes addresses of its own, as on any machine.
    assert set(rs1["eth1"]) == {"fd00::11/64", "10.6.0.1/24", "fe80::4c:56ff:fe00:101/64"}
    macs = {link["ifname"]: link["address"] for link in found["links"]["rs1"]}
    assert (macs["eth0"], macs["eth1"]) == ("02:4c:56:00:01:00", "02:4c:56:00:01:01")
    assert all("UP" in link["flags"] for links in found["links"].values() for link in links)


def test_every_port_is_in_its_bridge(found: dict[str, Any]) -> None:
    ports = {link["ifname"]: (link["master"], link["operstate"]) for link in found["bridges"]}
    lan = {f"lan-{number}.0": ("lan", "UP") for number in (1, 2, 3, 4)}
    assert ports == lan | {f"six-{number}.1": ("six", "UP") for number in (1, 2, 4)}


def test_a_card_has_its_mtu_and_a_port_the_largest_of_its_network(found: dict[str, Any]) -> None:
    cards = {
        (host, link["ifname"]): link["mtu"]
        for host, links in found["links"].items()
        for link in links
        if link["ifname"] != "lo"
    }
    assert cards.pop(("rs1", "eth1")) == 4000
    assert {*cards.values()} == {1500} and len(cards) == 6
    ports = {link["ifname"]: link["mtu"] for link in found["bridges"]}
    lan = {f"lan-{number}.0": 1500 for number in (1, 2, 3, 4)}
    assert ports == lan | {f"six-{number}.1": 4000 for number in (1, 2, 4)}


def test_hosts_reach_one_another(found: dict[str, Any]) -> None:
    assert found["seen"] == ["10.0.0.13", "fd00::12"]


def test_a_host_has_the_default_route_that_it_is_given(found: dict[str, Any]) -> None:
    (route,) = found["routes"]["rs1"]
    assert (route["gateway"], route["dev"]) == ("10.0.0.1", "eth0")
    assert found["routes"]["client"] == []


def test_only_routers_forward_whatever_the_machine_does(found: dict[str, Any]) -> None:
    said = {host: text.split() for host, text in found["forwarding"].items()}
    never = ["0", "0"]
    assert said == {"rs1": never, "rs2": never, "client": never, "router": ["1", "1"]}


def test_all_but_the_lab_s_own_mounts_is_read_only(found: dict[str, Any]) -> None:
    lab = {"/proc", "/proc/sys/net", "/sys", "/run", "/run/lvslab/layer", "/dev/pts"}
    layered = {"/etc", "/root", "/home", "/var", "/srv", "/opt", "/tmp", "/dev/shm"}
    writable = {place for place, access in found["mounts"].items() if access == "rw"}
    assert found["mounts"]["/"] == found["mounts"]["/proc/sys"] == "ro"
    assert writable <= lab | layered
    assert {"/etc", "/var", "/tmp", "/run"} <= writable


def test_what_a_host_writes_is_its_own(found: dict[str, Any]) -> None:
    assert {place: found["written"][place] for place in WRITABLE} == dict.fromkeys(WRITABLE, "written")
    refused = dict.fromkeys(READ_ONLY, "Read-only file system")
    assert {place: found["written"][place] for place in READ_ONLY} == refused
    assert (found["on the other"], found["on the machine"]) == ([], [])
    assert not any(map(os.path.exists, WRITABLE))


def test_the_lab_s_key_opens_a_host(found: dict[str, Any]) -> None:
    assert found["authorized"] == "client key\n"


def test_a_node_of_mininet_s_has_a_shell_when_it_is_asked_for(found: dict[str, Any]) -> None:
    none_yet, there, here = found["shell"]
    assert none_yet
    assert "inet 10.0.0.11/24" in there
    assert here.strip() == "here"
    assert found["shells"] == 2
    out, _, status = found["popen"]
    assert "inet 10.0.0.12/24" in out
    assert status == 0


def test_mininet_is_imported_without_setuptools() -> None:
    program = "import sys, lvslab.boot.net.network; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert {"mininet.net"} <= {*done.stdout.split()}
    assert not {"setuptools", "distutils.version"} & {*done.stdout.split()}


@pytest.mark.parametrize(
    ("limits", "set_to"),
    [
        ((1024, 4096), (2512, 4096)),
        ((1024, resource.RLIM_INFINITY), (2512, resource.RLIM_INFINITY)),
        ((2512, 4096), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_many_hosts_need_many_descriptors(
    limits: tuple[int, int], set_to: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[int, int]] = []
    monkeypatch.setattr(network.resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(network.resource, "setrlimit", lambda _, wanted: chosen.append(wanted))
    network._allow_descriptors(2000)
    assert chosen == ([] if set_to is None else [set_to])


def test_a_machine_that_does_not_allow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.resource, "getrlimit", lambda _: (1024, 2048))
    with pytest.raises(MachineError, match="need 2512 open files, and this machine allows 2048"):
        network._allow_descriptors(2000)


def test_a_program_starts_in_a_host(found: dict[str, Any]) -> None:
    assert "inet 10.0.0.13/24" in found["entrance"]
