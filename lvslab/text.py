"""Words for people: rows that are alike as one (``web-1 ... web-250``), and states of nodes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

FROM = 4
"""Minimum number of rows that become one."""

LINES = 24
"""Maximum number of lines of a text that is shown with its middle."""

V = TypeVar("V")


def runs(rows: Mapping[str, V], alike: Callable[[V], Hashable]) -> Iterator[list[str]]:
    """Yield the names of ``rows`` in runs: NAME-1, NAME-2 ..., whose values are ``alike``.

    A name that is in no run of FROM names comes as a list of one.
    """
    found: list[list[str]] = []
    last = None
    for name, value in rows.items():
        stem, number = _stem_and_number(name)
        if number < 0 or (stem, number - 1, alike(value)) != last:
            found.append([])
        found[-1].append(name)
        last = stem, number, alike(value)
    for run in found:
        yield from [run] if len(run) >= FROM else ([name] for name in run)


def in_order(names: Sequence[str]) -> list[str]:
    """Sort names as people count: web-2 before web-10."""
    return sorted(names, key=_stem_and_number)


def span(words: Sequence[str]) -> str:
    """Return the first and the last of ``words``, or the only one."""
    return words[0] if len(words) == 1 else f"{words[0]} ... {words[-1]}"


def without_middle(text: str, remark: str) -> str:
    """Replace the middle of a ``text`` longer than LINES by its length and ``remark``."""
    lines = text.splitlines()
    if len(lines) <= LINES:
        return text
    head, tail = lines[: LINES // 2], lines[-4:]
    left_out = len(lines) - len(head) - len(tail)
    return "\n".join([*head, f"  ({left_out} more lines{remark})", *tail])


def state(node: str, service: str | None) -> str:
    """Return the state of a ``node`` with that of its ``service``.

    ``service`` is None for a node without one.
    """
    return node if service is None else f"{node}, service {service}"


def _stem_and_number(name: str) -> tuple[str, int]:
    """Split a name at its number, which is -1 where it has none."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if stem and number.isdecimal() else (name, -1)
