"""Text of the commands for toolchains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lvslab.cli.text.layout import columns


def listed(found: Sequence[Mapping[str, Any]]) -> str:
    """Text of ``toolchain.list``."""
    rows = [("program", "what it is", "state", "built in")]
    for row in found:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        rows.append((row["name"], row["what"], row["state"], seconds))
    return columns(rows)
