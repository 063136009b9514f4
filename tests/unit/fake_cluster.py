"""A running lab that is told what to answer, and one that balances requests on loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from lvslab.apply.howto import Step
from lvslab.apply.shell import ShellResult
from lvslab.apply.ssh import Executed
from lvslab.apply.transcript import StepRecord
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.net.packets import Interface
from lvslab.boot.states import State
from lvslab.boot.status import LabStatus, NodeStatus, Notes, Summary
from lvslab.check.ipvs import director
from lvslab.cluster.cluster import Cluster
from lvslab.cluster.record import Record
from lvslab.guest import calls
from lvslab.lab import loader
from lvslab.lab.directors import DirectorSpec
from lvslab.lab.model import Lab

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab

LAB = """
title: for a test
networks:
  lan: {subnet: 10.0.0.0/24}
  outer: {subnet: 127.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces:
      eth0: {network: outer, address: 127.0.0.1}
      eth1: {network: lan, address: 10.0.0.1}
  rs1:
    role: real-server
    interfaces: {eth0: {network: lan, address: 10.0.0.100, gateway: 10.0.0.1}}
    services: [{kind: http, port: 80}]
  rs2:
    role: real-server
    interfaces: {eth0: {network: lan, address: 10.0.0.101, gateway: 10.0.0.1}}
    services: [{kind: http, port: 80}]
  client:
    role: client
    interfaces: {eth0: {network: outer, address: 127.0.0.9}}
"""


def lab_in(folder: Path, text: str = LAB) -> Lab:
    """Write ``text`` into the lab.yaml of ``folder``, and load it."""
    (folder / "lab.yaml").write_text(text)
    return loader.load(folder)


@cache
def usual_lab() -> Lab:
    """Return the lab LAB; its folder is gone."""
    with TemporaryDirectory() as folder:
        return lab_in(Path(folder))


def call_log(steps: Sequence[Step], node: str) -> str:
    """Return the log of the calls of ipvsadm in plain steps on ``node``, which may set variables."""
    log, variables = f"{calls.MARK}:{calls.LOG}\n", dict[str, str]()
    for step in steps:
        for line in Template(step.command).safe_substitute(variables).splitlines() * (step.node == node):
            program, *arguments = shlex.split(line, comments=True) or [""]
            name, _, value = program.partition("=")
            variables |= {name: value} if name.isidentifier() else {}
            if program == "ipvsadm":
                words = "\t".join(arguments)
                log += f"{calls.MARK}{step.number}\t{words}\n{calls.MARK}{step.number}=0\n"
    return log


@dataclass
class FakeShell:
    """The shell of a node of a FakeCluster."""

    cluster: FakeCluster
    node: str

    def run(self, command: str, timeout: float) -> ShellResult:
        """Answer a step as the cluster's ``results`` say, else with status 0."""
        self.cluster.log.append(f"{self.node}: {command}")
        result = self.cluster.results.get(command, ShellResult("", 0, 0.25))
        if isinstance(result, BaseException):
            raise result
        return result

    @contextmanager
    def shell(self) -> Iterator[FakeShell]:
        """Stand for the connection, too."""
        yield self


@dataclass(eq=False)
class FakeCluster:
    """A running lab whose nodes answer from tables, and which logs what is done with it.

    ``asked`` are the node and the command of each observation, and ``answers`` what each command prints
    then. ``results`` are how steps end (exceptions are raised), ``requests`` the lines of the access logs by
    node, and ``notes`` what was noted.
    """

    lab: Lab = field(default_factory=usual_lab)
    name: str = "a"
    steps: tuple[Step, ...] = ()
    evidence: Path = Path("/nonexistent")
    versions: Mapping[str, str] = field(default_factory=lambda: {"kernel": "6.1.0", "ipvsadm": "1.31"})
    spec: DirectorSpec = field(default_factory=DirectorSpec)
    answers: dict[str, str] = field(default_factory=dict)
    results: dict[str, ShellResult | BaseException] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
    asked: list[tuple[str, str]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    stays: bool = False
    applied: Any = None
    copyable: tuple[Any, ...] = ()

    def __enter__(self) -> Self:
        self.log.append("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append("leave")

    @property
    def record(self) -> Record:
        return Record(self.lab, self.steps, self.evidence, self.versions, self.spec)

    def is_enterable(self, node: str) -> bool:
        return node not in self.lab.directors

    def observe(self, node: str, command: str) -> str:
        """Answer the commands of a line that echoes a mark between each two of them."""
        self.asked.append((node, command))
        if command == calls.END_STEPS:
            return ""
        if command == calls.READ_SHORT:
            return call_log(self.steps, node)
        parts = command.split(" && ")
        marks = {part.removeprefix("echo '").removesuffix("'") for part in parts[1::2]}
        assert len(marks) <= 1, command
        return "".join(f"{mark}\n" for mark in marks).join(self.prints(node, part) for part in parts[::2])

    def prints(self, node: str, command: str) -> str:
        """Return what a single command prints where lvslab looks."""
        return self.answers[command]

    def execute(self, node: str, command: str, *, timeout: float | None = 30.0) -> Executed:
        raise AssertionError(f"{command} on {node}: to look at a node takes no login")

    def connect(self, node: str) -> FakeShell:
        return FakeShell(self, node)

    def apply(
        self, report: Callable[[StepRecord], None] = lambda _: None, *, without: Sequence[str] = ()
    ) -> Summary:
        """Take the steps as a cluster does, with its own transcript."""
        return Cluster.apply(self, report, without=without)  # type: ignore[arg-type]

    def copy(self, summary: Summary) -> Any:
        raise AssertionError("nothing is to be copied")

    def capture(self, node: str, *, room: int, first: int = 0) -> list[Interface]:
        return []

    def access_log(self, node: str, kind: str = "http") -> str:
        return "".join(f"{line}\n" for line in self.requests.get(node, []))

    def namespaces(self, node: str) -> Namespaces:
        """Return descriptors of this process's own namespaces; the caller closes them."""
        return Namespaces(*(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")))

    def status(self) -> LabStatus:
        states = {
            name: NodeStatus("guest" if node.role == "director" else "host", State.UP, "up", role=node.role)
            for name, node in self.lab.nodes.items()
        }
        return LabStatus(
            lab=self.lab.name,
            name=self.name,
            folder=str(self.lab.folder),
            evidence=str(self.evidence),
            started=0.0,
            ready=True,
            nodes=states,
            accelerator="tcg",
            versions=self.versions,
            spec=self.spec,
            notes=self.notes,
        )

    def note(self, notes: Notes) -> None:
        new = {name: value for name, value in vars(notes).items() if value is not None}
        self.notes = replace(self.notes, **new)

    def keep(self) -> None:
        self.log.append("keep")

    def stop_node(self, node: str) -> None:
        self.log.append(f"stop {node}")

    def stop_service(self, node: str) -> None:
        self.log.append(f"stop service of {node}")

    def start_service(self, node: str) -> None:
        self.log.append(f"start service of {node}")


_LISTING_HEAD = (
    "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
)
_STATS_HEAD = (
    "IP Virtual Server version 1.2.1 (size=4096)\n"
    "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n"
    "  -> RemoteAddress:Port\n"
)
COMMANDS = (
    "ipvsadm -A -t 127.0.0.1:PORT -s wlc",
    "ipvsadm -a -t 127.0.0.1:PORT -r 10.0.0.100:80 -m",
    "ipvsadm -a -t 127.0.0.1:PORT -r 10.0.0.101:80 -m -w 2",
)
_ENTRIES_HEAD = "IPVS connection entries\npro expire state source virtual destination\n"


@dataclass(eq=False)
class LoopbackCluster(FakeCluster):
    """A cluster that is one listening socket, which does what a director and two servers do together.

    ``inactive`` counts connections by real server; ``turns`` are the addresses of servers that get the next
    ones, instead of wlc's.
    """

    port: int = 0
    inactive: dict[str, int] = field(default_factory=lambda: {"10.0.0.100": 0, "10.0.0.101": 0})
    weights: dict[str, int] = field(default_factory=lambda: {"10.0.0.100": 1, "10.0.0.101": 2})
    entries: list[tuple[str, str]] = field(default_factory=list)
    forgets: list[str] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    elsewhere: str = ""
    ip_forward: int = 1
    quiescent: int = 0

    def __post_init__(self) -> None:
        self.retype(*COMMANDS)

    def retype(self, *commands: str) -> None:
        """Let these be the director's steps, with PORT for that of the socket."""
        typed = (command.replace("PORT", str(self.port)) for command in commands)
        self.steps = tuple(Step(number, "director", command, 0) for number, command in enumerate(typed, 1))

    def serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        """Answer one request as the server that the director chooses."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(65536)
        # The server with the fewest connections for its weight; of equals the one that was added last.
        server = (
            self.turns.pop(0)
            if self.turns
            else min(
                reversed(self.weights), key=lambda address: self.inactive[address] / self.weights[address]
            )
        )
        name = "rs1" if server == "10.0.0.100" else "rs2"
        found = re.search(rb"X-Request-ID: (\S+)", request)
        assert found
        row = {"time": 1.0, "request_id": found[1].decode(), "client": peer[0], "client_port": str(peer[1])}
        line = json.dumps({**row, "status": 200, "path": "/", "server": name})
        self.requests.setdefault(name, []).append(line)
        self.inactive[server] += 1
        self.entries.append((f"{peer[0]}:{peer[1]}", f"{server}:80"))
        if self.forgets:
            self.inactive[self.forgets.pop()] -= 1
        head = f"HTTP/1.1 200 OK\r\nX-Real-Server: {name}\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(head.encode())

    def prints(self, node: str, command: str) -> str:
        assert node == "director"
        if command.startswith("cat /proc/uptime"):
            return "9.50 1.20\n"
        if "expire_nodest_conn" in command:
            return "0\n"
        if command.startswith(("iptables-save -c", "ip neigh show", "ip -o link show")):
            return ""
        if command.startswith("ip route get ") and "127.0.0.1 " not in command:
            return f"{command.split()[3]} dev eth1 src 10.0.0.1\n"
        vip = f"127.0.0.1:{self.port}"
        rules, listing, stats = f"-A -t {vip} -s wlc\n", f"TCP  {vip} wlc\n", f"TCP  {vip} 0 0 0 0 0\n"
        for server, weight in self.weights.items():
            count = self.inactive[server]
            rules += f"-a -t {vip} -r {server}:80 -m -w {weight}\n"
            listing += f"  -> {server}:80  Masq  {weight}  0  {count}\n"
            stats += f"  -> {server}:80  {count} 0 0 0 0\n"
        entries = "".join(f"TCP 01:58 TIME_WAIT {source} {vip} {to}\n" for source, to in self.entries)
        return {
            "ipvsadm -Sn": rules,
            "ipvsadm -Ln --thresholds": "",
            "ipvsadm -Ln": _LISTING_HEAD + listing,
            "ipvsadm -Ln --stats --exact": _STATS_HEAD + stats,
            "ip -o addr show 2>&1; :": "1: lo inet 127.0.0.1/8 scope host lo\n2: eth1 inet 10.0.0.1/24\n",
            "ip route get 127.0.0.1 2>&1; :": "local 127.0.0.1 dev lo src 127.0.0.1\n",
            "cat /proc/net/netstat 2> /dev/null; :": "TcpExt: IPReversePathFilter\nTcpExt: 0\n",
            director.ENTRIES: _ENTRIES_HEAD + entries + self.elsewhere,
            "cat /proc/sys/net/ipv4/ip_forward": f"{self.ip_forward}\n",
            "{ cat /proc/sys/net/ipv4/vs/expire_quiescent_template 2> /dev/null || echo 0; }": (
                f"{self.quiescent}\n"
            ),
            "cat /proc/net/ip_vs": f"TCP  7F000001:{self.port:04X} wlc\n"
            + "".join(
                f"  -> {int(ip_address(server)):08X}:0050  Masq  1  0  0\n"
                for server in reversed(self.weights)
            ),
        }[command]


@contextmanager
def loopback_cluster(lab: Lab) -> Iterator[LoopbackCluster]:
    """Serve a cluster of ``lab`` (see LAB) on loopback."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            cluster.serve(self.request, self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        cluster = LoopbackCluster(lab, port=server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield cluster
        finally:
            server.shutdown()
            thread.join()


def check_types(fake: FakeCluster, cluster: Cluster) -> tuple[RunningLab, ...]:
    """Have mypy compare both with the interface that checks are given."""
    return fake, cluster
