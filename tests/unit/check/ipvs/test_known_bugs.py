from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from lvslab.check.ipvs import known_bugs
from lvslab.errors import UsageError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Bug
from lvslab.paths import PROJECT


def marked() -> Iterator[str]:
    """The bugs that checks of the labs say they show."""
    for file in (PROJECT / "labs").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.known_bug":
                yield from (ast.literal_eval(argument) for argument in node.args)


def test_every_bug_is_shown_by_a_check_and_the_other_way_round() -> None:
    assert set(marked()) == set(catalogue.bugs())


@pytest.mark.parametrize("bug", catalogue.bugs().values(), ids=lambda bug: bug.name)
def test_a_bugs_row_agrees_with_what_was_measured(bug: Bug) -> None:
    assert bug.seen and bug.not_seen, "measured where it is and where it is not"
    assert all(bug.is_in(version) for version in bug.seen)
    assert not any(bug.is_in(version) for version in bug.not_seen)
    assert re.compile(bug.shows) and not bug.what.endswith(".")
    assert re.fullmatch(r"[a-z0-9-]+", bug.name)
    assert all(re.fullmatch(r"[0-9a-f]{10,40}|", commit) for commit in (bug.introduced, bug.fixed))


def test_a_bug_is_in_versions_from_its_first_to_before_its_last() -> None:
    bug = Bug("b", "it leaks", "leaks", (), (), since="2.6.37", until="3.0")
    assert [bug.is_in(version) for version in ("2.6.36.9", "2.6.37", "2.6.39.4-x", "3.0", "6.1.0-56")] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert Bug("b", "it leaks", "leaks", (), (), until="4.1").is_in("2.4.37.11")
    assert Bug("b", "it leaks", "leaks", (), ()).is_in("9.1")


def test_versions_are_those_of_the_bugs_program(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs = {
        "of-kernel": Bug("of-kernel", "a", "a", (), (), until="4.1"),
        "of-ipvsadm": Bug("of-ipvsadm", "b", "b", (), (), program="ipvsadm", until="1.27"),
    }
    monkeypatch.setattr(catalogue, "bugs", lambda: bugs)
    new, names = {"kernel": "6.1.0", "ipvsadm": "1.31"}, ["of-kernel", "of-ipvsadm"]
    assert known_bugs.present(new, names) is None
    assert known_bugs.present({**new, "ipvsadm": "1.26"}, names) == bugs["of-ipvsadm"]
    assert known_bugs.present({**new, "kernel": "3.2"}, names) == bugs["of-kernel"]
    with pytest.raises(UsageError, match="no known bug 'of-kernle'\n  did you mean of-kernel"):
        known_bugs.present(new, ["of-kernle"])
