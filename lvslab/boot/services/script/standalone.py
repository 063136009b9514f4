"""A server program: datagrams, SCTP and the greeting of a mail server, each of which names the server.

It runs on Mininet hosts, and in guests that have a small Python and nothing of lvslab. It uses only modules
that are built into Python: an emulated guest would compile others for seconds. Run as
``python3 standalone.py KIND NAME LOG PORT...``; it prints a line when it listens on all ports, in both
families as far as the kernel has them.

* ``udp``: each datagram is answered with NAME, a line end, and the datagram, from the address that it was
  sent to. A socket that is bound to no address would answer from the address that the route to the client
  has, which is another one where a virtual address is on ``lo``.
* ``sctp``: a line is answered the same way, and the association is shut down.
* ``smtp``: the commands of RFC 5321, section 4.5.1. It greets with its name and takes no mail.

Each request is a line of JSON in LOG, with the first line of a datagram, the line over SCTP or the argument
of EHLO as its id.
"""

from __future__ import annotations

import _socket
import _thread
import posix
import select
import sys
import time

TYPE_CHECKING = False  # as in typing, which is not built in
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    Client = tuple[Any, ...]
    Stream = _socket.socket

READY = "listening"
IPPROTO_SCTP = 132
# include/uapi/linux/in.h and in6.h; Python has names for some of them since 3.14 only.
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_MOST = 65535
_LONGEST_LINE = 512  # RFC 5321, section 4.5.3.1.4
_PATIENCE = 300.0  # seconds: RFC 5321, section 4.5.3.2.7
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_LONGEST_ID = 128
_FAMILIES = (_socket.AF_INET, _socket.AF_INET6)


class Log:
    """A log of requests, in the form of the lab's web servers."""

    def __init__(self, path: str, name: str) -> None:
        # At the end, and each line by one call: the file may be read, and emptied, meanwhile.
        self._file = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o644)
        self._name = name

    def add(self, request_id: bytes, client: Client, status: int = 0) -> None:
        """Write a line for one request."""
        text = request_id.decode("utf-8", "replace").strip()
        # Other characters would have to be escaped in JSON.
        known = text if _PLAIN.issuperset(text) and len(text) <= _LONGEST_ID else ""
        address = str(client[0]).partition("%")[0]
        line = (
            f'{{"time": {time.time():.3f}, "request_id": "{known}", "client": "{address}", '
            f'"client_port": "{client[1]}", "status": {status}, "path": "", "server": "{self._name}"}}\n'
        )
        posix.write(self._file, line.encode())


class Server:
    """A server with its name and its log."""

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.log = log

    def datagrams(self, own: Stream) -> None:
        """Answer one datagram."""
        data, about, _, client = own.recvmsg(_MOST, 256)
        self.log.add(data.partition(b"\n")[0], client)
        # Too long with the name, or to a client without a route back: as good as lost.
        try:
            own.sendmsg([self.name.encode() + b"\n", data], answers_from(about), 0, client)
        except OSError as error:
            print(f"no answer to {client[0]}: {error}", file=sys.stderr, flush=True)

    def associations(self, listener: Stream) -> None:
        """Answer one line on a new association."""
        self._accept(listener, self._echo)

    def mail(self, listener: Stream) -> None:
        """Greet on a new connection."""
        self._accept(listener, self._mail)

    def _accept(self, listener: Stream, serve: Callable[[Stream, Client], None]) -> None:
        descriptor, client = listener._accept()  # type: ignore[attr-defined]  # not in the stubs

        def run() -> None:
            stream = _socket.socket(fileno=descriptor)
            try:
                stream.settimeout(_PATIENCE)
                serve(stream, client)
            except OSError:
                pass  # the client has gone, or said nothing for minutes
            finally:
                stream.close()

        _thread.start_new_thread(run, ())

    def _echo(self, stream: Stream, client: Client) -> None:
        for line in lines(stream):
            self.log.add(line, client)
            stream.sendall(self.name.encode() + b"\n" + line)
            stream.shutdown(_socket.SHUT_WR)
            return

    def _mail(self, stream: Stream, client: Client) -> None:
        stream.sendall(f"220 {self.name} ESMTP\r\n".encode())
        talk = Mail(self.name)
        for line in lines(stream):
            answer = talk.answer(line)
            if line[:4].upper() in (b"EHLO", b"HELO") and answer.startswith("250"):
                self.log.add(line[4:], client, 250)
            stream.sendall(answer.encode())
            if answer.startswith("221"):
                return


class Mail:
    """The state of one mail session (RFC 5321)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._greeted = self._begun = False

    def answer(self, line: bytes) -> str:
        """Return the answer to a command."""
        if len(line) > _LONGEST_LINE:
            return "500 5.5.2 line too long\r\n"
        verb, _, argument = line.decode("utf-8", "replace").strip().partition(" ")
        match verb.upper():
            case "EHLO" | "HELO" if not argument:
                return f"501 5.5.4 {verb.upper()} needs the name of the client\r\n"
            case "HELO":
                self._greeted, self._begun = True, False
                return f"250 {self._name}\r\n"
            case "EHLO":
                self._greeted, self._begun = True, False
                return f"250-{self._name}\r\n250 ENHANCEDSTATUSCODES\r\n"
            case "QUIT":
                return f"221 2.0.0 {self._name} closes the connection\r\n"
            case "NOOP":
                return "250 2.0.0 OK\r\n"
            case "RSET":
                self._begun = False
                return "250 2.0.0 OK\r\n"
            case "VRFY":
                return "252 2.5.0 cannot say\r\n"
            case "MAIL" if not self._greeted:
                return "503 5.5.1 say EHLO first\r\n"
            case "MAIL" if self._begun:
                return "503 5.5.1 the sender is known already\r\n"
            case "MAIL" if argument.upper().startswith("FROM:<") and ">" in argument:
                self._begun = True
                return "250 2.1.0 OK\r\n"
            case "RCPT" | "DATA" if not self._begun:
                return "503 5.5.1 say MAIL first\r\n"
            case "RCPT" if argument.upper().startswith("TO:<") and ">" in argument:
                return f"550 5.7.1 {self._name} takes no mail\r\n"
            case "DATA":
                return "503 5.5.1 no valid recipients\r\n"
            case "MAIL" | "RCPT":
                return "501 5.5.4 an address in <> is needed\r\n"
        return "500 5.5.2 unknown command\r\n"


def answers_from(about: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Return what sendmsg(2) needs to answer from the address that was asked.

    ``about`` is what recvmsg(2) told of the datagram.
    """
    found = []
    for level, kind, value in about:
        if (level, kind) == (_socket.IPPROTO_IP, _IP_PKTINFO):
            # struct in_pktinfo: interface, local address, destination. Any interface: routes decide.
            found.append((level, kind, bytes(4) + value[4:8] + bytes(4)))
        elif (level, kind) == (_socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            # struct in6_pktinfo: address, interface, which matters for fe80::/10 only.
            local = value[0] == 0xFE and value[1] & 0xC0 == 0x80
            found.append((level, kind, value if local else value[:16] + bytes(4)))
    return found


def lines(stream: Stream) -> Iterator[bytes]:
    """Yield the lines that come, with their ends, until the other side has closed."""
    pending = b""
    while data := stream.recv(4096):
        pending += data
        while b"\n" in pending:
            line, end, pending = pending.partition(b"\n")
            yield line + end
        if len(pending) > _MOST:
            return


def sockets(kind: str, port: int) -> Iterator[Stream]:
    """Yield a socket for each family that the kernel has. Raises OSError."""
    for family in _FAMILIES:
        try:
            if kind == "udp":
                made = _socket.socket(family, _socket.SOCK_DGRAM)
            else:
                made = _socket.socket(family, _socket.SOCK_STREAM, IPPROTO_SCTP if kind == "sctp" else 0)
        except OSError:
            if family == _socket.AF_INET:
                raise
            continue  # a kernel without IPv6
        if family == _socket.AF_INET6:
            made.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 1)
        if kind == "udp":
            if family == _socket.AF_INET:
                made.setsockopt(_socket.IPPROTO_IP, _IP_PKTINFO, 1)
            else:
                made.setsockopt(_socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        if kind != "udp":
            made.listen(128)
        made.setblocking(False)
        yield made


def main(kind: str, name: str, log: str, *ports: str) -> None:
    """Serve until a signal ends the program."""
    server = Server(name, Log(log, name))
    handlers: Mapping[str, Callable[[Stream], None]] = {
        "udp": server.datagrams,
        "sctp": server.associations,
        "smtp": server.mail,
    }
    made = {own.fileno(): own for port in ports for own in sockets(kind, int(port))}
    ready = select.poll()
    for descriptor in made:
        ready.register(descriptor, select.POLLIN)
    print(READY, flush=True)
    while True:
        for descriptor, _ in ready.poll():
            try:
                handlers[kind](made[descriptor])
            except OSError:
                continue  # a client that has gone before it was accepted


if __name__ == "__main__":
    main(*sys.argv[1:])
