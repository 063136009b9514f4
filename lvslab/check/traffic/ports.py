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

# Below those that a kernel chooses by itself (ip_local_port_range, from 32768 on), such as those of wrk.
_PORTS = range(6000, 32000)
_AHEAD = 40
"""Ports that may be taken ahead of time. Another process on this machine takes longer to start."""
_ATTEMPTS = 20


class _Sequence:
    """Ports in turn, one for each ``tick`` nanoseconds of the machine's clock, over and over."""

    def __init__(self, tick: int) -> None:
        self._tick = tick
        self._taking = threading.Lock()
        self._last = 0

    def take(self) -> int:
        """Return the next port, after a wait where many were taken."""
        with self._taking:
            now = time.monotonic_ns()
            self._last = mine = max(now // self._tick, self._last + 1)
        time.sleep(max(0.0, ((mine - _AHEAD) * self._tick - now) / 1e9))
        return _PORTS[mine % len(_PORTS)]


_TCP = _Sequence(5_000_000)  # 130 s for all ports
_UDP = _Sequence(12_000_000)  # 312 s: directors remember datagrams for 300 s


def fresh() -> int:
    """Return a TCP port that this machine's processes have not got for two minutes.

    It is not one that kernels choose either, so no load or other traffic of a client has used it. A client's
    kernel chooses ports that were used seconds ago, once it has forgotten their connections. That
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
    return _TCP.take()


def fresh_udp() -> int:
    """Return a UDP port that this machine's processes have not got for five minutes."""
    return _UDP.take()


def on_fresh(make: Callable[[int], Made], *, udp: bool = False) -> Made:
    """Call ``make`` with fresh ports until one is not in use. Raises what ``make`` raises."""
    take = fresh_udp if udp else fresh
    for _ in range(_ATTEMPTS - 1):
        try:
            return make(take())
        except OSError as refused:
            if refused.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
    return make(take())
