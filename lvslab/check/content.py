"""Checks that all real servers of a virtual service present the same content.

Files are requested through the service, as clients do, until every server has presented every file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256

from lvslab.check.traffic import http
from lvslab.check.traffic.http import Place, new_request_id
from lvslab.errors import CheckFailed

Presented = Mapping[str, Mapping[str, str]]
"""Path to server to content: a SHA-256 in hexadecimal digits, or a status such as ``status 404``."""

REQUESTS_PER_SERVER = 10
"""Maximum number of requests for each file, for each server. They are made one after the other, so every
server of a director that balances gets its turn."""
CATCHING_UP = 300
"""Number of requests for the first file in which every server has its turn, on a director that was in use:
a scheduler that counts connections first gives those with fewer of them what they lack."""

_SHOWN_DIGITS = 12
_MOST_LINES = 12


def presented(
    place: Place, address: str, port: int, paths: Sequence[str], servers: Collection[str]
) -> dict[str, dict[str, str]]:
    """Request ``paths`` at ``address``:``port`` until each of ``servers`` has presented each of them.

    Replies name their servers; one that never replied is missing in the result. Raises CheckFailed where a
    request gets no whole reply.
    """
    found: dict[str, dict[str, str]] = {}
    for number, path in enumerate(paths):
        seen = found[path] = {}
        most = REQUESTS_PER_SERVER * len(servers)
        for _ in range(most if number else max(most, CATCHING_UP)):
            if seen.keys() >= set(servers):
                break
            made = http.attempt(place, address, port, new_request_id(), path=path)
            if made.failure not in (None, "status"):
                raise CheckFailed(
                    f"a request for {path} was not answered ({made.failure})",
                    "is the service up, and does each of its servers answer?",
                )
            status = f"status {made.status}"
            seen[made.server] = sha256(made.body).hexdigest() if made.failure is None else status
    return found


def all_alike(found: Presented, reference: str, servers: Collection[str]) -> None:
    """Check that each of ``servers`` presents the same content as ``reference``.

    Raises CheckFailed with each server and file that differs, and with servers that never replied.
    """
    if not found:
        raise CheckFailed("the service presented no files to compare", "has the content been made?")
    wrong = [
        (server, line)
        for path, seen in found.items()
        for server in servers
        if (line := _difference(path, server, seen, reference))
    ]
    if not wrong:
        return
    lines = [line for _, line in wrong]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    behind = ", ".join(dict.fromkeys(server for server, _ in wrong))
    raise CheckFailed(
        "\n  ".join([f"the servers do not present the same content as {reference}", *lines]),
        f"has rsync been run on {behind} since the last change? With --delete, and --checksum where a file "
        "may have changed and kept its size and time?",
    )


def _difference(path: str, server: str, seen: Mapping[str, str], reference: str) -> str:
    if server not in seen:
        return f"{path}: {server} was never seen; does the director give it connections?"
    if reference not in seen:
        return ""  # told once, of the reference itself, which is one of the servers
    own, right = seen[server], seen[reference]
    if own == right:
        return ""
    if not _is_checksum(right):
        has = "has it" if _is_checksum(own) else f"says {own}"
        return f"{path}: {server} {has}, and {reference} does not have it ({right})"
    if not _is_checksum(own):
        return f"{path}: {server} does not have it ({own})"
    return (
        f"{path}: {server} has another one, {own[:_SHOWN_DIGITS]}... instead of {right[:_SHOWN_DIGITS]}..."
    )


def _is_checksum(text: str) -> bool:
    return len(text) == sha256().digest_size * 2


def paths_of(listings: Collection[str]) -> Iterator[str]:
    """Return the distinct paths, sorted, in outputs of ``find . -type f`` in document roots."""
    yield from sorted(
        {line.removeprefix(".") for listing in listings for line in listing.splitlines() if line}
    )
