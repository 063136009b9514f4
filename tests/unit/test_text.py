from __future__ import annotations

import pytest

from lvslab import text


def runs(*names: str, **odd: str) -> list[list[str]]:
    rows = {name: odd.get(name.replace("-", "_"), "alike") for name in names}
    return list(text.runs(rows, lambda value: value))


def test_names_that_count_up_are_a_run() -> None:
    web = [f"web-{number}" for number in range(8, 13)]
    assert runs("director", *web, "client") == [["director"], web, ["client"]]


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("a",),
        ("web-1", "web-2", "web-3"),  # too few
        ("web-1", "web-3", "web-5", "web-7"),  # with gaps
        ("web-4", "web-3", "web-2", "web-1"),
        ("web1", "web2", "web3", "web4"),  # not made by a count
        ("a-1", "b-2", "a-3", "b-4"),
    ],
)
def test_names_that_are_no_run(names: tuple[str, ...]) -> None:
    assert runs(*names) == [[name] for name in names]


def test_one_that_is_not_like_the_others_divides_a_run() -> None:
    web = [f"web-{number}" for number in range(1, 11)]
    assert runs(*web, web_5="other") == [web[:4], ["web-5"], web[5:]]
    # The three before it are too few to be a run.
    assert runs(*web, web_4="other") == [["web-1"], ["web-2"], ["web-3"], ["web-4"], web[4:]]


def test_the_order_in_which_people_count() -> None:
    assert text.in_order(["web-10", "web-2", "director", "web-1"]) == [
        "director",
        "web-1",
        "web-2",
        "web-10",
    ]


def test_a_span() -> None:
    assert text.span(["a"]) == "a"
    assert text.span(["a", "b", "c"]) == "a ... c"


def test_a_long_text_loses_its_middle() -> None:
    lines = [str(number) for number in range(1, 101)]
    assert text.without_middle("\n".join(lines[:24]), "") == "\n".join(lines[:24])
    found = text.without_middle("\n".join(lines), ": see there").splitlines()
    assert found == [*lines[:12], "  (84 more lines: see there)", *lines[-4:]]
