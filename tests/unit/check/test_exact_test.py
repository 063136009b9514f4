from __future__ import annotations

import itertools
from fractions import Fraction
from math import comb, factorial

import pytest

from lvslab.check import exact_test
from lvslab.errors import CheckFailed

THIRD = Fraction(1, 3)


def test_with_two_classes_it_is_the_binomial_distribution() -> None:
    for count in range(11):
        wanted = comb(10, count) * Fraction(1, 4) ** count * Fraction(3, 4) ** (10 - count)
        assert exact_test.multinomial((count, 10 - count), (Fraction(1, 4), Fraction(3, 4))) == wanted


def test_the_multinomial_coefficient() -> None:
    ways = factorial(9) // (factorial(2) * factorial(3) * factorial(4))
    assert exact_test.multinomial((2, 3, 4), (THIRD,) * 3) == ways * THIRD**9


@pytest.mark.parametrize("shares", [(THIRD,) * 3, (Fraction(1, 2), Fraction(1, 3), Fraction(1, 6))])
def test_all_outcomes_together_are_certain(shares: tuple[Fraction, ...]) -> None:
    outcomes = list(exact_test._compositions(12, 3))
    assert len(outcomes) == len({*outcomes}) == comb(14, 2)
    assert sum(exact_test.multinomial(outcome, shares) for outcome in outcomes) == 1


def test_the_likeliest_counts_are_not_odd_at_all() -> None:
    assert exact_test.tail((4, 4, 4), (THIRD,) * 3) == 1


def test_ten_heads_are_as_odd_as_ten_tails() -> None:
    half = (Fraction(1, 2), Fraction(1, 2))
    assert exact_test.tail((10, 0), half) == 2 * Fraction(1, 2) ** 10


def test_a_tail_is_what_is_no_likelier() -> None:
    """By hand: 3 draws of two classes with a quarter and three quarters have 1, 9, 27 and 27 of 64."""
    shares = (Fraction(1, 4), Fraction(3, 4))
    assert [exact_test.tail((count, 3 - count), shares) for count in (3, 2, 1, 0)] == [
        Fraction(1, 64),
        Fraction(10, 64),
        Fraction(1),
        Fraction(1),
    ]


@pytest.mark.parametrize("number", [12, 20])
def test_false_alarms_are_no_likelier_than_they_may_be(number: int) -> None:
    shares, limit = (THIRD,) * 3, Fraction(1, 1000)
    alarms = [
        outcome
        for outcome in sorted(set(map(tuple, map(sorted, exact_test._compositions(number, 3)))))
        if exact_test.tail(outcome, shares) <= limit
    ]
    probability = sum(exact_test.multinomial(outcome, shares) * len(_orders(outcome)) for outcome in alarms)
    assert 0 < probability <= limit


def _orders(outcome: tuple[int, ...]) -> set[tuple[int, ...]]:
    a, b, c = outcome
    return {(a, b, c), (a, c, b), (b, a, c), (b, c, a), (c, a, b), (c, b, a)}


def test_fair_counts_pass_and_odd_ones_do_not() -> None:
    shares = dict.fromkeys(("one", "two", "three"), THIRD)
    assert exact_test.shares_hold("visits", {"one": 25, "two": 20, "three": 15}, shares) > Fraction(1, 10)
    with pytest.raises(
        CheckFailed, match="of 60 visits: one 60, three 0, two 0; the shares should"
    ) as caught:
        exact_test.shares_hold("visits", {"one": 60}, shares)
    assert caught.value.hint is not None
    assert "7.1e-29" in caught.value.hint


def test_what_has_no_share_must_have_nothing() -> None:
    shares = {"one": Fraction(1), "none": Fraction(0)}
    assert exact_test.shares_hold("visits", {"one": 5, "none": 0}, shares) == 1
    for stray in ("none", "stranger"):
        with pytest.raises(CheckFailed, match=f"some went where none should: {stray} 1"):
            exact_test.shares_hold("visits", {"one": 5, stray: 1}, shares)


# --- draws with shares of their own -----------------------------------------------------------------------

HALF, CERTAIN = Fraction(1, 2), Fraction(1)
COIN = {"heads": HALF, "tails": HALF}


def test_draws_that_chance_explains() -> None:
    exact_test.draws_hold("draws", [])
    exact_test.draws_hold("draws", [("heads", COIN), ("tails", COIN)] * 20 + [("x", {"x": CERTAIN})] * 30)


def test_draws_with_the_same_shares_are_looked_at_together() -> None:
    biased = {"heads": Fraction(9, 10), "tails": Fraction(1, 10)}
    # Half of all are heads, but not half of each kind.
    draws = [("tails", COIN)] * 90 + [("heads", COIN)] * 10 + [("heads", biased)] * 90
    with pytest.raises(CheckFailed, match="of 100 draws: heads 10, tails 90"):
        exact_test.draws_hold("draws", draws)


def test_a_result_that_could_not_be() -> None:
    with pytest.raises(CheckFailed, match="some went where none should: y 1"):
        exact_test.draws_hold("draws", [("x", {"x": CERTAIN}), ("y", {"x": CERTAIN, "y": Fraction(0)})])


def test_false_alarms_of_draws_that_depend_on_each_other() -> None:
    """The shares change after the first tails: all ways in which ten coins can fall."""
    limit, number, alarms = Fraction(1, 5), 10, []
    later = {**COIN, "edge": Fraction(0)}
    for results in itertools.product(COIN, repeat=number):
        known = number if "tails" not in results else results.index("tails") + 1
        draws = [(result, COIN if place < known else later) for place, result in enumerate(results)]
        try:
            exact_test.draws_hold("draws", draws, limit)
        except CheckFailed:
            alarms.append(results)
    assert alarms == [("heads",) * number]
    assert len(alarms) <= limit * 2**number
