"""Ports of clients that do not come again while somebody remembers the connection that had them.

A director remembers connections for two minutes, and real servers may for as long. Clients take ports at
random, and rarely the same one again; but checks make many connections, from few addresses.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")

# One port for each 5 ms, over and over: 130 s for all of them.
_TICK = 5_000_000
_PORTS = range(34000, 60000)
_ATTEMPTS = 20


def fresh() -> int:
    """A port that nobody had from here in the last two minutes.

    Where a client listens for FTP data on one that it had, the helper finds the old connection and its
    server (``ip_vs_ftp_in`` asks ``ip_vs_conn_in_get`` first, from 2.4 to today), and what comes of the new
    server is none of its business.

    For a real server behind a masquerading director, connections through several virtual services differ by
    nothing but the client's port. Where it has ended an old one itself and still remembers it (TIME_WAIT,
    60 s), and the timestamps of the new one look older because they were made for another virtual address
    (``secure_tcp_ts_off``), it acknowledges the old one. The client resets that and asks anew within some 10
    ms (``tcp_rcv_synsent_state_process``), and the director, which has seen the reset, schedules a second
    time (``conn_reuse_mode``): a server loses its turn. Seen on 6.1.
    """
    tick = time.monotonic_ns() // _TICK + 1
    time.sleep(max(0.0, (tick * _TICK - time.monotonic_ns()) / 1e9))  # so nobody gets the same one
    return _PORTS[tick % len(_PORTS)]


def on_fresh(make: Callable[[int], Made]) -> Made:
    """What ``make`` makes on a fresh port, or on the next one where some other connection has that. Raises
    what ``make`` does."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return make(fresh())
        except OSError as refused:
            if refused.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    return make(fresh())
