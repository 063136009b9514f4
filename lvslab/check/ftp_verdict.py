"""Checks of an FTP service behind a director, and the diagnosis of failures.

They work on data alone and do not use a cluster. A check that fails raises CheckFailed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from lvslab.boot.services import ftp
from lvslab.check.forwarding import method_for
from lvslab.check.forwarding.facts import ClusterFacts, Finding
from lvslab.check.ipvs.listing import Connection
from lvslab.check.ipvs.table import Forwarding, address_of, endpoint
from lvslab.check.traffic.ftp import PASSIVE, DataConnection, FtpFailed, Transfer
from lvslab.check.verdict import diagnose
from lvslab.errors import CheckFailed

_UNADJUSTED = re.compile(r"2\.6\.3[789]\b")
_EXTENDED = frozenset({"EPSV", "EPRT"})


@dataclass(frozen=True)
class Visit:
    """A complete session: ``server`` greeted; ``control`` is the client's end of the connection."""

    server: str
    control: str
    transfers: tuple[Transfer, ...] = ()


@dataclass(frozen=True)
class FtpFacts:
    """A director's state for FTP through its virtual service ``address``:``port``.

    ``forwarding`` is the service's forwarding method. ``helper_ports`` are the ports of its FTP helper, ()
    where that is not loaded. ``lacking`` says why this kernel's helper does not support EPSV, EPRT or IPv6,
    None where it does. ``entries`` are the connections that the director remembers, ``names`` the real
    servers by address, and ``kernel`` is its version.
    """

    address: str
    port: int
    forwarding: Forwarding
    helper_ports: tuple[int, ...]
    entries: tuple[Connection, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    lacking: str | None = None
    kernel: str = ""

    @property
    def virtual(self) -> str:
        """The service's endpoint in ipvsadm's form."""
        return endpoint(self.address, self.port)

    def server_of(self, client: str, virtual: str) -> str:
        """Return the real server of the connection with these ends, "" for an unknown connection."""
        ends = (client, virtual)
        return next((self.name(e.server) for e in self.entries if (e.client, e.virtual) == ends), "")

    def name(self, end: str) -> str:
        """Return the name of the real server with the address of ``end``, or that address."""
        return self.names.get(address_of(end), address_of(end))


def content_is_whole(transfers: Sequence[Transfer]) -> None:
    """Check that transfers are equal to the servers' files; only those of `boot.services.ftp.SIZES`."""
    lines = []
    for transfer in transfers:
        if (size := ftp.SIZES.get(transfer.name)) is None:
            continue
        told = f"{transfer.name} by {transfer.data.method}"
        if transfer.size != size:
            lines.append(f"{told}: {transfer.size} of {size} bytes came")
        elif transfer.sha256 != sha256(ftp.content(transfer.name)).hexdigest():
            lines.append(f"{told}: {size} bytes came, and not the right ones")
    if lines:
        raise CheckFailed(
            "\n  ".join(["files did not come as the servers have them", *lines]),
            "does a server have other content, or was the connection cut?",
        )


def addresses_are_virtual(visits: Sequence[Visit], facts: FtpFacts) -> None:
    """Check that PASV replies name the virtual address, and that active data comes from it.

    Active data must come from the port below the service's.
    """
    for data in (transfer.data for visit in visits for transfer in visit.transfers):
        if data.method == "PASV" and address_of(data.announced) != facts.address:
            whose = facts.name(data.announced)
            who = f"{whose}'s own address" if whose != address_of(data.announced) else "another address"
            named = f"the reply to PASV named {address_of(data.announced)}, {who}"
            raise _wrong(f"{named}, and not the virtual address {facts.address}", data, facts)
        if data.method not in PASSIVE and data.other != (origin := endpoint(facts.address, facts.port - 1)):
            raise _wrong(f"data came by {data.method} from {data.other} and not from {origin}", data, facts)


def data_follows_control(visits: Sequence[Visit], facts: FtpFacts) -> None:
    """Check in the director's table that data connections go to their control connections' servers."""
    for visit in visits:
        owner = facts.server_of(visit.control, facts.virtual)
        if owner != visit.server:
            raise CheckFailed(
                f"{visit.server} greeted, and the director gave the control connection to "
                f"{owner or 'no server that it remembers'}",
                "does another server use that name?",
            )
        for transfer in visit.transfers:
            data = transfer.data
            server = facts.server_of(data.client, data.other)
            if not server:
                ends = f"{data.method}, {data.client} with {data.other}"
                what = f"IPVS on the director knows nothing of a data connection ({ends})"
                raise _wrong(f"{what}: the FTP helper did not make it", data, facts)
            if server != owner:
                what = f"the data connection by {data.method} went to {server}"
                raise _wrong(f"{what}, and its control connection is with {owner}", data, facts)


def _wrong(message: str, data: DataConnection, facts: FtpFacts) -> CheckFailed:
    return CheckFailed(message, _hints(_helper(data.method, facts)))


def explained(failure: FtpFailed, facts: FtpFacts, cluster: ClusterFacts) -> CheckFailed:
    """Return the failure of a session with its likely causes.

    They are in the FTP helper where a data connection failed, else as for any service.
    """
    if failure.data is None:
        return CheckFailed(failure.message, _hints(diagnose(cluster)) or failure.hint)
    found = [*_wrong_server(failure, facts), *_helper(failure.data.method, facts), *_stalled(failure, facts)]
    return CheckFailed(failure.message, _hints(found or diagnose(cluster)) or failure.hint)


def _wrong_server(failure: FtpFailed, facts: FtpFacts) -> Iterator[Finding]:
    """Find a passive data connection that the director gave to another server."""
    data = failure.data
    if data is None or data.method not in PASSIVE:
        return
    client, port = address_of(failure.control), data.announced.rpartition(":")[2]
    ends = client, endpoint(facts.address, int(port))
    servers = [facts.name(e.server) for e in facts.entries if (address_of(e.client), e.virtual) == ends]
    for server in dict.fromkeys(servers):
        if server != failure.server:
            yield Finding(
                f"the director gave the data connection to {server}, and its control connection is with "
                f"{failure.server}",
                "only the FTP helper knows which belong together: look for a service that takes the data "
                "ports in `ipvsadm -Ln`",
            )


def _stalled(failure: FtpFailed, facts: FtpFacts) -> Iterator[Finding]:
    """Find a control connection that stalls after its data connection was made."""
    # ipv4_confirm() of 2.6.39 (nf_conntrack_l3proto_ipv4.c) calls nf_nat_seq_adjust only after a helper.
    made = failure.data and failure.data.client
    if failure.kind == "no-reply" and made and _UNADJUSTED.match(facts.kernel):
        yield Finding(
            "the director has made the reply to PASV longer or shorter, and its kernel does not correct the "
            "sequence numbers of connections that have no helper of netfilter's",
            "run `modprobe nf_conntrack_ftp`",
        )


def _helper(method: str, facts: FtpFacts) -> Iterator[Finding]:
    """Find what the FTP helper lacks: the module, the port, or support of ``method`` or IPv6."""
    if not method_for(facts.forwarding).replies_pass_director:
        # tcp_app_conn_bind (ip_vs_proto_tcp.c, 6.1): "Default binding: bind app only for NAT".
        yield Finding(
            f"the FTP helper works with masquerading only, and the service is by {facts.forwarding}",
            "let a service take the data ports, too: port 0 with -p, or a firewall mark for all",
        )
    elif not facts.helper_ports:
        yield Finding(
            "the FTP helper is not loaded on the director: IPVS does not read what client and server agree "
            "on, so it neither rewrites the reply to PASV nor knows of data connections",
            "run `modprobe ip_vs_ftp`",
        )
    elif facts.port not in facts.helper_ports:
        ports = ", ".join(map(str, facts.helper_ports))
        yield Finding(
            f"the director's FTP helper works on port {ports}, and the service is on {facts.port}",
            f"it is loaded: run `modprobe -r ip_vs_ftp`, then `modprobe ip_vs_ftp ports={facts.port}`",
        )
    elif facts.lacking is not None and (method in _EXTENDED or ":" in facts.address):
        yield Finding(facts.lacking, "use PASV or PORT, and IPv4")


def _hints(findings: Iterator[Finding] | Sequence[Finding]) -> str | None:
    return "\n  ".join(f"{finding.cause}; {finding.remedy}" for finding in findings) or None
