"""Exact tests for what chance decides: how likely is it that a fair draw looks as odd as this one?

The numbers are fractions, so nothing is rounded before the end. Draws are independent of each other, and
each falls into one of a few classes with known shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import comb, prod

from lvslab.errors import CheckFailed

FALSE_ALARM = Fraction(1, 1_000_000)
"""The most that the probability of a verdict against something that is as it should be may be."""


def multinomial(counts: Sequence[int], shares: Sequence[Fraction]) -> Fraction:
    """The probability of exactly these ``counts`` where each draw falls into a class with its share.

    Shares add up to 1. With two classes this is the binomial distribution.
    """
    ways, left = 1, sum(counts)
    for count in counts:
        ways *= comb(left, count)
        left -= count
    return ways * prod(
        (share**count for share, count in zip(shares, counts, strict=True)), start=Fraction(1)
    )


def tail(counts: Sequence[int], shares: Sequence[Fraction]) -> Fraction:
    """The probability of ``counts``, or of any others of the same sum that are no likelier (the exact
    multinomial test)."""
    observed = multinomial(counts, shares)
    return sum(
        (
            chance
            for others in _compositions(sum(counts), len(counts))
            if (chance := multinomial(others, shares)) <= observed
        ),
        Fraction(0),
    )


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write ``total`` as a sum of so many ``parts``, in order, zeros included."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def draws_hold(
    what: str, draws: Sequence[tuple[str, Mapping[str, Fraction]]], limit: Fraction = FALSE_ALARM
) -> None:
    """Draws with different shares, one after the other: each had a result, and shares by possible result.
    Those with the same shares are looked at together, as `shares_hold` does.

    The shares of a draw may depend on the results before it. So it is chance, too, how many kinds of shares
    there are, and how many draws of each kind. Both are at most the number of all draws, so the square of
    that is the most different verdicts that there can be. Each gets that part of ``limit``, which thereby is
    the most that the probability of a false alarm can be.

    Raises CheckFailed as `shares_hold` does.
    """
    alike: dict[tuple[tuple[str, Fraction], ...], list[str]] = {}
    for result, shares in draws:
        alike.setdefault(tuple(sorted(shares.items())), []).append(result)
    for kind, results in alike.items():
        shares_hold(what, Counter(results), dict(kind), limit / len(draws) ** 2)


def shares_hold(
    what: str, counts: Mapping[str, int], shares: Mapping[str, Fraction], limit: Fraction = FALSE_ALARM
) -> Fraction:
    """The observed ``counts`` are such as draws with these ``shares`` give; returns how likely counts as
    odd as these are. ``what`` is what was counted, in the plural.

    Raises CheckFailed where counts as odd as these come with a probability of at most ``limit``, which is
    thereby the probability of a false alarm; and where something was counted that has no share.
    """
    total, names = sum(counts.values()), sorted(shares)
    stray = {name: count for name, count in counts.items() if count and not shares.get(name)}
    found = ", ".join(f"{name} {counts.get(name, 0)}" for name in names)
    if stray:
        strange = ", ".join(f"{name} {count}" for name, count in sorted(stray.items()))
        raise CheckFailed(f"of {total} {what} some went where none should: {strange} (and {found})")
    likely = [name for name in names if shares[name]]
    chance = tail([counts.get(name, 0) for name in likely], [shares[name] for name in likely])
    if chance <= limit:
        wanted = ", ".join(f"{name} {float(shares[name]):.1%}" for name in names)
        raise CheckFailed(
            f"of {total} {what}: {found}; the shares should be {wanted}",
            f"chance alone makes counts as odd as these with a probability of {float(chance):.1e}; "
            f"{float(limit):.0e} and less counts as a fault",
        )
    return chance
