"""Text of the commands for memory snapshots."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lvslab.cli.text.layout import columns


def listed(found: Sequence[Mapping[str, Any]]) -> str:
    """Text of ``snapshot.list``."""
    rows = [("snapshot", "kernel", "accelerator", "memory", "on disk", "made")]
    for row in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["made"]))
        about = row["key"], row["kernel"], row["accelerator"]
        rows.append((*about, f"{row['mib']} MiB", f"{row['disk'] >> 20} MiB", made))
    return columns(rows) if found else "there are no snapshots"
