"""Text of the commands for kernels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lvslab.cli.text.layout import columns

if TYPE_CHECKING:
    from lvslab.matrix.bisect import Trial

_LINES = 6
"""Maximum number of lines of a check's message: the first ones name the problem."""


def listed(found: Mapping[str, Any]) -> str:
    """Text of ``kernel.list``."""
    there = {row["row"] for row in found["store"] if row["source"] != "tree"}
    rows = [("kernel", "how", "compiler", "arch", "here")]
    for row in found["catalogue"]:
        here = "built" if row["name"] in there else "downloaded" if row["downloaded"] else "-"
        rows.append((row["name"], row["how"], row["compiler"] or "-", row["arch"], here))
    return f"available kernels\n{columns(rows)}\n\n{_store(found['store'])}"


def _store(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return "the store is empty: ./run kernel.build VERSION fills it"
    rows = [("in the store", "release", "compiler", "modules", "on disk", "built")]
    for row in found:
        built = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["built"]))
        about = row["name"], row["release"], row["compiler"] or "(imported)", str(row["modules"])
        rows.append((*about, f"{row['disk'] / 2**20:.1f} MiB", built))
    return columns(rows)


def shown(found: Mapping[str, Any]) -> str:
    """Text of ``kernel.show``."""
    parts = []
    row = dict(found["row"] or {})
    if row:
        fixes: Mapping[str, str] = row.pop("fixes", {})
        source: Mapping[str, str] = row.pop("source", {})
        about = {f"source {key}": value for key, value in source.items() if key != "name"}
        parts.append(_pairs(row["name"], row | about))
        if fixes:
            parts.append(_pairs("fixes that a stock tree needs", fixes))
    for kernel in found["store"]:
        manifest = kernel["manifest"]
        about = manifest | {"modules": str(len(manifest["modules"])), "folder": kernel["folder"]}
        parts.append(_pairs(f"{kernel['name']}, in the store", about))
    if not found["store"]:
        parts.append("the store does not have it")
    if found["lacks"]:
        rows = [("missing IPVS feature", "since"), *((row["what"], row["since"]) for row in found["lacks"])]
        parts.append(columns(rows))
    return "\n\n".join(parts)


def _pairs(heading: str, about: Mapping[str, Any]) -> str:
    shown = [(key.replace("_", " "), value) for key, value in about.items() if value not in ("", (), [])]
    return "\n".join([heading, *(f"  {key}: {_words(value)}" for key, value in shown)])


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def built(found: Mapping[str, Any]) -> str:
    """Text of ``kernel.build``."""
    manifest = found["manifest"]
    return (
        f"Linux {manifest['release']} ({manifest['arch']}, {manifest['compiler']}), "
        f"{len(manifest['modules'])} modules\n"
        f"kept in:    {found['folder']}\n"
        f"boot it:    ./run lab.up web-nat --kernel {found['name']}"
    )


def imported(found: Mapping[str, Any]) -> str:
    """Text of ``kernel.import``."""
    name, number = found["name"], found["modules"]
    brought = f"{number or 'no'} module{'' if number == 1 else 's'}"
    return f"{name} is in the store, with {brought}: ./run lab.up --kernel {name}"


def tried(result: Trial) -> str:
    """Text of ``kernel.try``: each check that did not pass, a summary, and the evidence."""
    lines = [result.kernel] if result.kernel else []
    for found, case in result.unusual:
        told = f" ({case.bug})" if case.bug else ""
        message = case.message.strip().splitlines()
        lines.append(f"  {case.verdict}{told}: {found.cell.lab}: {case.name}")
        lines += [f"    {line}" for line in message[:_LINES]]
    for found in result.results:
        counts = ", ".join(f"{number} {verdict}" for verdict, number in found.counts.items() if number)
        lines.append(f"{found.cell.lab}: {counts or 'nothing ran'}; {found.seconds:.1f} s")
    lines.append(f"{result.answer}: {result.why}" if result.why else result.answer)
    if result.evidence:
        lines.append(f"evidence: {result.evidence}")
    return "\n".join(lines)
