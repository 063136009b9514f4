"""Random markers that separate the outputs of commands in one shell.

``wrap`` makes the text to type, and MarkerReader finds the end of the command in the output.
"""

from __future__ import annotations

import re

OUTPUT_LIMIT = 1 << 20
"""Bytes of the output of a command that are kept, since an endless output must not fill the memory."""


def wrap(command: str, first: str, second: str) -> str:
    """Make text by which a shell runs ``command`` and prints ``first`` + ``second`` + status.

    With ``eval``, a syntax error fails the command and not the shell; with ``command`` before it, the error
    does not end the shell (POSIX 2.8.1; tried in dash, bash and busybox). The stdin of the shell has its
    input, so the command gets another one.
    """
    # Without the empty line, bash 5.2 does not accept a `{` right after an unclosed quote.
    quoted = command.replace("'", "'\\''")
    return f"command eval '{quoted}\n' </dev/null\n\n{{ lvslab_ended {first} {second} $?; }} 2>/dev/null\n"


class MarkerReader:
    """Splits the output of a shell at a marker: a command's output, its status, the rest."""

    def __init__(self, marker: str, before: bytes = b"", limit: int = OUTPUT_LIMIT) -> None:
        self._pattern = re.compile(re.escape(marker.encode()) + rb" (\d{1,3})\n")
        self._longest = len(marker) + len(" 255\n")
        self._limit = limit
        self._kept = bytearray()
        self._left_out = 0
        self._open = bytearray(before)
        self.rest = b""

    def feed(self, data: bytes) -> int | None:
        """Process ``data``; return the status if the marker has been found, else None."""
        self._open += data
        if found := self._pattern.search(self._open):
            status, start, end = int(found[1]), found.start(), found.end()
            self.rest = bytes(self._open[end:])
            del self._open[start:]
            self._keep(start)
            return status
        # Only the last bytes can be the beginning of a marker; the others are not searched again.
        self._keep(len(self._open) - self._longest)
        return None

    def text(self) -> str:
        """Return the output so far, without the marker."""
        seen = bytes(self._kept + self._open).decode(errors="replace")
        return f"{seen}\n[{self._left_out} bytes more]\n" if self._left_out else seen

    def _keep(self, count: int) -> None:
        count = max(count, 0)
        room = self._limit - len(self._kept)
        self._kept += self._open[: min(count, room)]
        self._left_out += max(count - room, 0)
        del self._open[:count]
