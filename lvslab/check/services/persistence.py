"""Templates of persistent services: the director's memory of which server a client stays with.

A template has the client's network (its address, and of that the part which ``-M`` keeps) with port 0. It
is for the requested address and port; for FTP's control port, and for services of port 0, with port 0; and
for a firewall mark with the mark in place of the address. It is used while its server is in the table,
whatever its weight and thresholds, unless ``expire_quiescent_template`` is 1 and the weight is 0: then the
scheduler is asked again, and a new template takes its place. So it has been from Linux 2.4 on:
``ip_vs_sched_persist`` in ip_vs_core.c and ``ip_vs_check_template`` in ip_vs_conn.c of 2.4.37.11, 2.6.11,
2.6.18, 2.6.32, 2.6.39 and 6.1.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.table import Destination, Service, address_of, endpoint

_FTP = 21


def template_virtual(service: Service, address: str) -> str:
    """Return the virtual end of the templates of ``service`` for requests to ``address``."""
    if service.protocol == "fwmark":
        own = IPv6Address(service.mark << 96) if service.ipv6 else IPv4Address(service.mark)
        return endpoint(str(own), 0)
    return endpoint(address, 0 if service.port in (0, _FTP) else service.port)


def template_client(service: Service, client: str) -> str:
    """Return the client's end of the templates of ``service`` for ``client``."""
    if service.netmask:
        client = str(ip_network(f"{client}/{service.netmask}", strict=False).network_address)
    return endpoint(client, 0)


def stays_with(service: Service, now: Reading, client: str, address: str) -> Destination | None:
    """Return the server that ``client`` stays with when it asks ``service`` at ``address``.

    None where the scheduler is asked, as ``service`` has its servers and ``now`` its templates and sysctl.
    """
    if service.persistent is None:
        return None
    ends = (service.protocol, template_client(service, client), template_virtual(service, address))
    for known in now.tracked:
        if (known.protocol, known.client, known.virtual) == ends:
            break
    else:
        return None
    for server in service.destinations:
        # Without a port of its own the template is for all of the server's.
        if known.server in (str(server), endpoint(server.address, 0)) or (
            server.port == 0 and address_of(known.server) == server.address
        ):
            return None if now.expire_quiescent_template and server.weight == 0 else server
    return None
