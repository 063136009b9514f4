"""Client ports whose last connection no director or server remembers.

A director remembers connections for two minutes, and real servers may for as long. Clients usually take
ports at random and seldom repeat one, but checks make many connections from few addresses.
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
"""Ports that may be taken ahead of time. Another process on this machine takes longer to start."""
_ATTEMPTS = 20
_taking = threading.Lock()
_last = 0


def fresh() -> int:
    """Return a port that no process of this machine got in the last two minutes.

    A client's kernel chooses ports that were used seconds ago, once it has forgotten their connections. That
    disturbs checks in two ways:

    * Where a client listens for FTP data on a used port, the FTP helper finds the old connection and its
      server (``ip_vs_ftp_in`` calls ``ip_vs_conn_in_get`` first, from 2.4 to today) and ignores the new one.
    * For a real server behind a masquerading director, connections through several virtual services differ
      in the client's port only. Where the server closed an old one itself and still remembers it (TIME_WAIT,
      60 s), and the timestamps of the new one look older because they were made for another virtual address
      (``secure_tcp_ts_off``), it acknowledges the old one. The client resets that and tries again within
      some 10 ms (``tcp_rcv_synsent_state_process``), and the director, which has seen the reset, schedules a
      second time (``conn_reuse_mode``): a server loses its turn. Seen on 6.1.
    """
    global _last
    with _taking:
        now = time.monotonic_ns()
        _last = mine = max(now // _TICK, _last + 1)
    time.sleep(max(0.0, ((mine - _AHEAD) * _TICK - now) / 1e9))
    return _PORTS[mine % len(_PORTS)]


def on_fresh(make: Callable[[int], Made]) -> Made:
    """Call ``make`` with fresh ports until one is not in use. Raises what ``make`` raises."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return make(fresh())
        except OSError as refused:
            if refused.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    return make(fresh())
