"""The name server of a Mininet host, NSD: its configuration, start and stop.

It answers with authority for one zone and knows nothing else. With the records of an answer it begins one
record further each time (``round-robin``). There is one counter for all answers since the zone was loaded,
whatever was asked for (``packet_encode_rrset`` in NSD's packet.c), and there is one process that answers, so
the order can be foreseen.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from lvslab.boot import programs
from lvslab.boot.daemon import Daemon
from lvslab.boot.namespaces import Namespaces
from lvslab.boot.plan import Dns, Host
from lvslab.errors import BootError

FOLDER = Path("/etc/nsd")
LOG = Path("/var/log/nsd.log")
CONTROL = FOLDER / "control"
"""A program that gives the server orders: ``/etc/nsd/control reload`` reads the zone file again."""


def configuration(service: Dns, addresses: tuple[str, ...], folder: Path) -> str:
    """The configuration of NSD, which keeps its own files in ``folder``."""
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
    zonefile: "{service.zone}.zone"
"""


class DnsServer:
    """NSD on one Mininet host."""

    kind = "dns"

    def __init__(self, host: Host, namespaces: Namespaces, service: Dns) -> None:
        self._host = host
        self._service = service
        self._namespaces = namespaces
        self._folder = Path(f"/run/lvslab/nodes/{host.name}/nsd")
        self._configuration = FOLDER / "nsd.conf"
        self._daemon = Daemon(
            f"the name server on {host.name}",
            namespaces,
            [*programs.command(self.kind, "usr/sbin/nsd"), "-d", "-c", str(self._configuration)],
            self._folder.with_suffix(".out"),
            [("tcp", service.port), ("udp", service.port)],
        )
        self._written = False

    def access_log(self) -> int:
        """A descriptor of NSD's log, open for reading. It has no line for a query."""
        return self._namespaces.call(os.open, LOG, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._daemon.running

    def start(self) -> None:
        """Start the server if it is not running, and return when it listens. Raises BootError, also where
        the zone file on the host is wrong."""
        if self.running:
            return
        if not self._written:
            # Read here: a host has a /tmp of its own, in which a lab's folder under the machine's is not.
            self._namespaces.call(self._write, self._service.file.read_bytes())
            self._written = True
        self._namespaces.call(self._check)
        self._daemon.start()

    def stop(self) -> None:
        """Stop the server, and return when it is gone. Raises BootError."""
        self._daemon.stop()

    def _write(self, zone: bytes) -> None:
        """In the host's namespaces."""
        self._folder.mkdir()
        FOLDER.mkdir(exist_ok=True)
        addresses = tuple(card.address.partition("/")[0] for card in self._host.cards)
        self._configuration.write_text(configuration(self._service, addresses, self._folder))
        self._zone_file.write_bytes(zone)
        LOG.write_bytes(b"")
        orders = [*programs.command(self.kind, "usr/sbin/nsd-control"), "-c", str(self._configuration)]
        CONTROL.write_text(f'#!/bin/sh\nexec {shlex.join(orders)} "$@"\n')
        CONTROL.chmod(0o755)

    def _check(self) -> None:
        """In the host's namespaces: NSD starts with a wrong zone file too, and then answers SERVFAIL."""
        words = [*programs.command(self.kind, "usr/sbin/nsd-checkzone"), self._service.zone]
        done = subprocess.run(
            [*words, str(self._zone_file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BootError(
                f"the name server on {self._host.name} has a wrong zone file", done.stdout.strip()
            )

    @property
    def _zone_file(self) -> Path:
        """The zone file on the host."""
        return FOLDER / f"{self._service.zone}.zone"
