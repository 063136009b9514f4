"""Many rows that are alike, as one row for people: ``web-1 ... web-250``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

FROM = 4
"""So many rows at least become one."""

LINES = 24
"""A text of more lines than that is shown without its middle."""

V = TypeVar("V")


def runs(rows: Mapping[str, V], alike: Callable[[V], Hashable]) -> Iterator[list[str]]:
    """The names of ``rows`` in runs: NAME-1, NAME-2 and so on without a gap, whose values are ``alike``.

    A name that is in no run of FROM names comes as a list of one.
    """
    run: list[str] = []
    for name in rows:
        if run and not (_follows(run[-1], name) and alike(rows[run[-1]]) == alike(rows[name])):
            yield from _whole_or_single(run)
            run = []
        run.append(name)
    yield from _whole_or_single(run)


def in_order(names: Sequence[str]) -> list[str]:
    """Names sorted as people count: web-2 before web-10."""
    return sorted(names, key=_stem_and_number)


def span(words: Sequence[str]) -> str:
    """The first and the last of ``words``, or the one that there is."""
    return words[0] if len(words) == 1 else f"{words[0]} ... {words[-1]}"


def without_middle(text: str, remark: str) -> str:
    """``text``, or its first and last lines with ``remark`` for those between, where it is long."""
    lines = text.splitlines()
    if len(lines) <= LINES:
        return text
    head, tail = lines[: LINES // 2], lines[-4:]
    left_out = len(lines) - len(head) - len(tail)
    return "\n".join([*head, f"  ({left_out} more lines{remark})", *tail])


def _whole_or_single(run: list[str]) -> Iterator[list[str]]:
    if len(run) >= FROM:
        yield run
    else:
        yield from ([name] for name in run)


def _follows(name: str, other: str) -> bool:
    (stem, number), (other_stem, other_number) = _stem_and_number(name), _stem_and_number(other)
    return stem == other_stem and number >= 0 and other_number == number + 1


def _stem_and_number(name: str) -> tuple[str, int]:
    """A name without its number, and the number; -1 where it has none."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if stem and number.isdecimal() else (name, -1)
