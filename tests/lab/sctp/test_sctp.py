"""An SCTP service, asked by a virtual machine: the round, the counts, and every packet."""

from __future__ import annotations

import pytest

from lvslab.check import verdict
from lvslab.check.services import every, guest_client
from lvslab.check.testbed import Testbed
from lvslab.errors import CheckFailed

pytestmark = pytest.mark.slow

VIP, PORT = "198.51.100.1", 9
SERVICE = f"{VIP}:{PORT} (sctp)"


def test_the_round_of_the_steps(lab: Testbed) -> None:
    (made,) = every.of_steps(lab, lab.table_of_steps()).rounds
    assert (made.client, made.asked, made.wrong) == ("client", f"sctp://{VIP}:{PORT}/", None)
    assert made.distribution == {
        "one": {"expected": 6, "observed": 6},
        "two": {"expected": 6, "observed": 6},
    }


def test_everybody_counts_the_same(lab: Testbed) -> None:
    taken = lab.round(count=6, client="client")
    verdict.sequence_matches(taken.forecast, taken.observed)
    verdict.counts_agree(taken.observed_counts, taken.logged, taken.director)
    verdict.sources_preserved(["198.51.100.9"], taken.sources, lab.directors[0].addresses)


def test_every_packet_is_masqueraded_exactly(lab: Testbed) -> None:
    """Addresses and ports change, and the CRC32c with the ports."""
    with lab.packets(SERVICE) as seen:
        replies = guest_client.ask_in_turn(lab.cluster, "client", "sctp", VIP, PORT, 2)
    compared = seen.match()
    ports = {reply.source_port for reply in replies}
    assert {flow.client[1] for flow in compared.flows} == ports and len(ports) == 2
    # INIT, COOKIE ECHO, DATA and SHUTDOWN of each association have answers.
    assert compared.pairs >= 16


def test_a_removed_server_is_noticed(lab: Testbed) -> None:
    """The server is put back, as the last one of the steps, where it was in the kernel's list."""
    director, place = lab.directors[0], f"--sctp-service {VIP}:{PORT} -r 10.0.0.102:7"
    director.execute(f"ipvsadm -d {place}")
    try:
        with pytest.raises(CheckFailed, match="two never answered"):
            taken = lab.round(count=4, client="client")
            verdict.sequence_matches(taken.forecast, taken.observed)
    finally:
        director.execute(f"ipvsadm -a {place} -m")


def test_a_stopped_server_is_noticed(lab: Testbed) -> None:
    """Its kernel aborts the association, so the client is refused."""
    lab.cluster.stop_service("one")
    try:
        with pytest.raises(CheckFailed, match=r"request [12] of 4: connection refused by"):
            lab.round(count=4, client="client")
    finally:
        lab.cluster.start_service("one")
