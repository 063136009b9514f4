from __future__ import annotations

import re
from pathlib import Path

import pytest

from lvslab import errors
from lvslab.apply.shell import CommandTimeout
from lvslab.check.traffic.http import RequestFailed
from lvslab.errors import (
    BuildError,
    CheckFailed,
    CommandFailed,
    LabFileError,
    LvsLabError,
    StepFailed,
    UsageError,
)

TREE = re.findall(r"^[\s│├└─]*(\w+) +(\d+)(?:  |$)", errors.__doc__ or "", re.MULTILINE)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {name: int(status) for name, status in TREE}
    defined = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, LvsLabError)
    }
    assert drawn == defined


def test_relatives_stand_below_each_other_as_drawn() -> None:
    above: list[tuple[int, type[LvsLabError]]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([\s│├└─]*)([A-Z]\w+) +\d", line):
            depth, kind = len(found[1]), getattr(errors, found[2])
            above = [entry for entry in above if entry[0] < depth]
            assert kind.__bases__ == ((above[-1][1],) if above else (Exception,))
            above.append((depth, kind))


def test_a_hint_is_a_second_line() -> None:
    assert str(LvsLabError("wrong")) == "wrong"
    assert str(LvsLabError("wrong", "right is this")) == "wrong\n  right is this"


@pytest.mark.parametrize(("line", "place"), [(7, "labs/a/lab.yaml:7"), (0, "labs/a/lab.yaml")])
def test_an_error_in_a_file_names_the_place(line: int, place: str) -> None:
    error = LabFileError(Path("labs/a/lab.yaml"), line, "no title", "give it one")
    assert str(error) == f"{place}: no title\n  give it one"
    assert (error.file, error.line, error.exit_code) == (Path("labs/a/lab.yaml"), line, 2)
    assert isinstance(error, UsageError)


def test_a_failed_command_keeps_its_status() -> None:
    error = CommandFailed("ip ended with status 2", status=2)
    assert (error.status, error.exit_code, isinstance(error, BuildError)) == (2, 7, True)


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (CheckFailed("3 instead of 4"), CheckFailed),
        (RequestFailed("no answer", "1", "timeout"), CheckFailed),
        (CommandTimeout("no end", "", 30.0), StepFailed),
        (CommandFailed("ip ended with status 2", 2), CommandFailed),
    ],
)
def test_the_family_of_an_error_is_its_nearest_class_in_the_tree(
    error: LvsLabError, family: type[LvsLabError]
) -> None:
    assert errors.family(error) is family
    assert errors.named(family.__name__) is family


@pytest.mark.parametrize("name", ["", "RequestFailed", "Path", "family"])
def test_no_other_name_is_one_of_the_tree(name: str) -> None:
    assert errors.named(name) is None
