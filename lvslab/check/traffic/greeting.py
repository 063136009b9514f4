"""Clients of servers that name themselves on a connection: SMTP's greeting, and a line over SCTP.

A request is finished when its connection is, as in `lvslab.check.traffic.http`.
"""

from __future__ import annotations

import smtplib
import socket
import time
from contextlib import closing

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic.request import TIMEOUT, Here, Reply, RequestFailed, connect, failed, failure_kind
from lvslab.errors import CheckFailed

IPPROTO_SCTP = 132


def ask_smtp(address: str, port: int, request_id: str) -> Reply:
    """Read a mail server's greeting, say EHLO with the request's id, and QUIT. Raises RequestFailed.

    ``status`` and ``body`` are the greeting's (``220`` and ``real-server-1 ESMTP``).
    """
    began, said = time.monotonic(), False
    stream = _connected(address, port, request_id)
    try:
        own = stream.getsockname()[:2]
        # Its own context manager would say QUIT a second time.
        with closing(smtplib.SMTP(timeout=TIMEOUT, local_hostname=request_id)) as mail:
            mail.sock = stream
            status, greeting = mail.getreply()
            said = True
            if status == 220:
                mail.ehlo()
                mail.docmd("QUIT")
                _await_end(stream)
    except OSError as error:
        # smtplib says of every error, and of the end of the stream, that the server has disconnected.
        cause: Exception = error
        if isinstance(error, smtplib.SMTPServerDisconnected):
            cause = error.__context__ if isinstance(error.__context__, OSError) else EOFError()
        kind = failure_kind(cause, connected=True, begun=said)
        raise failed(kind, request_id, endpoint(address, port), TIMEOUT, cause) from error
    finally:
        stream.close()
    text = greeting.decode(errors="replace")
    if status != 220:
        raise RequestFailed(
            "other", request_id, f"{endpoint(address, port)} greeted with {status} {text}", None
        )
    return Reply(text.partition(" ")[0], status, text, request_id, time.monotonic() - began, *own)


def ask_sctp(address: str, port: int, request_id: str) -> Reply:
    """Send a line with the request's id over SCTP, and read the answer.

    Both are as in `udp`. Raises RequestFailed, CheckFailed where this machine's kernel does not have SCTP.
    """
    began, received = time.monotonic(), b""
    try:
        stream = _connected(address, port, request_id, IPPROTO_SCTP)
    except RequestFailed as failure:
        if isinstance(failure.__cause__, OSError) and not sctp_here():
            raise CheckFailed(
                "clients cannot make SCTP associations: this machine's kernel does not have SCTP",
                "load the module sctp, or use a machine that has it",
            ) from None
        raise
    with stream:
        try:
            own = stream.getsockname()[:2]
            stream.sendall(f"{request_id}\n".encode())
            while part := stream.recv(65536):
                received += part
        except OSError as error:
            kind = failure_kind(error, connected=True, begun=bool(received))
            raise failed(kind, request_id, endpoint(address, port), TIMEOUT, error) from error
    server, _, echo = received.decode(errors="replace").partition("\n")
    if echo != f"{request_id}\n":
        raise failed("broken-off", request_id, endpoint(address, port), TIMEOUT)
    return Reply(server, 0, echo, request_id, time.monotonic() - began, *own)


def sctp_here() -> bool:
    """Return True if this machine's kernel makes SCTP sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _connected(address: str, port: int, request_id: str, protocol: int = 0) -> socket.socket:
    try:
        return connect(Here(), (address, port), ("", 0), TIMEOUT, protocol)
    except OSError as error:
        kind = failure_kind(error, connected=False)
        raise failed(kind, request_id, endpoint(address, port), TIMEOUT, error) from error


def _await_end(stream: socket.socket) -> None:
    while stream.recv(65536):
        pass
