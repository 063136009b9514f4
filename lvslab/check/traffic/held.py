"""HTTP connections from inside a client's network namespace that stay open.

Schedulers that count active connections show it only while there are some. `HeldConnections.open` returns
when a page has been read, so the handshake has passed the director and the connection is active there. When
`HeldConnection.finish` returns, the server's FIN has passed it, and the connection is inactive (see
`lvslab.check.schedulers`).
"""

from __future__ import annotations

from lvslab.check.traffic.http import Connection
from lvslab.check.traffic.request import TIMEOUT, Place
from lvslab.closing import Closing


class HeldConnection(Connection):
    """A connection that stays open to ``server``, "" where no reply names it."""

    def ask(self, *, last: bool = False) -> str:
        """Request the page once more and return the name of the server that answers.

        With ``last`` the server is told to close the connection after it. Raises RequestFailed.
        """
        self.request(last=last)
        return self.server

    def finish(self) -> None:
        """Have the server close the connection, and return when it has. A second time does nothing.

        Raises RequestFailed where the server does not answer.
        """
        if not self.is_open:
            return
        try:
            self.ask(last=True)
            self.await_end()
        finally:
            self.close()


class HeldConnections(Closing):
    """Connections made in ``namespace``; those still open at the end of the block are closed."""

    def __init__(self, namespace: Place) -> None:
        self._namespace = namespace
        self._open: list[HeldConnection] = []

    def close(self) -> None:
        """Close the client's side of all connections and wait for nothing."""
        for connection in self._open:
            connection.close()

    def open(self, address: str, port: int, *, source: str = "", seconds: float = TIMEOUT) -> HeldConnection:
        """Connect to ``address`` and ``port``, read a page, and keep the connection.

        ``source`` is an address of the client, the first that fits where none is given; the port is a fresh
        one. ``seconds`` is the longest wait for the connection and for each piece of a reply. Raises
        RequestFailed.
        """
        held = HeldConnection(self._namespace, address, port, source=source, timeouts=(seconds, seconds))
        try:
            held.ask()
        except BaseException:
            held.close()
            raise
        self._open.append(held)
        return held
