"""Ports of clients that do not come again while somebody remembers the connection that had them.

A director remembers connections for two minutes, and real servers may for as long. Clients take ports at
random, and rarely the same one again; but checks make many connections, from few addresses.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")

# One port for each 5 ms, over and over: 130 s for all of them.
_TICK = 5_000_000
_PORTS = range(34000, 60000)
_AHEAD = 40
"""So many may be taken before their time: another process here takes longer to start."""
_ATTEMPTS = 20
_taking = threading.Lock()
_last = 0


def fresh() -> int:
    """A port that nobody had from here in the last two minutes. Clients' kernels choose one that was used
    seconds ago, where nothing of that connection is left with them.

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
    global _last
    with _taking:
        now = time.monotonic_ns()
        _last = mine = max(now // _TICK, _last + 1)
    time.sleep(max(0.0, ((mine - _AHEAD) * _TICK - now) / 1e9))
    return _PORTS[mine % len(_PORTS)]


def on_fresh(make: Callable[[int], Made]) -> Made:
    """What ``make`` makes on a fresh port, or on the next one where some other connection has that. Raises
    what ``make`` does."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return make(fresh())
        except OSError as refused:
            if not is_taken(refused):
                raise
    return make(fresh())


def is_taken(error: BaseException | None) -> bool:
    """Whether this is what is said of a port that some other connection has."""
    return isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
