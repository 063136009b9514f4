"""Every kind of service names its server, in both families, and answers from the address that was asked."""

from __future__ import annotations

import ssl

import pytest

from lvslab.check.testbed import Testbed
from lvslab.check.traffic import access_log, clients, ftp, http, udp
from lvslab.check.traffic.request import RequestFailed

SERVED = {
    "server": [("http", 80), ("https", 443), ("udp", 5000), ("udp", 80), ("smtp", 25), ("dns", 53)],
    "guest": [("http", 80), ("udp", 5000), ("udp", 80)],
    "director": [("http", 80), ("udp", 5000), ("smtp", 25)],
}
ADDRESSES = {
    "server": ["10.0.0.2", "fd00:10::2", "10.9.9.2", "fd00:99::2"],
    "guest": ["10.0.0.3", "fd00:10::3", "10.9.9.3", "fd00:99::3"],
    "director": ["10.0.0.1", "fd00:10::1"],
}
CASES = [
    (node, kind, port, address)
    for node, served in SERVED.items()
    for kind, port in served
    for address in ADDRESSES[node]
    # The name server listens on the addresses of lab.yaml.
    if kind != "dns" or ("99" not in address and ".9.9." not in address)
]
COUNT = 3


@pytest.mark.parametrize(("node", "kind", "port", "address"), CASES)
def test_a_service(lab: Testbed, node: str, kind: str, port: int, address: str) -> None:
    replies = clients.ask_in_turn(kind, lab.enter("client"), address, port, COUNT)
    assert [reply.server for reply in replies] == [node] * COUNT
    assert {reply.source_address for reply in replies} == {"fd00:10::9" if ":" in address else "10.0.0.9"}
    assert len({reply.source_port for reply in replies}) == COUNT
    if kind not in clients.LOGGED:
        return
    ids = [reply.request_id for reply in replies]
    entries = access_log.with_ids(access_log.parse_access_log(lab.cluster.access_log(node, kind)), ids)
    assert [entry.request_id for entry in entries] == ids
    assert {(entry.server, entry.client) for entry in entries} == {(node, replies[0].source_address)}
    assert [entry.client_port for entry in entries] == [reply.source_port for reply in replies]


@pytest.mark.parametrize("address", ADDRESSES["server"])
def test_files(lab: Testbed, address: str) -> None:
    with ftp.Session(lab.enter("client"), address) as session:
        assert session.server == "server"
        assert session.retrieve("server.txt", "EPSV").content == b"server\n"


def test_datagrams_from_one_port(lab: Testbed) -> None:
    for address in ("10.9.9.3", "fd00:99::3"):
        replies = udp.ask_from_one_port(lab.enter("client"), address, 5000, COUNT)
        assert len({reply.source_port for reply in replies}) == 1
        assert [reply.server for reply in replies] == ["guest"] * COUNT


def test_the_certificate_is_the_server_s_own(lab: Testbed) -> None:
    settings = http.unverified()
    settings.load_verify_locations(cadata=lab.node("server").output("cat /etc/nginx/lvslab.crt"))
    settings.check_hostname, settings.verify_mode = True, ssl.CERT_REQUIRED
    reply = lab.enter("client").call(http.get, "https://[fd00:10::2]/", tls=settings)
    assert (reply.server, reply.status) == ("server", 200)
    with pytest.raises(RequestFailed, match="IP address mismatch"):
        lab.enter("client").call(http.get, "https://10.9.9.2/", tls=settings)


@pytest.mark.parametrize("node", SERVED)
def test_services_that_were_stopped(lab: Testbed, node: str) -> None:
    asked = [case[1:] for case in CASES if case[0] == node and case[1] != "dns"]
    lab.cluster.stop_service(node)
    try:
        for kind, port, address in asked:
            with pytest.raises(RequestFailed) as caught:
                clients.ask_in_turn(kind, lab.enter("client"), address, port, 1)
            assert caught.value.kind == "refused"
    finally:
        lab.cluster.start_service(node)
    for kind, port, address in asked:
        assert clients.ask_in_turn(kind, lab.enter("client"), address, port, 1)[0].server == node
