"""FTP sessions with a small server on loopback, which can be told to go wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from lvslab.check.traffic import ftp
from lvslab.check.traffic.ftp import FtpFailed, Method, Session
from lvslab.check.traffic.http import Here
from lvslab.check.traffic.request import RequestFailed

LARGE = bytes(range(256)) * 1024
METHODS: tuple[Method, ...] = ("PASV", "EPSV", "PORT", "EPRT")


@dataclass
class Server:
    """One session after the other. ``replies`` take the place of its own, by command."""

    listener: socket.socket
    files: dict[str, bytes] = field(default_factory=lambda: {"server.txt": b"rs1\n", "pub/large": LARGE})
    replies: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: int | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()[:2]
        return str(host), int(port)

    def serve(self) -> None:
        while True:
            try:
                control, _ = self.listener.accept()
            except OSError:
                return
            with ExitStack() as opened:
                opened.enter_context(control)
                self.session(control, opened.enter_context(control.makefile("r", newline="\r\n")), opened)

    def session(self, control: socket.socket, lines: Iterator[str], opened: ExitStack) -> None:
        data: Callable[[], socket.socket] | None = None
        self.say(control, self.replies.get("greeting", "220 rs1"))
        for line in lines:
            self.asked.append(line.strip())
            word, _, argument = line.strip().partition(" ")
            if word in self.replies:
                self.say(control, self.replies[word])
                continue
            match word:
                case "USER":
                    self.say(control, "331 go on")
                case "PASS":
                    self.say(control, "230 in")
                case "PASV" | "EPSV":
                    passive = socket.create_server((self.address[0], 0), family=control.family)
                    opened.enter_context(passive)
                    data = accepting(passive)
                    port = passive.getsockname()[1]
                    numbers = f"127,0,0,1,{port >> 8},{port & 255}"
                    shown = f"227 mode ({numbers})." if word == "PASV" else f"229 mode (|||{port}|)"
                    self.say(control, shown)
                case "PORT":
                    *_, high, low = argument.split(",")
                    data = connecting("127.0.0.1", int(high) * 256 + int(low))
                    self.say(control, "200 ok")
                case "EPRT":
                    _, _, host, port, _ = argument.split("|")
                    data = connecting(host, int(port))
                    self.say(control, "200 ok")
                case "RETR" | "NLST" | "STOR":
                    assert data is not None
                    with data() as connection:
                        self.say(control, "150 here")
                        if word == "STOR":
                            self.files[argument] = b"".join(iter(lambda: connection.recv(65536), b""))
                        elif word == "RETR":
                            connection.sendall(self.files[argument][: self.cut])
                        else:
                            connection.sendall("".join(f"{name}\r\n" for name in self.files).encode())
                    if self.cut is not None:
                        return
                    self.say(control, "226 done")
                case "QUIT":
                    self.say(control, "221 bye")
                    return
                case _:
                    self.say(control, "200 fine")

    def say(self, control: socket.socket, text: str) -> None:
        control.sendall(f"{text}\r\n".encode())


def accepting(listener: socket.socket) -> Callable[[], socket.socket]:
    return lambda: listener.accept()[0]


def connecting(host: str, port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection((host, port))


@pytest.fixture(params=["127.0.0.1", "::1"])
def any_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from served(request.param)


@pytest.fixture
def server() -> Iterator[Server]:
    yield from served("127.0.0.1")


def served(host: str) -> Iterator[Server]:
    try:
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as lacking:
        pytest.skip(f"no {host} here: {lacking}")
    made = Server(listener)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def session(server: Server, **options: bool) -> Session:
    return Session(Here(), *server.address, timeout=1.0, **options)


def test_files_folders_and_uploads_by_each_method(any_server: Server) -> None:
    methods = METHODS if any_server.address[0] == "127.0.0.1" else ("EPSV", "EPRT")
    with session(any_server) as opened:
        assert opened.server == "rs1"
        for method in methods:
            short = opened.retrieve("server.txt", method)
            assert (short.content, short.size, short.data.method) == (b"rs1\n", 4, method)
            large = opened.retrieve("pub/large", method)
            assert (large.size, large.content) == (len(LARGE), b"")
            assert large.sha256 == sha256(LARGE).hexdigest()
            # Who listened is who announced.
            end = large.data.other if method in ftp.PASSIVE else large.data.client
            assert end == large.data.announced
            assert "pub/large" in opened.listing("", method)
            sent = opened.store(f"incoming/{method}", LARGE, method)
            assert sent.sha256 == sha256(any_server.files[f"incoming/{method}"]).hexdigest()
        opened.quit()
    asked = {line.split()[0] for line in any_server.asked}
    assert asked & set(METHODS) == set(methods)


def test_the_address_in_a_reply_is_believed_or_not(server: Server) -> None:
    own = server.say

    def elsewhere(control: socket.socket, text: str) -> None:
        own(control, text.replace("(127,0,0,1,", "(127,0,0,99,"))

    server.say = elsewhere  # type: ignore[method-assign]
    with session(server, trusting=False) as opened:
        taken = opened.retrieve("server.txt", "PASV")
    assert taken.data.announced.startswith("127.0.0.99:")
    assert taken.data.other.startswith("127.0.0.1:")
    with session(server) as opened, pytest.raises(FtpFailed) as failed:
        opened.retrieve("server.txt", "PASV")
    assert failed.value.kind == "no-data"
    assert failed.value.server == "rs1"
    assert failed.value.data is not None
    assert failed.value.data.announced.startswith("127.0.0.99:")
    assert "the reply named 127.0.0.99:" in str(failed.value)


@pytest.mark.parametrize(
    ("command", "reply", "kind", "message"),
    [
        ("RETR", "425 Failed to establish connection.", "no-data", "could not make the data connection"),
        ("RETR", "550 Failed to open file.", "bad-reply", "replied '550 Failed to open file.'"),
        ("PORT", "500 Illegal PORT command.", "bad-reply", "500 Illegal PORT command."),
        ("PORT", "", "no-reply", "no reply, or no data, in time"),
    ],
)
def test_replies_that_mean_no(server: Server, command: str, reply: str, kind: str, message: str) -> None:
    server.replies[command] = reply
    if not reply:
        server.say = lambda control, text, own=server.say: own(control, text) if text else None  # type: ignore[method-assign,misc]
    with session(server) as opened, pytest.raises(FtpFailed) as failed:
        opened.retrieve("server.txt", "PORT")
    assert failed.value.kind == kind
    assert message in str(failed.value)


def test_a_reply_that_does_not_come_after_the_data_connection(server: Server) -> None:
    """What a director does that counts TCP's sequence numbers wrong."""
    server.replies["RETR"] = ""
    server.say = lambda control, text, own=server.say: own(control, text) if text else None  # type: ignore[method-assign,misc]
    with session(server) as opened, pytest.raises(FtpFailed, match="by PASV: no reply") as failed:
        opened.retrieve("server.txt", "PASV")
    assert failed.value.kind == "no-reply"
    assert failed.value.data is not None
    assert failed.value.data.client


def test_a_transfer_that_is_cut(server: Server) -> None:
    server.cut = 1000
    with session(server) as opened, pytest.raises(FtpFailed, match="broke off") as failed:
        opened.retrieve("pub/large")
    assert failed.value.kind == "broken-off"
    assert failed.value.data is not None
    assert failed.value.data.client


def test_nobody_listens(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    with pytest.raises(FtpFailed, match="was refused\n  nothing listens there") as failed:
        Session(Here(), "127.0.0.1", port)
    assert (failed.value.kind, failed.value.server, failed.value.data) == ("refused", "", None)


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(FtpFailed, match="no greeting in time") as failed:
            Session(Here(), "127.0.0.1", int(silent.getsockname()[1]), timeout=0.05)
        assert failed.value.kind == "no-reply"


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())  # there is room for one
        with pytest.raises(FtpFailed, match="no answer in time\n  packets are lost") as failed:
            Session(Here(), "127.0.0.1", int(full.getsockname()[1]), timeout=0.05)
    assert failed.value.kind == "no-connection"


def test_a_server_that_lets_nobody_in(server: Server) -> None:
    server.replies["USER"] = "530 This FTP server is for others."
    with pytest.raises(FtpFailed, match="530 This FTP server is for others"):
        session(server)


def test_a_request_is_a_login(server: Server) -> None:
    reply = ftp.ask(*server.address, "an-id")
    assert (reply.server, reply.status, reply.request_id) == ("rs1", 220, "an-id")
    assert (reply.source_address, reply.source_port > 0) == ("127.0.0.1", True)
    assert server.asked[-1] == "QUIT"


@pytest.mark.parametrize(("said", "kind"), [("530 no", "other"), ("421 full", "other")])
def test_a_login_that_fails(server: Server, said: str, kind: str) -> None:
    server.replies["PASS"] = said
    with pytest.raises(RequestFailed, match=r"the control connection to .* replied") as caught:
        ftp.ask(*server.address, "an-id")
    assert caught.value.kind == kind


def test_a_refused_login() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        place = closed.getsockname()
    with pytest.raises(RequestFailed) as caught:
        ftp.ask(place[0], place[1], "an-id")
    assert (caught.value.kind, caught.value.request_id) == ("refused", "an-id")
