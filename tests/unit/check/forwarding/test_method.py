from __future__ import annotations

import pytest

from lvslab.check.forwarding import Method, method_for
from lvslab.check.forwarding.facts import Asked, ClusterFacts, ServerFacts
from lvslab.check.ipvs.rules import parse_rules
from lvslab.check.ipvs.table import FORWARDING, Forwarding

(SERVICE,) = parse_rules(
    """\
-A -t 66.199.240.50:8080
-a -t 66.199.240.50:8080 -r 10.0.0.100:80 -m
"""
)


class Seen:
    """A real server whose program is stopped."""

    def __init__(self) -> None:
        self.probed: list[tuple[str, int]] = []

    def probe(self, address: str, port: int) -> str:
        self.probed.append((address, port))
        return "refused"

    def read(self, file: str) -> str:
        if file in ("/proc/net/tcp", "/proc/net/tcp6"):
            return "  sl  local_address rem_address   st\n"
        assert file == "/proc/net/route"
        return "Iface Destination Gateway\neth0 00000000 FE00000A 0003 0 0 0 00000000 0 0 0\n"


@pytest.mark.parametrize("name", FORWARDING)
def test_a_method_is_known_by_ipvsadms_name(name: Forwarding) -> None:
    method = method_for(name)
    assert (method.name, method.option) == (name, FORWARDING[name].option)
    assert method is method_for(name)


def test_a_method_without_a_model_says_so_and_examines_nothing() -> None:
    method, seen = Method("tunneling"), Seen()
    assert method.unforeseen == "lvslab has no model of tunneling yet"
    found = method.examine(seen, "rs1", "10.0.0.100", 80, Asked(SERVICE))  # type: ignore[arg-type]
    assert (found, seen.probed) == (ServerFacts("rs1", "10.0.0.100", 80, "tunneling"), [])
    facts = ClusterFacts(str(SERVICE), "10.0.0.1", (SERVICE,), (SERVICE,), (found,), ip_forward=0)
    assert method.causes(facts, [found]) == []
    assert method.destination_port(8080, 80) == 8080


def test_masquerading_looks_at_the_server_and_at_its_way_back() -> None:
    method, seen = method_for("masquerading"), Seen()
    assert method.unforeseen == ""
    assert method.destination_port(8080, 80) == 80
    found = method.examine(seen, "rs1", "10.0.0.100", 80, Asked(SERVICE))  # type: ignore[arg-type]
    assert seen.probed == [("10.0.0.100", 80)]
    assert (found.probe, found.gateway) == ("refused", "10.0.0.254")
    facts = ClusterFacts(str(SERVICE), "10.0.0.1", (SERVICE,), (SERVICE,), (found,), ip_forward=0)
    first, second, third = (finding.cause for finding in method.causes(facts, [found]))
    assert first.startswith("ip_forward is 0")
    assert second.startswith("nothing listens on 10.0.0.100:80")
    assert third.startswith("rs1's default route goes to 10.0.0.254")
