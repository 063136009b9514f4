from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256

import pytest

from lvslab.boot.services import ftp
from lvslab.check import ftp_rounds, ftp_verdict, schedulers
from lvslab.check.forwarding.facts import ClusterFacts, ServerFacts
from lvslab.check.ftp_verdict import FtpFacts, Visit
from lvslab.check.ipvs.listing import Connection, parse_connection_entries
from lvslab.check.schedulers import Server, model_for
from lvslab.check.traffic.ftp import DataConnection, FtpFailed, Method, Transfer
from lvslab.errors import CheckFailed

VIP, CLIENT = "66.199.240.50", "66.199.240.10"

# ipvsadm 1.31 on Linux 6.1, during a session in passive mode and one in active mode.
ENTRIES = f"""IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED {CLIENT}:40001 {VIP}:21 10.0.0.100:21
TCP 01:58  TIME_WAIT   {CLIENT}:40002 {VIP}:50001 10.0.0.100:50001
TCP 14:59  ESTABLISHED {CLIENT}:40003 {VIP}:21 10.0.0.101:21
TCP 01:58  TIME_WAIT   {CLIENT}:40004 {VIP}:20 10.0.0.101:20
"""
APPS = "prot port    usecnt name\nTCP  21      2       ftp\n"

FACTS = FtpFacts(
    VIP,
    21,
    "masquerading",
    (21,),
    parse_connection_entries(ENTRIES),
    {"10.0.0.100": "rs1", "10.0.0.101": "rs2", "10.0.0.102": "rs3"},
)
PASSIVE = DataConnection("PASV", f"{VIP}:50001", f"{CLIENT}:40002", f"{VIP}:50001")
ACTIVE = DataConnection("PORT", f"{CLIENT}:40004", f"{CLIENT}:40004", f"{VIP}:20")
FINE = ClusterFacts(f"{VIP}:21", "10.0.0.1", (), (), (), 1)


def transfer(data: DataConnection, name: str = "pub/1K.bin") -> Transfer:
    content = ftp.content(name)
    return Transfer(name, data, len(content), sha256(content).hexdigest(), 0.1, content)


VISITS = (
    Visit("rs1", f"{CLIENT}:40001", (transfer(PASSIVE),)),
    Visit("rs2", f"{CLIENT}:40003", (transfer(ACTIVE),)),
)


def test_what_is_right() -> None:
    ftp_verdict.addresses_are_virtual(VISITS, FACTS)
    ftp_verdict.data_follows_control(VISITS, FACTS)
    ftp_verdict.content_is_whole([taken for visit in VISITS for taken in visit.transfers])


def test_entries_of_a_listing() -> None:
    entry = parse_connection_entries(ENTRIES)[0]
    assert entry == Connection("tcp", "ESTABLISHED", f"{CLIENT}:40001", f"{VIP}:21", "10.0.0.100:21", 899)
    assert len(FACTS.entries) == 4
    (six,) = parse_connection_entries("TCP 00:59 NONE [fd00::10]:0 [fd00::50]:4321 [fd00:10::1]:4321\n")
    assert (six.client, six.virtual) == ("[fd00::10]:0", "[fd00::50]:4321")


def test_ports_of_the_helper() -> None:
    assert ftp_rounds._helper_ports(APPS) == (21,)
    assert ftp_rounds._helper_ports("prot port    usecnt name\n") == ()
    assert ftp_rounds._helper_ports("") == ()


@pytest.mark.parametrize(
    ("size", "digest", "message"),
    [
        (1000, "", "pub/1K.bin by PASV: 1000 of 1024 bytes came"),
        (1024, "00", "pub/1K.bin by PASV: 1024 bytes came, and not the right ones"),
    ],
)
def test_content_that_is_wrong(size: int, digest: str, message: str) -> None:
    wrong = replace(transfer(PASSIVE), size=size, sha256=digest)
    with pytest.raises(CheckFailed, match=message):
        ftp_verdict.content_is_whole([transfer(ACTIVE), wrong])


def visit(**changes: object) -> tuple[Visit, ...]:
    return (Visit("rs1", f"{CLIENT}:40001", (transfer(replace(PASSIVE, **changes)),)),)  # type: ignore[arg-type]


def test_an_address_that_was_not_rewritten() -> None:
    with pytest.raises(CheckFailed) as failed:
        ftp_verdict.addresses_are_virtual(
            visit(announced="10.0.0.100:50001"), replace(FACTS, helper_ports=())
        )
    assert "named 10.0.0.100, rs1's own address, and not the virtual address" in str(failed.value)
    assert "run `modprobe ip_vs_ftp`" in str(failed.value)


def test_data_that_comes_from_elsewhere() -> None:
    odd = replace(ACTIVE, other=f"{VIP}:1024")
    with pytest.raises(
        CheckFailed, match=re.escape(f"data came by PORT from {VIP}:1024 and not from {VIP}:20")
    ):
        ftp_verdict.addresses_are_virtual((Visit("rs2", f"{CLIENT}:40003", (transfer(odd),)),), FACTS)


def test_data_that_ipvs_does_not_know() -> None:
    without = replace(FACTS, helper_ports=(), entries=FACTS.entries[:1])
    with pytest.raises(CheckFailed, match=r"knows nothing of a data connection .*\n.*not loaded"):
        ftp_verdict.data_follows_control(VISITS[:1], without)


def test_data_of_another_server() -> None:
    stray = replace(FACTS.entries[1], server="10.0.0.102:50001")
    facts = replace(FACTS, entries=(FACTS.entries[0], stray))
    with pytest.raises(CheckFailed, match="by PASV went to rs3, and its control connection is with rs1"):
        ftp_verdict.data_follows_control(VISITS[:1], facts)


def test_a_control_connection_of_another_server() -> None:
    with pytest.raises(CheckFailed, match=r"rs3 greeted, and the director gave .* to rs1"):
        ftp_verdict.data_follows_control((Visit("rs3", f"{CLIENT}:40001"),), FACTS)
    with pytest.raises(CheckFailed, match="to no server that it remembers"):
        ftp_verdict.data_follows_control((Visit("rs3", f"{CLIENT}:9"),), FACTS)


def failure(method: Method, announced: str = f"{VIP}:50009") -> FtpFailed:
    data = DataConnection(method, announced)
    return FtpFailed("no-data", "no data", server="rs1", control=f"{CLIENT}:40001", data=data)


@pytest.mark.parametrize(
    ("facts", "method", "cause"),
    [
        (replace(FACTS, helper_ports=()), "PASV", "the FTP helper is not loaded on the director"),
        (replace(FACTS, helper_ports=(2121,)), "PORT", r"works on port 2121.*\n?.*ports=21`"),
        (replace(FACTS, lacking="kernel 4.9 has no EPSV"), "EPSV", "kernel 4.9 has no EPSV; use PASV"),
        (
            replace(FACTS, forwarding="tunneling", helper_ports=()),
            "PASV",
            "^no data\n  the FTP helper works with masquerading only, .* is by tunneling; [^\n]*$",
        ),
    ],
)
def test_why_there_is_no_data_connection(facts: FtpFacts, method: Method, cause: str) -> None:
    said = ftp_verdict.explained(failure(method), facts, FINE)
    assert re.search(cause, str(said)), said


def test_what_the_helper_cannot_do_does_not_matter_to_others() -> None:
    said = ftp_verdict.explained(failure("PASV"), replace(FACTS, lacking="kernel 4.9 has no EPSV"), FINE)
    assert str(said) == "no data"


def test_a_control_connection_that_stalls() -> None:
    stalled = FtpFailed("no-reply", "no reply", server="rs1", control=f"{CLIENT}:40001", data=PASSIVE)
    said = ftp_verdict.explained(stalled, replace(FACTS, kernel="2.6.39.4"), FINE)
    assert "run `modprobe nf_conntrack_ftp`" in str(said)
    for kernel in ("2.6.3", "2.6.36", "6.1.0-50-cloud-amd64"):
        assert str(ftp_verdict.explained(stalled, replace(FACTS, kernel=kernel), FINE)) == "no reply"


def test_a_data_connection_that_was_given_to_another_server() -> None:
    stray = Connection("tcp", "CLOSE", f"{CLIENT}:40009", f"{VIP}:50009", "10.0.0.101:50009", 9)
    facts = replace(FACTS, helper_ports=(), entries=(*FACTS.entries, stray))
    # The reply named the server's own address, and the client went to the one that it knew.
    said = str(ftp_verdict.explained(failure("PASV", "10.0.0.100:50009"), facts, FINE))
    assert "the director gave the data connection to rs2, and its control connection is with rs1" in said
    right = replace(stray, server="10.0.0.100:50009")
    facts = replace(facts, entries=(right,))
    assert "gave the data" not in str(ftp_verdict.explained(failure("PASV"), facts, FINE))


def test_without_a_control_connection_it_is_as_for_any_service() -> None:
    down = replace(
        FINE, servers=(ServerFacts("rs2", "10.0.0.101", 21, "masquerading", "refused", "10.0.0.1"),)
    )
    refused = FtpFailed("refused", "the connection was refused", "nothing listens there")
    said = ftp_verdict.explained(refused, FACTS, replace(down, expected=(), observed=()))
    assert "nothing listens on 10.0.0.101:21 (connection refused); start the server on rs2" in str(said)
    assert str(ftp_verdict.explained(refused, FACTS, replace(FINE, counters=None))).endswith("listens there")


WLC = model_for("wlc", "6.1.0")
SERVERS = (Server("rs3", 1), Server("rs2", 1), Server("rs1", 2))


@pytest.mark.parametrize("held", [False, True])
def test_turns_of_control_connections(held: bool) -> None:
    expected = schedulers.forecast(WLC.choose, SERVERS, 8, held=held)
    names, after = expected.names, expected.servers
    assert names == ("rs3", "rs2", "rs1", "rs1", "rs3", "rs2", "rs1", "rs1")
    counted = [server.active if held else server.inactive for server in after]
    assert counted == [2, 2, 4]
    assert all((server.inactive if held else server.active) == 0 for server in after)


def test_old_connections_count_too() -> None:
    busy = (replace(SERVERS[0], inactive=3), *SERVERS[1:])
    assert schedulers.forecast(WLC.choose, busy, 4).names == ("rs2", "rs1", "rs1", "rs2")
