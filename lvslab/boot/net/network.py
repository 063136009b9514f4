"""The lab's networks and hosts: a Mininet network in the supervisor's own namespaces.

Mininet starts a shell for each node, and gives each command to one of these shells. Here a node's shell is
started by its first command, and all links are made by one ``ip``.
"""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvslab.boot.net import hosts
from lvslab.boot.net.mininet_lite import Intf, Link, Mininet, Node, Switch, numCores
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.net.taps import ip_batch
from lvslab.boot.plan import USUAL_MTU, Card, Plan, ip_lines, network_mtus, tc_lines
from lvslab.boot.plan import Host as HostPlan
from lvslab.errors import MachineError
from lvslab.run import run

_OTHER_DESCRIPTORS = 512

# A plain switch: without a spanning tree, without a delay, and without multicast snooping, which would take
# a querier, for nothing but the noise of IPv6.
_BRIDGE = "type bridge forward_delay 0 stp_state 0 mcast_snooping 0"


class _Quiet(Node):  # type: ignore[misc]
    """A Mininet node whose shell is started by the first command for it."""

    isSetup = True  # the programs that Mininet would look for are needed by shells only
    entrance: tuple[str, ...] = ()

    def startShell(self, mnopts: str | None = None) -> None:
        """Start no shell, although Mininet's constructor asks for one."""

    def sendCmd(self, *args: Any, **kwargs: Any) -> None:
        self._awaken()
        super().sendCmd(*args, **kwargs)

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        self._awaken()
        return super().cmd(*args, **kwargs)

    def popen(self, *args: Any, **kwargs: Any) -> Any:
        return super().popen(*args, **{"mncmd": [*self.entrance], **kwargs})

    def _awaken(self) -> None:
        if self.shell is None:
            super().startShell()

    def _popen(self, cmd: list[str], **params: Any) -> Any:
        # The shell itself, and nothing that runs in it.
        return super()._popen([*(self.entrance if self.shell is None else ()), *cmd], **params)


class Host(_Quiet):
    """A host. ``namespaces`` are there when the network has been built."""

    namespaces: Namespaces

    def __init__(self, name: str, **params: Any) -> None:
        # Not in a namespace that Mininet is to make for its shell.
        super().__init__(name, inNamespace=False, **params)

    @property
    def entrance(self) -> tuple[str, ...]:  # type: ignore[override]
        """The words before a command that is to run on this host."""
        return tuple(self.namespaces.entrance)


class Bridge(_Quiet, Switch):  # type: ignore[misc]
    """A Linux bridge in the lab's own namespace."""

    def __init__(self, name: str, **params: Any) -> None:
        # Past Switch, which wants a number for OpenFlow and has a shell bring lo up.
        Node.__init__(self, name, **params)


class Cable(Link):  # type: ignore[misc]
    """A link whose two ends are made together with all others."""

    @classmethod
    def makeIntfPair(cls, *_args: Any, **_kwargs: Any) -> None:
        """Make no interfaces, although Mininet's constructor asks for them."""


def keep_quiet() -> None:
    """Turn IPv6, forwarding and the bridges' firewall off in the lab's own namespace."""
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
    """Make and connect the bridges, hosts and taps of ``plan``. Raises BootError, MachineError."""
    network = _outline(plan)
    _allow_descriptors(2 * len(plan.hosts))
    directors = [name for name, about in plan.nodes.items() if about["role"] == "director"]
    made = hosts.make((host.name for host in plan.hosts), plan.resolvers, directors)
    lines = [f"link add {name} up {_BRIDGE}" for name in plan.networks]
    mtus = network_mtus(plan)
    lines += [
        f"link set {card.port} mtu {mtus[card.network]} up master {card.network}"
        for guest in plan.guests
        for card in guest.cards
    ]
    for host, there in zip(plan.hosts, made, strict=True):
        network[host.name].namespaces = there
        lines += [_cable(card, there, mtus[card.network]) for card in host.cards]
    ip_batch(lines)
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        list(workers.map(_configure, plan.hosts, (network[host.name].namespaces for host in plan.hosts)))
    return network


def _cable(card: Card, there: Namespaces, mtu: int) -> str:
    """Return the line for ``ip`` that makes a veth pair between bridge and host.

    ``mtu`` is that of the bridge's port.
    """
    # One queue each way, where the default is one for each processor that the machine might ever have.
    queues = "numtxqueues 1 numrxqueues 1"
    host = f"/proc/{os.getpid()}/fd/{there.network}"
    return (
        f"link add {card.port} up master {card.network} mtu {mtu} {queues} type veth"
        f" peer name {card.name} address {card.mac} mtu {card.mtu or USUAL_MTU} {queues} netns {host}"
    )


def _configure(host: HostPlan, there: Namespaces) -> None:
    lines = ["link set lo up"]
    if Path("/proc/sys/net/ipv6").exists():
        # Otherwise each host would announce its IPv6 addresses to all others.
        plain = [card.name for card in host.cards if not card.is_ipv6]
        lines += [f"link set {name} addrgenmode none" for name in plain]
    there.call(_set_up, [*lines, *ip_lines(host.cards)], tc_lines(host.cards), host.forwards)


def _set_up(lines: list[str], impairments: list[str], forwards: bool) -> None:
    """Set the caller's own network up; ``forwards``: it belongs to a router."""
    ip_batch(lines)
    if impairments:
        run(["tc", "-batch", "-"], input="\n".join(impairments).encode() + b"\n")
    if forwards:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        if (six := Path("/proc/sys/net/ipv6/conf/all/forwarding")).exists():
            six.write_text("1")


def _allow_descriptors(count: int) -> None:
    """Raise this process's limit of open files by ``count``. Raises MachineError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < (wanted := count + _OTHER_DESCRIPTORS):
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise MachineError(
                f"the hosts need {wanted} open files, and this machine allows {hard} to a process",
                "ulimit -Hn shows and sets how many",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _outline(plan: Plan) -> Mininet:
    """Return the network as Mininet knows it, before any of it exists."""
    # Its ``init`` would set limits of the whole machine for good.
    Mininet.inited = True
    # It would start a program to count them.
    numCores.ncores = os.cpu_count()
    network = Mininet(controller=None, switch=Bridge, host=Host, link=Cable, build=False)
    bridges = {name: network.addSwitch(name) for name in plan.networks}
    for guest in plan.guests:
        for card in guest.cards:
            Intf(card.port, node=bridges[card.network], up=None)
    for host in plan.hosts:
        node = network.addHost(host.name, ip=None)
        for card in host.cards:
            ends = {"intfName1": card.name, "intfName2": card.port, "addr1": card.mac}
            network.addLink(node, bridges[card.network], up=None, **ends)
    return network
