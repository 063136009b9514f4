"""How a shell that runs many commands says where one ends: with a marker that nobody can guess.

``wrap`` makes the text that is typed, and MarkerReader finds the end in what comes back.
"""

from __future__ import annotations

import re

# A step that never stops talking must not fill the memory: this many bytes of its output are kept.
OUTPUT_LIMIT = 1 << 20


def wrap(command: str, first: str, second: str) -> str:
    """The text that makes a shell run ``command`` and then print ``first`` + ``second`` and the exit status.

    ``eval`` makes a syntax error the command's own and not the shell's; ``command`` takes away from ``eval``
    that its errors end the shell (POSIX 2.8.1; seen so in dash, bash and busybox). The shell itself reads
    what to do from its stdin, so the command gets another one.
    """
    # The empty line brings bash 5.2 to its senses after an unclosed quote; else it takes no `{` at once.
    quoted = command.replace("'", "'\\''")
    return f"command eval '{quoted}\n' </dev/null\n\n{{ lvslab_ended {first} {second} $?; }} 2>/dev/null\n"


class MarkerReader:
    """Splits what a shell prints into a command's output, its status, and what comes after the marker."""

    def __init__(self, marker: str, before: bytes = b"", limit: int = OUTPUT_LIMIT) -> None:
        self._pattern = re.compile(re.escape(marker.encode()) + rb" (\d{1,3})\n")
        self._longest = len(marker) + len(" 255\n")
        self._limit = limit
        self._kept = bytearray()
        self._left_out = 0
        self._open = bytearray(before)
        self.rest = b""

    def feed(self, data: bytes) -> int | None:
        """Take what was read; the status once the marker has been seen, else None."""
        self._open += data
        if found := self._pattern.search(self._open):
            status, start, end = int(found[1]), found.start(), found.end()
            self.rest = bytes(self._open[end:])
            del self._open[start:]
            self._keep(start)
            return status
        # Only the last bytes can be the beginning of a marker; nothing before them is looked at again.
        self._keep(len(self._open) - self._longest)
        return None

    def text(self) -> str:
        """The output so far, without the marker."""
        seen = bytes(self._kept + self._open).decode(errors="replace")
        return f"{seen}\n[{self._left_out} bytes more]\n" if self._left_out else seen

    def _keep(self, count: int) -> None:
        count = max(count, 0)
        room = self._limit - len(self._kept)
        self._kept += self._open[: min(count, room)]
        self._left_out += max(count - room, 0)
        del self._open[:count]
