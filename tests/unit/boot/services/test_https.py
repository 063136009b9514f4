from __future__ import annotations

import ipaddress
import re
import ssl
from pathlib import Path

from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.plan import Card, Host
from lvslab.boot.services import http
from lvslab.boot.services.https import HttpsServer, certificate
from lvslab.lab.model import HttpService, HttpsService

ADDRESSES = tuple(map(ipaddress.ip_interface, ("192.0.2.9/24", "2001:db8::9/64")))
CARD = Card("eth0", "lan", "lan-0.0", "02:4c:56:00:00:00", ADDRESSES)
HOST = Host("rs1", (CARD,), (HttpService(port=81), HttpsService(), HttpsService(port=8443)))


def test_a_certificate_names_the_node_and_its_addresses(tmp_path: Path) -> None:
    made, key = certificate("rs1", (each.ip for each in ADDRESSES))
    (tmp_path / "crt").write_text(made)
    (tmp_path / "key").write_text(key)
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    settings.load_cert_chain(tmp_path / "crt", tmp_path / "key")  # the key is that of the certificate
    settings.load_verify_locations(tmp_path / "crt")
    (about,) = settings.get_ca_certs()
    assert about["subject"] == about["issuer"] == ((("commonName", "rs1"),),)
    assert isinstance(names := about["subjectAltName"], tuple)
    assert names[:2] == (("DNS", "rs1"), ("IP Address", "192.0.2.9"))
    assert certificate("rs1", ())[1] != key


def test_its_nginx_has_files_of_its_own() -> None:
    (server,) = HttpsServer.on_host(HOST, Namespaces(-1, -1), Path("/lab"))
    assert isinstance(server, HttpsServer)
    files = server._files()
    text = files["/etc/nginx/lvslab-https.conf"]
    assert re.findall(r"listen (.*);", text) == ["443 ssl", "[::]:443 ssl", "8443 ssl", "[::]:8443 ssl"]
    for path in re.findall(r"ssl_certificate(?:_key)? ([^;]*);", text):
        assert path in files
    assert f"access_log {server.log} lvslab;" in text
    assert str(server.log) in files
    assert "/etc/nginx/lvslab.conf" not in files
    assert http.pid_file("rs1", "https") != http.pid_file("rs1")


def test_the_init_script_is_for_both_web_servers_of_a_host() -> None:
    (server,) = HttpsServer.on_host(HOST, Namespaces(-1, -1), Path("/lab"))
    assert isinstance(server, HttpsServer)
    text = server._files()[http.INIT_SCRIPT]
    for kind in ("http", "https"):
        assert f"start_one {http.pid_file('rs1', kind)} " in text
        assert f"stop_one {http.pid_file('rs1', kind)}\n" in text
