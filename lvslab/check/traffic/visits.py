"""Visits to a web server by name, which the C library's resolver looks up.

Clients differ in what they do with several addresses. Here are three kinds: one that takes getaddrinfo's
first address only; the library requests, which tries one address after the other; and curl. All run inside a
Mininet host and read its /etc/resolv.conf.
"""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from lvslab.check.ipvs.table import endpoint
from lvslab.check.traffic import http, ports
from lvslab.check.traffic.http import Place, RequestFailed
from lvslab.errors import CheckFailed
from lvslab.run import run

Family = Literal["any", "IPv4", "IPv6"]
_FAMILIES = {"any": socket.AF_UNSPEC, "IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}


@dataclass(frozen=True)
class Visit:
    """One visit.

    ``address`` is the one that was taken, "" where the client does not say; ``server`` the real server that
    made the page, "" where the visit failed; ``failure`` says how it failed, None where it did not.
    """

    address: str
    server: str
    seconds: float
    failure: str | None = None


@dataclass(frozen=True)
class Visits:
    """Visits in the order in which they began."""

    all: tuple[Visit, ...]

    @property
    def answered(self) -> tuple[Visit, ...]:
        """The visits that got a page."""
        return tuple(visit for visit in self.all if visit.failure is None)

    @property
    def failed(self) -> tuple[Visit, ...]:
        """The visits that got no page."""
        return tuple(visit for visit in self.all if visit.failure is not None)

    @property
    def slowest(self) -> float:
        """Seconds of the longest visit that got a page, 0 for none."""
        return max((visit.seconds for visit in self.answered), default=0.0)

    def by(self, owner: Callable[[Visit], str]) -> dict[str, int]:
        """Count the visits that got a page by what ``owner`` returns for them."""
        return dict(Counter(map(owner, self.answered)))


def look_up(name: str, family: Family = "any", port: int = 80) -> tuple[str, ...]:
    """Look up ``name`` where the caller is: its addresses in the order of getaddrinfo (RFC 6724).

    Raises CheckFailed where there is none.
    """
    try:
        found = socket.getaddrinfo(name, port, _FAMILIES[family], socket.SOCK_STREAM)
    except OSError as failed:
        raise CheckFailed(
            f"getaddrinfo finds no address of {name}: {failed}",
            "is the name server up, is it in /etc/resolv.conf, and has the zone such a name?",
        ) from None
    return tuple(str(place[0]) for *_, place in found)


def first_address(
    place: Place, name: str, count: int, *, family: Family = "any", timeout: float = 5.0, at_once: int = 1
) -> Visits:
    """Make ``count`` visits by clients that take getaddrinfo's first address and no other.

    A visit fails where that address gives no answer within ``timeout`` seconds. ``at_once`` is the number of
    visits at the same time. Raises CheckFailed where the name has no address.
    """
    return _visits(place, lambda: _to(look_up(name, family)[0], timeout), count, at_once)


def one_of(place: Place, choose: Callable[[], str], count: int, *, timeout: float = 5.0) -> Visits:
    """Make ``count`` visits in turn, each to the address that ``choose`` returns."""
    return _visits(place, lambda: _to(choose(), timeout), count, 1)


def by_requests(place: Place, name: str, count: int, *, timeout: float = 5.0) -> Visits:
    """Make ``count`` visits in turn by the library requests.

    It tries the addresses in the order of getaddrinfo until one connects, each for ``timeout`` seconds.
    Each visit makes a new connection, without a proxy.
    """
    return _visits(place, lambda: _requests(name, timeout), count, 1)


def by_curl(place: Place, name: str, count: int) -> Visits:
    """Make ``count`` visits in turn by curl. Raises CheckFailed where curl is not installed."""
    if shutil.which("curl") is None:
        raise CheckFailed("curl is not installed on this machine")
    return _visits(place, lambda: _curl(name), count, 1)


def _visits(place: Place, visit: Callable[[], Visit], count: int, at_once: int) -> Visits:
    def all_of_them() -> tuple[Visit, ...]:
        if at_once == 1:
            return tuple(visit() for _ in range(count))
        # A thread has the namespaces of the thread that starts it.
        with ThreadPoolExecutor(at_once) as workers:
            return tuple(workers.map(lambda _: visit(), range(count)))

    return Visits(place.call(all_of_them))


def _to(address: str, timeout: float) -> Visit:
    begun = time.monotonic()
    try:
        server, failure = http.get(f"http://{endpoint(address, 80)}/", connect_timeout=timeout).server, None
    except RequestFailed as failed:
        server, failure = "", failed.message
    return Visit(address, server, time.monotonic() - begun, failure)


def _requests(name: str, timeout: float) -> Visit:
    # Imported here, in the client's namespace: urllib3 tries then whether there is IPv6.
    import requests
    from requests.adapters import HTTPAdapter

    begun, port = time.monotonic(), ports.on_fresh(_free)
    try:
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Connection"] = "close"
            adapter = HTTPAdapter()
            adapter.init_poolmanager(1, 1, source_address=("", port))
            session.mount("http://", adapter)
            reply = session.get(f"http://{name}/", timeout=(timeout, http.TIMEOUT), allow_redirects=False)
        server, failure = reply.headers.get(http.SERVER_HEADER, ""), None
    except requests.RequestException as failed:
        server, failure = "", str(failed)
    return Visit("", server, time.monotonic() - begun, failure)


def _free(port: int) -> int:
    """Return ``port`` if it can be bound. Raises OSError."""
    with socket.socket() as probe:
        probe.bind(("", port))
    return port


_SAID = re.compile(rf"^{http.SERVER_HEADER}: *(\S+)", re.IGNORECASE | re.MULTILINE)


def _curl(name: str) -> Visit:
    begun = time.monotonic()
    words = ["curl", "-sS", "-q", "--noproxy", "*", "-m", "10", "-D", "-", "-w", "\n%{remote_ip}"]
    done = run([*words, f"http://{name}/"], check=False)
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        return Visit("", "", seconds, done.stderr.decode().strip())
    said = done.stdout.decode(errors="replace")
    server = _SAID.search(said)
    return Visit(said.rpartition("\n")[2], server[1] if server else "", seconds)


# --- verdicts ----------------------------------------------------------------------------------------------


def all_answered(visits: Visits) -> None:
    """Check that every visit got a page. Raises CheckFailed with the failed visits by address."""
    if failed := visits.failed:
        counts = Counter(visit.address or "an address that the client does not name" for visit in failed)
        where = ", ".join(f"{number} to {address}" for address, number in sorted(counts.items()))
        raise CheckFailed(f"{len(failed)} of {len(visits.all)} visits failed: {where}", failed[0].failure)


def shared_evenly(visits: Visits, owner: Callable[[Visit], str], owners: Sequence[str]) -> None:
    """Check that each of ``owners`` (directors) answered the same number of visits. Raises CheckFailed."""
    counts = visits.by(owner)
    wanted, rest = divmod(len(visits.all), len(owners))
    assert not rest, "a number of visits that cannot be shared evenly"
    if counts != dict.fromkeys(owners, wanted):
        names = [*owners, *sorted({*counts} - {*owners})]
        found = ", ".join(f"{name} {counts.get(name, 0)}" for name in names)
        raise CheckFailed(
            f"the visits were not shared evenly: {found}, and each should have had {wanted}",
            "does the name server rotate its records, has each director one, and does the client leave them "
            "in the order in which they came?",
        )
