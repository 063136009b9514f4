"""Text of the commands for this machine and the project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lvslab.cli.text.layout import columns


def doctor(findings: Sequence[Mapping[str, Any]]) -> str:
    """Text of ``doctor``."""
    mark = {True: "ok", False: "MISSING", None: "note"}
    rows = [("", "what", "found")]
    rows += [(mark[found["ok"]], found["what"], found["found"]) for found in findings]
    remedies = [f"  {found['what']}: {found['remedy']}" for found in findings if found.get("remedy")]
    return columns(rows) + ("\n\nwhat to do\n" + "\n".join(remedies) if remedies else "")


def bench(found: Mapping[str, Any]) -> str:
    """Text of ``bench``."""
    rows = [("what", "median", "compared")]
    for row in found["rows"]:
        value = f"{row['value']:.3f} s" if row["unit"] == "s" else f"{row['value']:.1f} {row['unit']}"
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f} times: {row['base'].strip()}"
        rows.append((row["what"], value, ratio))
    return f"{found['about']}\n\n{columns(rows)}"
