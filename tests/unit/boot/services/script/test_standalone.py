from __future__ import annotations

import os
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lvslab.boot.services.script import standalone
from lvslab.boot.services.script.server import program
from lvslab.boot.services.script.standalone import IPPROTO_SCTP, Log, Mail, Server
from lvslab.check.traffic import clients
from lvslab.check.traffic.access_log import parse_access_log
from lvslab.check.traffic.request import Here, RequestFailed, connect
from lvslab.check.traffic.udp import UdpSocket


@contextmanager
def serving(tmp_path: Path, kind: str) -> Iterator[int]:
    """The program as hosts and guests run it, on a free port."""
    (tmp_path / "program.py").write_text(program())
    proto = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, proto) as free:
        free.bind(("", 0))
        port = int(free.getsockname()[1])
    command = [os.path.realpath(sys.executable), "-I", "-S", str(tmp_path / "program.py")]
    words = [*command, kind, "rs1", str(tmp_path / "log"), str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline().decode().strip() == standalone.READY
        try:
            yield port
        finally:
            running.kill()


def test_an_answer_comes_from_the_address_that_was_asked(tmp_path: Path) -> None:
    with serving(tmp_path, "udp") as port:
        for address in ("127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"):
            (reply,) = clients.ask_in_turn("udp", Here(), address, port, 1)
            (*_, entry) = parse_access_log((tmp_path / "log").read_text())
            assert reply.server == entry.server == "rs1"
            assert entry.request_id == reply.request_id
            assert (entry.client, entry.client_port) == (reply.source_address, reply.source_port)


def test_a_datagram_without_an_id(tmp_path: Path) -> None:
    with serving(tmp_path, "udp") as port, UdpSocket("127.0.0.1", port) as asking:
        for sent in (b"", b'"}\n{"x', b"a\nb\nc", b"x" * 60000):
            asking.socket.sendto(sent, ("127.0.0.1", port))
            asking.socket.settimeout(10)
            assert asking.socket.recv(65535) == b"rs1\n" + sent
        # With the name it is longer than a datagram can be: there is no answer, and the server goes on.
        asking.socket.sendto(b"x" * 65507, ("127.0.0.1", port))
        assert asking.ask("id-1").server == "rs1"
    ids = [entry.request_id for entry in parse_access_log((tmp_path / "log").read_text())]
    assert ids == ["", "", "a", "", "", "id-1"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_mail_server_greets_with_its_name(tmp_path: Path, address: str) -> None:
    with serving(tmp_path, "smtp") as port:
        replies = clients.ask_in_turn("smtp", Here(), address, port, 2)
    assert [(reply.server, reply.status, reply.body) for reply in replies] == [("rs1", 220, "rs1 ESMTP")] * 2
    entries = parse_access_log((tmp_path / "log").read_text())
    assert [entry.request_id for entry in entries] == [reply.request_id for reply in replies]
    assert [entry.client_port for entry in entries] == [reply.source_port for reply in replies]


def test_a_mail_server_takes_no_mail(tmp_path: Path) -> None:
    with serving(tmp_path, "smtp") as port, smtplib.SMTP("127.0.0.1", port, "client") as mail:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            mail.sendmail("a@example.test", "b@example.test", "Hello")
        assert refused.value.recipients["b@example.test"] == (550, b"5.7.1 rs1 takes no mail")
        assert mail.noop()[0] == 250


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (["NOOP", "noop", "VRFY root", "QUIT"], ["250", "250", "252", "221"]),
        (["EHLO", "HELO ", "EHLO a", "HELO a"], ["501", "501", "250", "250"]),
        (["MAIL FROM:<a>", "HELO a", "MAIL FROM:<a>", "MAIL FROM:<a>"], ["503", "250", "250", "503"]),
        (["HELO a", "MAIL FROM:a", "MAIL from:<>", "RCPT TO:<b>"], ["250", "501", "250", "550"]),
        (["HELO a", "RCPT TO:<b>", "DATA", "MAIL FROM:<>", "DATA"], ["250", "503", "503", "250", "503"]),
        (["HELO a", "MAIL FROM:<>", "RSET", "MAIL FROM:<>", "RCPT b"], ["250", "250", "250", "250", "501"]),
        (["", "GET / HTTP/1.1", "NOOP " + "x" * 512], ["500", "500", "500"]),
    ],
)
def test_a_mail_session(said: list[str], answers: list[str]) -> None:
    talk = Mail("rs1")
    given = [talk.answer(f"{line}\r\n".encode()) for line in said]
    assert [answer[:3] for answer in given] == answers
    assert all(answer.endswith("\r\n") and answer.isascii() for answer in given)


def test_an_association_gets_one_answer(tmp_path: Path) -> None:
    """On TCP here: not every kernel has SCTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server("rs1", Log(str(tmp_path / "log"), "rs1"))
        with socket.create_connection(listener.getsockname()) as client:
            server.associations(listener)
            client.sendall(b"id-")
            client.sendall(b"7\nmore\n")
            received = b""
            while part := client.recv(100):
                received += part
    assert received == b"rs1\nid-7\n"
    assert [each.request_id for each in parse_access_log((tmp_path / "log").read_text())] == ["id-7"]


def test_sctp(tmp_path: Path) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP).close()
    except OSError as error:
        pytest.skip(f"this machine's kernel has no SCTP: {error.strerror}")
    with serving(tmp_path, "sctp") as port:
        for address in ("127.0.0.1", "::1"):
            assert clients.ask_in_turn("sctp", Here(), address, port, 1)[0].server == "rs1"


def test_a_client_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "smtp") as port:
        for _ in range(3):
            connect(Here(), ("127.0.0.1", port), ("", 0), 5).close()
        assert clients.ask_in_turn("smtp", Here(), "127.0.0.1", port, 1)[0].server == "rs1"
    with pytest.raises(RequestFailed, match="connection refused"):
        clients.ask_in_turn("smtp", Here(), "127.0.0.1", port, 1)
