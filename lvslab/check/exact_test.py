"""Exact multinomial tests of random choices.

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
"""Maximum false-positive probability of a check."""


def multinomial(counts: Sequence[int], shares: Sequence[Fraction]) -> Fraction:
    """Return the probability of exactly these ``counts``, given each class's share of the draws.

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
    """Return the p-value of ``counts`` in the exact multinomial test.

    It is the probability of these counts, or of any others of the same sum that are at most as likely.
    """
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
    """Yield all ways to write ``total`` as an ordered sum of ``parts`` numbers, zeros included."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def draws_hold(
    what: str, draws: Sequence[tuple[str, Mapping[str, Fraction]]], limit: Fraction = FALSE_ALARM
) -> None:
    """Test ``draws``, each of which has a result, and the shares of the possible results.

    Draws with the same shares are tested together by `shares_hold`. The shares of a draw may depend on
    earlier results, so the number of kinds of shares, and of draws of each kind, is random too. Both are at
    most the number of all draws, so there are at most its square of different tests. Each gets that part of
    ``limit``, which thus is the maximum probability of a false alarm.

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
    """Test the observed ``counts`` against the ``shares`` of the draws; return the p-value.

    ``what`` names the counted things, in the plural. Raises CheckFailed where the p-value is at most
    ``limit``, which thus is the maximum probability of a false alarm, and where a class without a share was
    counted.
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
