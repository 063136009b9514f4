from __future__ import annotations

from pathlib import Path

from lvslab.boot import plan
from lvslab.boot.net import hosts
from lvslab.boot.services import dns
from lvslab.lab.model import DnsService


def test_the_configuration() -> None:
    service = DnsService(port=5353, zone="example.test")
    text = dns.configuration("ns1", service, ("192.0.2.3", "2001:db8::3"), Path("/run/nsd"))
    for line in (
        '    ip-address: "192.0.2.3@5353"',
        '    ip-address: "2001:db8::3@5353"',
        "    server-count: 1",  # another process would have a counter of its own
        "    round-robin: yes",
        "    rrl-ratelimit: 0",  # else it leaves questions of a busy client unanswered
        '    zonefile: "example.test.zone"',
    ):
        assert line in text.splitlines()
    # Nothing is kept where all hosts see it, but in the host's own folder.
    assert all("/run/nsd" in line for line in text.splitlines() if "/run" in line)


def test_resolv_conf() -> None:
    assert hosts.resolv_conf(("192.0.2.3", "2001:db8::3")) == (
        "nameserver 192.0.2.3\nnameserver 2001:db8::3\n"
    )


def test_name_servers_that_resolv_conf_can_have(tmp_path: Path) -> None:
    from lvslab.lab import loader

    nodes = "".join(
        f"  ns-{n}:\n    role: name-server\n    interfaces:\n"
        f"      eth0: {{network: net, address: 192.0.2.{n}}}\n"
        f"      eth1: {{network: six, address: fd00::{n}}}\n"
        f"    services:\n      - {{kind: dns, zone: example.test, port: {port}}}\n"
        for n, port in ((1, 5353), (2, 53), (3, 53))
    )
    (tmp_path / "example.test.zone").write_text(
        "$TTL 3\n@ IN SOA ns h 1 1 1 1 1\n@ IN NS ns\nns IN A 192.0.2.2\n"
    )
    (tmp_path / "lab.yaml").write_text(
        "title: Name servers\nnetworks:\n"
        "  net: {subnet: 192.0.2.0/24}\n  six: {subnet: 'fd00::/64'}\nnodes:\n"
        "  director:\n    role: director\n    kernel: debian-cloud\n    interfaces:\n"
        f"      eth0: {{network: net, address: 192.0.2.9}}\n{nodes}"
    )
    lab = loader.load(tmp_path)
    assert plan.resolvers_of(lab) == ("192.0.2.2", "fd00::2", "192.0.2.3")
    assert plan.hosts_of(lab)[0].services == (DnsService(port=5353, zone="example.test"),)
