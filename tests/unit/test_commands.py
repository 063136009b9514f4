from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from lvslab import commands, paths
from lvslab.cluster import folder
from lvslab.errors import MachineError, StateError, UsageError


@dataclass
class Taken:
    expected_counts: dict[str, int]
    observed_counts: dict[str, int]


def test_a_distribution_has_everybody_who_should_answer_or_did() -> None:
    taken = Taken({"rs1": 4, "rs2": 8}, {"rs2": 11, "stranger": 1})
    assert commands.distribution(taken) == {  # type: ignore[arg-type]
        "rs1": {"expected": 4, "observed": 0},
        "rs2": {"expected": 8, "observed": 11},
        "stranger": {"expected": 0, "observed": 1},
    }
    assert commands.distribution(None) == {}


class Applied:
    """A lab of this project as a cluster that nobody has booted."""

    versions: ClassVar = {"kernel": "6.1", "iptables": "1.8.9"}

    def __init__(self, name: str) -> None:
        self.lab = folder.lab(paths.labs() / name)
        self.steps = folder.steps(paths.labs() / name, self.lab)

    def is_enterable(self, node: str) -> bool:
        return node != "director"


@pytest.mark.parametrize(
    ("name", "kind", "service"),
    [
        ("web-nat", "http", "66.199.240.50:80"),
        ("ftp-nat", "ftp", "66.199.240.50:21"),
        ("dns-round-robin", "http", "66.199.240.50:80"),
    ],
)
def test_which_service_has_the_first_round(name: str, kind: str, service: str) -> None:
    found = commands._first_service(Applied(name))  # type: ignore[arg-type]
    assert found is not None
    assert (found[0], str(found[1])) == (kind, service)


def test_no_first_round_without_a_service_or_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = Applied("web-nat")
    monkeypatch.setattr(applied, "is_enterable", lambda node: False)
    assert commands._first_service(applied) is None  # type: ignore[arg-type]
    applied = Applied("web-nat")
    applied.steps = ()
    assert commands._first_service(applied) is None  # type: ignore[arg-type]


def test_an_unknown_lab(labs: Path) -> None:
    with pytest.raises(UsageError, match="there is no lab 'web-nta'") as caught:
        commands.up("web-nta")
    assert "did you mean 'web-nat'" in (caught.value.hint or "")
    with pytest.raises(UsageError, match=r"is not a lab: it holds no lab\.yaml"):
        commands.up(f"{labs}/nowhere")


@pytest.mark.parametrize("name", ["Web", "a b", "-"])
def test_a_name_that_cannot_be(labs: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' cannot be a lab's name"):
        commands.up("web-nat", name=name)


def test_nothing_is_done_to_labs_without_root(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    name = f"unit-{secrets.token_hex(6)}"
    for attempt in (
        lambda: commands.up("web-nat", name=name),
        lambda: commands.execute(name, "director", "true"),
        lambda: commands.steps_taken(name),
        lambda: commands.login(name, "director"),
    ):
        with pytest.raises(MachineError, match="labs need root"):
            attempt()


def test_commands_for_a_lab_that_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    name = f"unit-{secrets.token_hex(6)}"
    for attempt in (
        lambda: commands.check(name, None, quiet=True),
        lambda: commands.attach_console(name, "director"),
    ):
        with pytest.raises(StateError, match=f"the lab '{name}' is not up"):
            attempt()
