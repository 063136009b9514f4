"""TCP connections from inside a client's network namespace that stay open, and whose real server is known.

Schedulers that count active connections show what they do only while there are some. Each connection asks
for a page and has read all of it when `HeldConnections.open` returns, so the handshake has passed the
director and the connection is active there; when `HeldConnection.finish` returns, the server's FIN has
passed it, and the connection is inactive (see `lvslab.check.schedulers`).
"""

from __future__ import annotations

import errno
import socket
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Self

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import ports
from lvslab.check.traffic.http import SERVER_HEADER, TIMEOUT, Place, RequestFailed


class HeldConnection:
    """One open connection. ``server`` is the real server's name, "" where its reply does not say;
    ``source_address`` and ``source_port`` are the client's side."""

    def __init__(self, connection: HTTPConnection, place: str) -> None:
        self._connection = connection
        self._place = place
        self.source_address, self.source_port = connection.sock.getsockname()[:2]
        self.server = self.ask()

    def ask(self, *, last: bool = False) -> str:
        """Ask for the page once more, and return the name of the server that answers; with ``last`` the
        server is to end the connection after that. Raises RequestFailed."""
        try:
            self._connection.request("GET", "/", headers={"Connection": "close"} if last else {})
            response: HTTPResponse = self._connection.getresponse()
            response.read()
        except (OSError, HTTPException) as error:
            raise _failed(error, self._place) from error
        return response.headers.get(SERVER_HEADER, "")

    def finish(self) -> None:
        """Have the server end the connection, and return when it has. A second time does nothing.

        Raises RequestFailed where it does not answer any more.
        """
        stream = self._connection.sock
        if stream is None:
            return
        # A second descriptor: http.client lets go of its own when the reply says that it is the last.
        with stream.dup() as end:
            end.settimeout(TIMEOUT)
            self.ask(last=True)
            try:
                while end.recv(65536):
                    pass
            except OSError as error:
                raise _failed(error, self._place) from error
            finally:
                self._connection.close()

    def drop(self) -> None:
        """Close the client's side and wait for nothing."""
        self._connection.close()


class HeldConnections:
    """Connections made in ``namespace``; those that are still open are dropped at the end."""

    def __init__(self, namespace: Place) -> None:
        self._namespace = namespace
        self._open: list[HeldConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._open:
            connection.drop()
        self._open.clear()

    def open(self, address: str, port: int, *, source: str = "", seconds: float = TIMEOUT) -> HeldConnection:
        """Connect to ``address`` and ``port``, ask for a page there, and keep the connection.

        ``source`` is an address of the client; its first that fits where none is given. The port is a fresh
        one. Raises RequestFailed where the connection does not come about, or no page comes.
        """
        place = endpoint(address, port)
        connection = HTTPConnection(address, port, timeout=seconds)
        # It must not connect anew by itself when the server has ended the connection.
        connection.auto_open = 0

        def connect(own: int) -> socket.socket:
            # A socket belongs to the namespace of the thread that makes it; it can be used from any other.
            return self._namespace.call(socket.create_connection, (address, port), seconds, (source, own))

        try:
            connection.sock = ports.on_fresh(connect)
        except OSError as error:
            raise _failed(error, place) from error
        try:
            held = HeldConnection(connection, place)
        except BaseException:
            connection.close()
            raise
        self._open.append(held)
        return held


def _failed(error: Exception, place: str) -> RequestFailed:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ECONNREFUSED:
        return RequestFailed(
            "refused",
            "",
            f"connection refused by {place}",
            "no such virtual service on the director, or none of its servers takes the connection",
        )
    if isinstance(error, TimeoutError):
        return RequestFailed("no-connection", "", f"no answer from {place} in time")
    if number in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return RequestFailed("unreachable", "", f"{place} cannot be reached from here")
    if isinstance(error, HTTPException) or number in (errno.ECONNRESET, errno.EPIPE):
        return RequestFailed("broken-off", "", f"the connection to {place} broke off: {error or 'no reply'}")
    return RequestFailed("other", "", f"the connection to {place} failed: {error}")
