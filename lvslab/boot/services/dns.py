"""The name server of a Mininet host: NSD, with authority for one zone.

Each answer begins one record further than the last (``round-robin``). One process answers, with one counter
for all names since the zone was loaded (``packet_encode_rrset`` in NSD's packet.c): the order is known.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Host
from lvslab.boot.services import programs
from lvslab.boot.services.daemon import DaemonServer, Endpoint
from lvslab.boot.services.programs import Bundle
from lvslab.errors import BootError
from lvslab.lab.model import DnsService
from lvslab.run import STDOUT, run

FOLDER = Path("/etc/nsd")
CONFIGURATION = FOLDER / "nsd.conf"
LOG = Path("/var/log/nsd.log")
CONTROL = FOLDER / "control"
"""A program that controls the server: ``/etc/nsd/control reload`` reads the zone file again."""


def configuration(host: str, service: DnsService, addresses: tuple[str, ...], folder: Path) -> str:
    """Return the configuration of NSD on ``host``, which keeps its own files in ``folder``."""
    listen = "\n".join(f'    ip-address: "{address}@{service.port}"' for address in addresses)
    return f"""server:
{listen}
    port: {service.port}
    server-count: 1
    round-robin: yes
    minimal-responses: yes
    username: ""
    chroot: ""
    pidfile: ""
    database: ""
    logfile: "{LOG}"
    verbosity: 1
    identity: "{host}"
    rrl-ratelimit: 0
    zonesdir: "{FOLDER}"
    zonelistfile: "{folder}/zone.list"
    xfrdfile: ""
    xfrdir: "{folder}"
remote-control:
    control-enable: yes
    control-interface: "{folder}/control"
zone:
    name: "{service.zone}"
    zonefile: "{service.zone_file}"
"""


class DnsServer(DaemonServer[DnsService]):
    """NSD on one Mininet host. Its log has no line for a query."""

    service = DnsService
    bundle = Bundle(("nsd",), ("usr/sbin/nsd", "usr/sbin/nsd-checkzone", "usr/sbin/nsd-control"))
    what = "the name server"
    log = LOG

    def __init__(self, host: Host, place: Namespaces, service: DnsService, lab: Path) -> None:
        super().__init__(host, place, service, lab)
        # Read here: a host has its own /tmp, which lacks a lab's folder under the machine's.
        self._zone = (lab / service.zone_file).read_bytes()

    def _command(self) -> list[str]:
        return [*programs.command(self.kind, "usr/sbin/nsd"), "-d", "-c", str(CONFIGURATION)]

    def _endpoints(self) -> list[Endpoint]:
        return [("tcp", self._service.port), ("udp", self._service.port)]

    def _write(self) -> None:
        self._folder.mkdir()
        FOLDER.mkdir(exist_ok=True)
        addresses = tuple(str(each.ip) for card in self.host.cards for each in card.addresses)
        CONFIGURATION.write_text(configuration(self.host.name, self._service, addresses, self._folder))
        (FOLDER / self._service.zone_file).write_bytes(self._zone)
        LOG.write_bytes(b"")
        orders = [*programs.command(self.kind, "usr/sbin/nsd-control"), "-c", str(CONFIGURATION)]
        CONTROL.write_text(f'#!/bin/sh\nexec {shlex.join(orders)} "$@"\n')
        CONTROL.chmod(0o755)

    def _check(self) -> None:
        # NSD starts with a wrong zone file too, and then answers SERVFAIL.
        checker = [*programs.command(self.kind, "usr/sbin/nsd-checkzone"), self._service.zone]
        done = run([*checker, FOLDER / self._service.zone_file], stderr=STDOUT, check=False)
        if done.returncode != 0:
            message = f"the name server on {self.host.name} has a wrong zone file"
            raise BootError(message, done.stdout.decode().strip())


SERVER = DnsServer
