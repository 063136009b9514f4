"""Relays for the lab's connections.

A socket keeps its network namespace alive, and a TCP connection into a guest that is gone stays open. So a
client gets one end of a socketpair, which closes when the lab ends or the guest falls silent.
"""

from __future__ import annotations

import contextlib
import socket
import threading


def relayed(far: socket.socket, patience: float) -> socket.socket:
    """Return a stream socket that this process connects with the TCP connection ``far``.

    ``far`` is taken over. It breaks when the kernel on its other side is silent for ``patience`` seconds.
    """
    far.settimeout(None)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, max(1, int(patience / 2))),
        (socket.TCP_KEEPINTVL, max(1, int(patience / 5))),
        (socket.TCP_USER_TIMEOUT, int(patience * 1000)),  # in place of a number of probes, and for data too
    ):
        far.setsockopt(socket.IPPROTO_TCP, option, value)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ours, theirs = socket.socketpair()
    done = threading.Barrier(2)
    for source, target in ((far, ours), (ours, far)):
        threading.Thread(target=_copy, args=(source, target, done), name="relay", daemon=True).start()
    return theirs


def _copy(source: socket.socket, target: socket.socket, done: threading.Barrier) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    # The other direction may go on; the last one out closes.
    done.wait()
    source.close()
