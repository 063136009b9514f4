"""Networks of both families, a router, routes and an MTU, as they are inside of the nodes."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lvslab.boot.net import host_kernel
from lvslab.kernel import store

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

OLD = "2.4.37.11"
STORE = [kernel for kernel in store.installed() if kernel.name.startswith(f"{OLD}-")]

LAB = """title: Clients behind a router, and two families everywhere
networks:
  outside: {subnet: [192.0.2.0/24, "2001:db8::/64"]}
  transit: {subnet: [10.1.0.0/24, "fd01::/64"]}
  lan: {subnet: ["fd00::/64", 10.0.0.0/24]}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0:
        network: transit
        address: [10.1.0.1, "fd01::1", 10.9.9.9/32, "fd09::9/128"]
        gateway: [10.1.0.254, "fd01::fe"]
      eth1: {network: lan, address: ["fd00::1", 10.0.0.1], mtu: 1400}
    routes:
      - {to: 10.3.0.0/16, via: 10.0.0.100}
      - {to: "fd03::/64", via: "fd00::100"}
  edge:
    role: router
    interfaces:
      eth0: {network: outside, address: [192.0.2.1, "2001:db8::1"]}
      eth1: {network: transit, address: [10.1.0.254, "fd01::fe"]}
    routes:
      - {to: 10.9.9.9/32, via: 10.1.0.1}
      - {to: "fd09::9/128", via: "fd01::1"}
  real-server:
    role: real-server
    count: 2
    interfaces:
      eth0:
        network: lan
        address: [10.0.0.100, "fd00::100"]
        gateway: ["fd00::1", 10.0.0.1]
        mtu: 1400
    services: [{kind: http}]
  client:
    role: client
    interfaces:
      eth0:
        network: outside
        address: [192.0.2.10, "2001:db8::10"]
        gateway: [192.0.2.1, "2001:db8::1"]
"""
HOWTO = """# A service of each family

```sh node=director
echo 1 > /proc/sys/net/ipv4/ip_forward
if [ -e /proc/net/if_inet6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; fi
ipvsadm -A -t 10.9.9.9:80 -s rr
ipvsadm -a -t 10.9.9.9:80 -r 10.0.0.100:80 -m
ipvsadm -a -t 10.9.9.9:80 -r 10.0.0.101:80 -m
```
"""
SIX = (
    "ipvsadm -A -t [fd09::9]:80 -s rr",
    "ipvsadm -a -t [fd09::9]:80 -r [fd00::100]:80 -m",
    "ipvsadm -a -t [fd09::9]:80 -r [fd00::101]:80 -m",
)
GET = (
    "import urllib.request; print(urllib.request.urlopen('http://{}/', timeout=10).headers['X-Real-Server'])"
)


def addresses(run: Runner, name: str, node: str, card: str) -> set[str]:
    """The addresses of a card, without those that the kernel makes itself."""
    said = run.execute(name, node, f"busybox ip address show dev {card} || ip address show dev {card}")
    rows = (line.split() for line in said.splitlines())
    return {row[1] for row in rows if row[:1] in (["inet"], ["inet6"]) and not row[1].startswith("fe80")}


def served(run: Runner, name: str, address: str) -> set[str]:
    """The servers of two requests in turn for a page."""
    asking = f'/usr/bin/python3 -c "{GET.format(address)}"'
    return {*run.execute(name, "client", f"{asking} && {asking}").splitlines()}


@pytest.mark.parametrize(
    ("kernel", "router"),
    [
        ("debian-cloud", ""),
        pytest.param("debian-cloud", "debian-cloud", marks=pytest.mark.slow),
        (OLD, OLD),
    ],
    ids=["router is a host", "router is a guest", "old guests"],
)
def test_nodes_have_what_the_lab_says(
    kernel: str, router: str, run: Runner, names: Names, tmp_path: Path
) -> None:
    if OLD in (kernel, router) and not STORE:
        pytest.skip(f"there is no {OLD} in the store: ./run kernel.build {OLD}")
    own = f"role: router\n    kernel: {router}\n" if router else "role: router\n"
    lab = tmp_path / "both"
    lab.mkdir()
    (lab / "lab.yaml").write_text(LAB.replace("role: router\n", own))
    (lab / "howto.md").write_text(HOWTO)
    name = names()
    said = json.loads(run("lab.up", str(lab), "--name", name, "--kernel", kernel, "--json").stdout)
    assert said["distribution"] == {f"real-server-{n}": {"expected": 6, "observed": 6} for n in (1, 2)}
    listed = said["nodes"]["director"]
    assert listed["addresses"] == {"eth0": "10.1.0.1", "eth1": "fd00::1"}
    assert listed["all_addresses"]["eth0"] == ["10.1.0.1", "fd01::1", "10.9.9.9", "fd09::9"]
    old = kernel == OLD
    six = (lambda *found: set()) if old else (lambda *found: {*found})
    # What is inside of the nodes.
    vips = {"10.1.0.1/24", "10.9.9.9/32"} | six("fd01::1/64", "fd09::9/128")
    assert addresses(run, name, "director", "eth0") == vips
    assert addresses(run, name, "director", "eth1") == {"10.0.0.1/24"} | six("fd00::1/64")
    assert addresses(run, name, "edge", "eth1") == {"10.1.0.254/24"} | six("fd01::fe/64")
    assert addresses(run, name, "real-server-2", "eth0") == {"10.0.0.101/24", "fd00::101/64"}
    for node, card, mtu in (
        ("real-server-1", "eth0", 1400),
        ("client", "eth0", 1500),
        ("director", "eth0", 1500),
        ("director", "eth1", 1400),
    ):
        about = run.execute(name, node, f"busybox ip link show dev {card} || ip link show dev {card}")
        assert f"mtu {mtu} " in about
    routes = run.execute(name, "director", "busybox ip route")
    assert "default via 10.1.0.254 dev eth0" in routes
    assert "10.3.0.0/16 via 10.0.0.100 dev eth1" in routes
    settings = "cat /proc/sys/net/ipv4/ip_forward; cat /proc/sys/net/ipv6/conf/all/forwarding 2>/dev/null; :"
    assert run.execute(name, "edge", settings).split() == (["1"] if old else ["1", "1"])
    assert run.execute(name, "client", settings).split() == ["0", "0"]
    if not old:
        routes = run.execute(name, "director", "ip -6 route")
        assert "default via fd01::fe dev eth0" in routes
        assert "fd03::/64 via fd00::100 dev eth1" in routes
        for command in SIX:
            run.execute(name, "director", command)
        assert served(run, name, "[fd09::9]") == {"real-server-1", "real-server-2"}
    assert served(run, name, "10.9.9.9") == {"real-server-1", "real-server-2"}


IMPAIRED = LAB.replace(
    'address: [192.0.2.1, "2001:db8::1"]', 'address: [192.0.2.1, "2001:db8::1"], loss: 100'
).replace('"fd01::fe"]}', '"fd01::fe"], delay: 20ms, rate: 10mbit}')


@pytest.mark.slow
def test_a_router_that_is_a_guest_impairs_packets(run: Runner, names: Names, tmp_path: Path) -> None:
    lab, name = tmp_path / "impaired", names()
    lab.mkdir()
    (lab / "lab.yaml").write_text(
        IMPAIRED.replace("role: router\n", "role: router\n    kernel: debian-cloud\n")
    )
    (lab / "howto.md").write_text("# Nothing is typed\n\n```sh node=client\ntrue\n```\n")
    run("lab.up", str(lab), "--name", name)
    said = run.execute(name, "edge", "tc qdisc show dev eth1")
    assert "netem 1: root" in said and "delay 20ms" in said
    assert "tbf 10: parent 1:1 rate 10Mbit burst 12500b" in said
    # What the client sends arrives; of the answers all are lost, those of ARP among them.
    asking = "import socket; print(socket.socket().connect_ex(('10.1.0.1', 80)))"
    assert run.execute(name, "client", f'/usr/bin/python3 -c "{asking}"') == str(errno.EHOSTUNREACH)
    counted = run.execute(name, "edge", "tc -s qdisc show dev eth0")
    assert "loss 100%" in counted
    assert int(counted.split("dropped ")[1].split(",")[0]) > 0


def test_a_machine_without_netem_says_so_at_once(run: Runner, names: Names, tmp_path: Path) -> None:
    if (kind := host_kernel.lacking(["netem", "tbf"])) is None:
        pytest.skip("this machine's kernel has netem and tbf")
    (tmp_path / "lab.yaml").write_text(IMPAIRED)
    (tmp_path / "howto.md").write_text(HOWTO)
    done = run("lab.up", f"{tmp_path}/", "--name", names(), status=2)
    line = 1 + IMPAIRED[: IMPAIRED.index("loss: 100")].count("\n")
    assert f"lab.yaml:{line}: nodes.edge.interfaces.eth0.loss: this machine's kernel" in done.stderr
    assert f"has no {kind}" in done.stderr
    assert "such as 'kernel: debian-cloud'" in done.stderr
