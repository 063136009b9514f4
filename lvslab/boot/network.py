"""The lab's networks and hosts, made with Mininet inside the supervisor's own namespaces."""

from __future__ import annotations

from pathlib import Path

from lvslab.boot.light_mininet import Intf, LinuxBridge, Mininet, Node
from lvslab.boot.plan import Host, Plan, host_setup
from lvslab.boot.taps import ip_batch
from lvslab.errors import BootError

_DONE = "lvslab: host is set up"


class Bridge(LinuxBridge):  # type: ignore[misc]
    """A LinuxBridge whose ports are told by list and not by name, and which needs one command for all of
    them."""

    def start(self, _controllers: object) -> None:
        ports = [interface.name for interface in self.intfList() if interface.name != "lo"]
        lines = [f"link add {self.name} type bridge stp_state 0 forward_delay 0"]
        lines += [f"link set {port} master {self.name} up" for port in ports]
        ip_batch([*lines, f"link set {self.name} up"])


def keep_quiet() -> None:
    """Keep the lab's own namespace from talking on its bridges: no IPv6 of its own, no forwarding, no
    firewall."""
    for setting, value in (
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/ipv4/ip_forward", "0"),
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ("net/bridge/bridge-nf-call-arptables", "0"),
    ):
        file = Path("/proc/sys") / setting
        if file.exists():
            file.write_text(value)


def build(plan: Plan) -> Mininet:
    """Make the bridges and hosts of ``plan`` and connect them, taps included. Raises BootError."""
    # Its ``init`` sets limits of the whole machine, and nothing puts them back.
    Mininet.inited = True
    network = Mininet(controller=None, switch=Bridge, build=False)
    # Mininet wants an OpenFlow number for every switch, and derives one only from names such as s1.
    bridges = {name: network.addSwitch(name, dpid=f"{n:x}") for n, name in enumerate(plan.networks, start=1)}
    for guest in plan.guests:
        for card in guest.cards:
            Intf(card.port, node=bridges[card.network])
    for host in plan.hosts:
        node = network.addHost(host.name, cls=Node, ip=None)
        for card in host.cards:
            network.addLink(
                node, bridges[card.network], intfName1=card.name, intfName2=card.port, addr1=card.mac
            )
    for bridge in bridges.values():
        bridge.start([])
    for host in plan.hosts:
        _set_up(network.get(host.name), host)
    return network


def _set_up(node: Node, host: Host) -> None:
    # One shell script in one go, ended by a line of its own; the prompt that Mininet waits for comes after
    # it.
    script = Path(f"/run/lvslab/nodes/{host.name}/setup.sh")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"set -e\n{host_setup(host)}\necho '{_DONE}'\n")
    said = node.cmd(f"sh {script}")
    if _DONE not in said:
        raise BootError(
            f"the host {host.name} could not be set up", said.strip() or "its shell said nothing"
        )
