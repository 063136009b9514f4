from __future__ import annotations

import errno
import os
import pickle
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from lvslab.boot import plan
from lvslab.boot.plan import Boot, Card, Guest, Host, Route
from lvslab.lab import loader
from lvslab.lab.model import HttpService, Lab

LAB = """
title: for a test
networks:
  internet: {subnet: 192.0.2.0/24}
  lan: {subnet: 10.0.0.0/24}
  six: {subnet: fd00::/64}
nodes:
  client:
    role: client
    interfaces:
      eth0: {network: internet, address: 192.0.2.9}
  director:
    role: director
    kernel: debian-cloud
    memory: 256
    interfaces:
      eth0: {network: internet, address: 192.0.2.1, gateway: 192.0.2.254}
      eth1: {network: lan, address: 10.0.0.1}
      eth2: {network: six, address: "fd00::1"}
  spare:
    role: director
    kernel: debian-cloud
    interfaces:
      outer: {network: internet, address: 192.0.2.2}
  rs1:
    role: real-server
    interfaces:
      eth0: {network: lan, address: 10.0.0.100, gateway: 10.0.0.1}
      eth1: {network: six, address: "fd00::100", gateway: "fd00::1"}
    services: [{kind: http, port: 80}, {kind: http, port: 8080}]
"""
BOOT = Boot(Path("/k/vmlinuz"), "6.1.0", Path("/k/image.cpio"), "identity")


def read(folder: Path, text: str) -> Lab:
    (folder / "lab.yaml").write_text(text)
    return loader.load(folder)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return read(tmp_path, LAB)


def guests(lab: Lab) -> tuple[Guest, ...]:
    return plan.guests_of(lab, dict.fromkeys(lab.directors, BOOT))


def test_hosts_are_the_nodes_that_are_no_directors(lab: Lab) -> None:
    client, server = plan.hosts_of(lab)
    assert client == Host(
        "client",
        (
            Card(
                "eth0",
                "internet",
                "internet-0.0",
                "02:4c:56:00:00:00",
                (ip_interface("192.0.2.9/24"),),
            ),
        ),
        (),
    )
    assert server.services == (HttpService(), HttpService(port=8080))
    assert [*map(str, (each for card in server.cards for each in card.addresses))] == [
        "10.0.0.100/24",
        "fd00::100/64",
    ]
    gateways = map(ip_address, ("10.0.0.1", "fd00::1"))
    assert [card.routes for card in server.cards] == [(Route("default", each),) for each in gateways]


def test_guests_are_the_directors(lab: Lab) -> None:
    director, spare = guests(lab)
    assert (director.name, director.memory, spare.memory) == ("director", 256, 192)
    assert director.boot == spare.boot == BOOT
    assert [card.name for card in director.cards] == ["eth0", "eth1", "eth2"]
    assert director.management.server == ("169.254.100.2", 22)
    assert spare.management.server == ("169.254.100.6", 22)


def test_nothing_has_the_name_or_the_mac_of_something_else(lab: Lab) -> None:
    nodes = [*plan.hosts_of(lab), *guests(lab)]
    cards = [card for node in nodes for card in node.cards]
    ways = [guest.management for guest in guests(lab)]
    interfaces = [card.port for card in cards] + [way.tap for way in ways] + list(lab.networks)
    macs = [card.mac for card in cards] + [way.mac for way in ways]
    assert len(set(interfaces)) == len(interfaces)
    assert len(set(macs)) == len(macs)
    # Linux takes at most 15 characters for an interface, and a locally administered unicast MAC ends in 2.
    assert all(len(name) <= 15 for name in interfaces)
    assert all(mac.startswith("02:") and len(mac) == 17 for mac in macs)


@pytest.mark.parametrize("number", [0, 1, 63, 64, 200])
def test_the_ends_of_a_management_network_meet(number: int) -> None:
    way = plan._management(number)
    here, there = way.here, way.there
    assert here.network == there.network
    assert here.network.prefixlen == 30
    assert here.ip + 1 == there.ip
    # Link-local (RFC 3927): no lab's network, unless it asks for trouble.
    assert there.ip.is_link_local
    assert {here.ip, there.ip} == set(here.network.hosts())


@pytest.mark.parametrize("name", ["manage0", "lo"])
def test_a_network_whose_name_the_lab_needs_itself(tmp_path: Path, name: str) -> None:
    try:
        lab = read(tmp_path, LAB.replace("lan:", f"{name}:").replace("network: lan", f"network: {name}"))
    except loader.LabFileError:
        return
    assert not {name} & {"lo", *(guest.management.tap for guest in guests(lab))}


def test_a_plan_travels_whole(lab: Lab) -> None:
    whole = (plan.hosts_of(lab), guests(lab))
    assert pickle.loads(pickle.dumps(whole)) == whole


def test_addresses_before_routes(lab: Lab) -> None:
    _, server = plan.hosts_of(lab)
    assert plan.ip_lines(server.cards) == [
        "address add 10.0.0.100/24 dev eth0",
        "link set eth0 up",
        "address add fd00::100/64 dev eth1 nodad",
        "link set eth1 up",
        "route add default via 10.0.0.1 dev eth0",
        "route add default via fd00::1 dev eth1",
    ]
    assert plan.ip_lines(()) == []


BOTH = """
title: for a test
networks:
  lan: {subnet: [10.0.0.0/24, "fd00::/64"]}
  far: {subnet: 192.0.2.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0:
        network: lan
        address: ["fd00::1", 10.0.0.1, 10.9.9.9/32]
        gateway: ["fd00::9", 10.0.0.9]
        mtu: 1400
      eth1: {network: far, address: 192.0.2.1}
    routes:
      - {to: 10.3.0.0/16, via: 10.0.0.2}
      - {to: 10.4.0.0/16, via: 192.0.2.4}
      - {to: "fd03::/64", via: "fd00::2"}
  web:
    role: real-server
    interfaces:
      eth0: {network: lan, address: [10.0.0.2, "fd00::2"], mtu: 4000}
    routes: [{to: "fd03::/64", via: "fd00::3"}]
"""


@pytest.fixture
def both(tmp_path: Path) -> Lab:
    return read(tmp_path, BOTH)


def test_a_host_of_both_families(both: Lab) -> None:
    (web,) = plan.hosts_of(both)
    assert plan.ip_lines(web.cards) == [
        "address add 10.0.0.2/24 dev eth0",
        "address add fd00::2/64 dev eth0 nodad",
        "link set eth0 up",
        "route add fd03::/64 via fd00::3 dev eth0",
    ]


def test_a_guest_of_both_families(both: Lab, sandbox: Sandbox) -> None:
    (director,) = guests(both)
    six = [
        "busybox ip address add fd00::1/64 dev eth0",
        "busybox ip route add default via fd00::9 dev eth0",
        "busybox ip route add fd03::/64 via fd00::2 dev eth0",
    ]
    said = [line for line in sandbox.run(director) if line.startswith("busybox ip")]
    assert said == [
        "busybox ip link set eth0 address 02:4c:56:00:00:00 mtu 1400",
        six[0],
        "busybox ip address add 10.0.0.1/24 dev eth0",
        "busybox ip address add 10.9.9.9/32 dev eth0",
        "busybox ip link set eth1 address 02:4c:56:00:00:01",
        "busybox ip address add 192.0.2.1/24 dev eth1",
        six[1],
        "busybox ip route add default via 10.0.0.9 dev eth0",
        "busybox ip route add 10.3.0.0/16 via 10.0.0.2 dev eth0",
        six[2],
        "busybox ip route add 10.4.0.0/16 via 192.0.2.4 dev eth1",
    ]
    (sandbox.root / "proc/net/if_inet6").unlink()
    without = [line for line in sandbox.run(director) if line.startswith("busybox ip")]
    assert without == [line for line in said if line not in six]


ROUTER = """
title: for a test
networks: {a: {subnet: 10.0.0.0/24}, b: {subnet: [10.1.0.0/24, "fd01::/64"]}}
nodes:
  director: {role: director, kernel: debian-cloud, interfaces: {eth0: {network: a, address: 10.0.0.1}}}
  edge:
    role: router
    kernel: debian-cloud
    interfaces:
      eth0: {network: a, address: 10.0.0.2, delay: 20ms}
      eth1: {network: b, address: [10.1.0.2, "fd01::2"], rate: 10mbit, mtu: 1400}
"""


def test_a_router_forwards_both_families(tmp_path: Path, sandbox: Sandbox) -> None:
    lab = read(tmp_path, ROUTER)
    director, edge = plan.guests_of(lab, dict.fromkeys(lab.nodes, BOOT))
    assert (director.forwards, edge.forwards) == (False, True)
    settings = ["proc/sys/net/ipv4/ip_forward", "proc/sys/net/ipv6/conf/all/forwarding"]
    for setting in settings:
        (sandbox.root / setting).parent.mkdir(parents=True, exist_ok=True)
        (sandbox.root / setting).write_text("0\n")
    (sandbox.root / "proc/sys/net/ipv6/conf/eth1").mkdir()
    sandbox.run(director)
    assert [sandbox.text(setting) for setting in settings] == ["0\n", "0\n"]
    sandbox.run(edge)
    assert [sandbox.text(setting) for setting in settings] == ["1\n", "1\n"]
    (host,) = plan.hosts_of(read(tmp_path, ROUTER.replace("router\n    kernel: debian-cloud\n", "router\n")))
    assert host.forwards


def test_a_guest_impairs_packets_by_one_program(tmp_path: Path, program: Callable[[str, str], Path]) -> None:
    lab = read(tmp_path, ROUTER)
    director, edge = plan.guests_of(lab, dict.fromkeys(lab.nodes, BOOT))
    assert plan.guest_impairments(director) == ""
    program("tc", '#!/bin/sh\necho "tc $*"; cat\n')
    order = plan.guest_impairments(edge)
    assert "\n" not in order
    said = subprocess.run(["sh", "-c", order], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["tc -batch -", *plan.tc_lines(edge.cards)]
    assert plan.tc_lines(edge.cards) == [
        "qdisc add dev eth0 root handle 1: netem limit 10000 delay 20ms",
        "qdisc add dev eth1 root handle 1: tbf rate 10mbit burst 12500 limit 137500",
    ]


def test_all_addresses_are_in_the_status(both: Lab) -> None:
    about = plan.nodes_of(both)["director"]
    assert about["addresses"] == {"eth0": "fd00::1", "eth1": "192.0.2.1"}
    assert about["all_addresses"] == {"eth0": ["fd00::1", "10.0.0.1", "10.9.9.9"], "eth1": ["192.0.2.1"]}


RECORD = """#!/bin/sh
echo "${0##*/} $*" >> "$ORDERS"
"""
SEED = "5eed" * 16


@dataclass
class Sandbox:
    """Runs a guest's set-up on files of its own in ``root``, with programs that only note how they were
    called. ``reseed`` is the script of the one that is in no PATH.
    """

    root: Path
    reseed: str = RECORD

    def run(self, guest: Guest) -> list[str]:
        """How programs were called, a line each. Raises CalledProcessError."""
        calls = self.root / "calls"
        calls.write_text("")
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (self.root / "etc/lvslab/reseed").write_text(self.reseed)
        (self.root / "etc/lvslab/reseed").chmod(0o700)
        order = plan.guest_setup(guest, seconds=1_700_000_000, seed=SEED)
        assert "\n" not in order  # it goes to the agent, which takes one line for one order
        # Its files are those of a guest, and never this machine's.
        order = re.sub(r"(?<![^ >])/", f"{self.root}/", order)
        assert not re.search(r"[^\w:]/", order.replace(str(self.root), "root")), order
        subprocess.run(["sh", "-c", order], env={**os.environ, "ORDERS": str(calls)}, check=True)
        return calls.read_text().splitlines()

    def text(self, file: str) -> str:
        """What a file holds then."""
        return (self.root / file).read_text()


@pytest.fixture
def sandbox(tmp_path: Path, program: Callable[[str, str], Path]) -> Sandbox:
    for name in ("busybox", "date", "manage", "link_up", "link_down", "ip", "hostname"):
        program(name, RECORD)
    root = tmp_path / "root"
    for folder in (
        "etc/lvslab",
        "dev",
        "proc/sys/kernel",
        "proc/sys/net/ipv6/conf/eth2",
        "proc/sys/net/ipv6/conf/eth0",
    ):
        (root / folder).mkdir(parents=True)
    (root / "proc/net").mkdir()
    (root / "proc/net/if_inet6").touch()
    return Sandbox(root)


def test_a_guest_becomes_its_node(lab: loader.Lab, sandbox: Sandbox) -> None:
    director, _ = guests(lab)
    assert sandbox.run(director) == [
        "date -u -s @1700000000",
        f"reseed {SEED}",
        # The last card is for management; the others bear the names that the kernel gave them already.
        "manage eth3 169.254.100.2/30 02:4c:56:ff:00:00",
        "busybox ip link set eth0 address 02:4c:56:00:01:00",
        "busybox ip address add 192.0.2.1/24 dev eth0",
        "link_up eth0",
        "busybox ip link set eth1 address 02:4c:56:00:01:01",
        "busybox ip address add 10.0.0.1/24 dev eth1",
        "link_up eth1",
        "busybox ip link set eth2 address 02:4c:56:00:01:02",
        "busybox ip address add fd00::1/64 dev eth2",
        "link_up eth2",
        "busybox ip route add default via 192.0.2.254 dev eth0",
    ]
    assert sandbox.text("proc/sys/kernel/hostname") == sandbox.text("etc/hostname") == "director\n"
    assert sandbox.text("etc/hosts") == "127.0.0.1 localhost\n\n127.0.1.1 director\n"
    # An address for IPv6 is usable at once, and no other card is touched.
    assert sandbox.text("proc/sys/net/ipv6/conf/eth2/accept_dad") == "0\n"


def test_a_guest_whose_kernel_has_no_ipv6_does_without(lab: loader.Lab, sandbox: Sandbox) -> None:
    (sandbox.root / "proc/net/if_inet6").unlink()
    said = sandbox.run(guests(lab)[0])
    assert "link_up eth2" in said
    assert not [line for line in said if "fd00" in line]
    assert not (sandbox.root / "proc/sys/net/ipv6/conf/eth2/accept_dad").exists()


def test_a_guest_with_a_program_for_the_clock_sets_it_by_that(lab: loader.Lab, sandbox: Sandbox) -> None:
    # Busybox's date cannot set the clock of Linux 2.4, and does not end with a status that says so.
    clock = sandbox.root / "etc/lvslab/clock"
    clock.write_text(RECORD)
    clock.chmod(0o700)
    assert sandbox.run(guests(lab)[0])[0] == "clock 1700000000"


def test_a_new_seed_goes_to_the_kernels_random_numbers(lab: loader.Lab, sandbox: Sandbox) -> None:
    sandbox.reseed = '#!/bin/sh\nprintf %s "$1"\n'
    sandbox.run(guests(lab)[0])
    assert sandbox.text("dev/urandom") == SEED


@pytest.mark.parametrize(("status", "goes_on"), [(0, True), (errno.EINVAL, True), (errno.EPERM, False)])
def test_only_a_kernel_that_knows_no_reseeding_may_go_without(
    status: int, goes_on: bool, lab: loader.Lab, sandbox: Sandbox
) -> None:
    sandbox.reseed = f"#!/bin/sh\nexit {status}\n"
    if goes_on:
        assert len(sandbox.run(guests(lab)[0])) > 2
        return
    with pytest.raises(subprocess.CalledProcessError):
        sandbox.run(guests(lab)[0])
    assert sandbox.text("calls") == "date -u -s @1700000000\n"


def card(name: str) -> Card:
    return Card(name, "lan", f"lan-{name}", "02:4c:56:00:00:00", (ip_interface("10.0.0.1/24"),))


@pytest.mark.parametrize(
    "names", [["eth0"], ["outer"], ["eth1", "eth0"], ["eth1", "eth2", "eth0"], ["eth0", "eth2", "inner"]]
)
def test_cards_get_the_names_of_the_lab(names: list[str], sandbox: Sandbox) -> None:
    cards = tuple(map(card, names))
    guest = Guest("d", cards, BOOT, 192, plan._management(0))
    current = [f"eth{number}" for number in range(len(names) + 1)]
    addressed: list[str] = []
    for line in sandbox.run(guest):
        match line.removeprefix("busybox ").split():
            case ["manage", own, *_]:
                # That card leaves for a namespace of its own, and its name is free.
                assert current.pop() == own
            case ["ip", "link", "set", old, "name", new]:
                assert new not in current, f"{line}: the name is taken"
                current[current.index(old)] = new
            case ["ip", "address", "add", _, "dev", name]:
                assert name in current
                addressed.append(name)
    assert current == addressed == names


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace takes root")
def test_the_kernel_takes_what_ip_is_told(lab: Lab) -> None:
    """In a network namespace of its own, with dummies in place of cards."""
    _, server = plan.hosts_of(lab)
    links = [f"link add {card.name} type veth peer name peer-{card.name}" for card in server.cards]
    batch = "\n".join([*links, *plan.ip_lines(server.cards)]) + "\n"
    script = "ip -batch - && ip -o address show && ip route && ip -6 route"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], input=batch.encode(), capture_output=True, check=False
    )
    if b"Operation not permitted" in done.stderr or b"Unknown device type" in done.stderr:
        pytest.skip("this machine lets nobody make a network namespace with links")
    said = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "inet 10.0.0.100/24" in said
    assert "fd00::100/64" in said
    assert "tentative" not in said
    assert "default via 10.0.0.1 dev eth0" in said
    assert "default via fd00::1 dev eth1" in said
