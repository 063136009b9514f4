"""What real directors have printed, for tests of what reads it: one file for each kernel in ``listings``.

Each is of web-nat after a few requests and a page of 110 MB, since ipvsadm cuts numbers from 100,000,000 on.
A line that begins with "# " is a command, and what comes after it is what it printed.
"""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = Path(__file__).parent / "listings"
KERNELS = sorted(file.stem for file in _FOLDER.glob("*.txt"))


def sections(kernel: str) -> dict[str, str]:
    """What was printed, by command."""
    parts = re.split(r"^# (.+)\n", (_FOLDER / f"{kernel}.txt").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listing(kernel: str, command: str) -> str:
    """What ``command`` printed on a director with ``kernel``."""
    return sections(kernel)[command]
