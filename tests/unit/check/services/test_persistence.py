"""Which server a client of a persistent service stays with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lvslab.check.ipvs.director import Reading
from lvslab.check.ipvs.listing import parse_connection_entries
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.services.persistence import stays_with

CLIENT = "66.199.240.10"


def stays(rules: str, entry: str, *, address: str = "66.199.240.50", quiescent: bool = False) -> str:
    """Name the destination that a client stays with, where the director has this ``entry``."""
    (service,) = parse_rules(rules)
    now = Reading((), (), {}, {}, {}, 0, "")
    now = replace(now, tracked=parse_connection_entries(entry), expire_quiescent_template=quiescent)
    client = "fd00::9" if service.ipv6 else CLIENT
    return str(stays_with(service, now, client, address) or "")


WEB = "-A -t 66.199.240.50:80 -p 300\n-a -t 66.199.240.50:80 -r 10.0.0.101:8080 -m -w {weight}"
TEMPLATE = "TCP 04:55 ASSURED 66.199.240.10:0 66.199.240.50:80 10.0.0.101:8080"


@pytest.mark.parametrize(
    ("weight", "quiescent", "found"),
    [
        (1, False, "10.0.0.101:8080"),
        (0, False, "10.0.0.101:8080"),
        (1, True, "10.0.0.101:8080"),
        (0, True, ""),
    ],
)
def test_a_server_of_weight_0(weight: int, quiescent: bool, found: str) -> None:
    assert stays(WEB.format(weight=weight), TEMPLATE, quiescent=quiescent) == found


def test_a_server_that_is_gone() -> None:
    others = "-A -t 66.199.240.50:80 -p 300\n-a -t 66.199.240.50:80 -r 10.0.0.100:80 -m"
    assert stays(others, TEMPLATE) == ""


def test_a_template_that_the_kernel_has_dropped() -> None:
    # ip_vs_check_template gives it port 65535.
    dropped = "TCP 179:55 ASSURED 66.199.240.10:0 66.199.240.50:65535 10.0.0.101:65535"
    assert stays(WEB.format(weight=1), dropped) == ""


def test_another_protocols_template() -> None:
    assert stays(WEB.format(weight=1), TEMPLATE.replace("TCP", "UDP")) == ""


@pytest.mark.parametrize(
    ("rules", "entry", "found"),
    [
        (  # port 0
            "-A -t 66.199.240.50:0 -p 300\n-a -t 66.199.240.50:0 -r 10.0.0.101:0 -m",
            "TCP 05:58 ASSURED 66.199.240.10:0 66.199.240.50:0 10.0.0.101:0",
            "10.0.0.101:0",
        ),
        (  # FTP
            "-A -t 66.199.240.50:21 -p 300\n-a -t 66.199.240.50:21 -r 10.0.0.101:21 -m",
            "TCP 05:58 NONE 66.199.240.10:0 66.199.240.50:0 10.0.0.101:0",
            "10.0.0.101:21",
        ),
        (  # a mark is in place of the address
            "-A -f 80 -p 300\n-a -f 80 -r 10.0.0.101:0 -m",
            "IP  04:58 ASSURED 66.199.240.10:0 0.0.0.80:0 10.0.0.101:0",
            "10.0.0.101:0",
        ),
        (
            "-A -f 80 -6 -p 300\n-a -f 80 -6 -r [fd01::101]:0 -m",
            "IP  04:58 ASSURED [fd00::9]:0 [0:50::]:0 [fd01::101]:0",
            "[fd01::101]:0",
        ),
        (  # a network of clients
            "-A -u 66.199.240.50:53 -p 300 -M 255.255.255.0\n-a -u 66.199.240.50:53 -r 10.0.0.101:53 -m",
            "UDP 04:58 UDP 66.199.240.0:0 66.199.240.50:53 10.0.0.101:53",
            "10.0.0.101:53",
        ),
    ],
)
def test_forms_of_templates(rules: str, entry: str, found: str) -> None:
    assert stays(rules, entry) == found
