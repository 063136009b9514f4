from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from lvslab import commands, paths
from lvslab.apply import transcript
from lvslab.apply.shell import ShellResult
from lvslab.boot.events import Event, PhaseBegun, PhaseEnded
from lvslab.boot.status import Summary
from lvslab.check import pytest_run
from lvslab.check.testbed import Testbed
from lvslab.check.traffic.http import Here
from lvslab.cluster import cluster, folder
from lvslab.errors import (
    BootError,
    CheckFailed,
    FeatureLacking,
    LvsLabError,
    MachineError,
    StateError,
    StepFailed,
    UsageError,
)
from lvslab.lab.directors import DirectorSpec
from lvslab.outcome import Outcome
from tests.unit.fake_cluster import COMMANDS, FakeCluster, LoopbackCluster, lab_in, loopback_cluster


def applied(name: str) -> FakeCluster:
    """Stand for a lab of this project whose how-to was typed."""
    lab = folder.lab(paths.labs() / name)
    return FakeCluster(
        lab,
        steps=folder.steps(paths.labs() / name, lab),
        versions={"kernel": "6.1", "iptables": "1.8.9"},
    )


# --- lab.up from its beginning to its end ------------------------------------------------------------------


@dataclass
class Boot:
    """Stands for ``cluster.booted``, which reports a boot in which nothing waits, and yields ``running``."""

    running: LoopbackCluster
    asked: dict[str, Any] = field(default_factory=dict)
    failure: LvsLabError | None = None

    @contextmanager
    def __call__(
        self, folder: Path, *, report: Callable[[Event], None], **asked: Any
    ) -> Iterator[LoopbackCluster]:
        self.asked = asked
        for phase in ("prepare", "guests started"):
            report(PhaseBegun(phase))
            report(PhaseEnded(phase, 0.5))
        if self.failure:
            raise self.failure
        with self.running:
            yield self.running


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boot]:
    """A lab in a folder of its own, which the fake cluster has instead of a guest."""
    place = tmp_path / "balanced"
    place.mkdir()
    monkeypatch.setattr(Testbed, "enter", lambda testbed, node: Here())
    with loopback_cluster(lab_in(place)) as running:
        running.evidence = tmp_path
        made = Boot(running)
        monkeypatch.setattr(cluster, "booted", made)
        yield made


def test_a_lab_comes_up(boot: Boot, tmp_path: Path) -> None:
    told: list[str] = []
    listeners = commands.Listeners(
        lambda event: told.append(f"{type(event).__name__} {getattr(event, 'phase', '')}"),
        lambda entry: told.append(entry.command),
    )
    running, typed = boot.running, [step.command for step in boot.running.steps]
    found = commands.up(str(tmp_path / "balanced"), cold=True, listeners=listeners)

    assert boot.asked == {"name": "balanced", "spec": DirectorSpec(), "cold": True, "connect": True}
    assert running.log == ["enter", *(f"director: {command}" for command in typed), "keep", "leave"]
    assert told == [
        *(
            "PhaseBegun prepare",
            "PhaseEnded prepare",
            "PhaseBegun guests started",
            "PhaseEnded guests started",
        ),
        *("PhaseBegun steps", *typed, "PhaseEnded steps"),
        *("PhaseBegun first round", "PhaseEnded first round"),
    ]
    # Weights 1 and 2 share twelve requests, and the scheduler's model says the same.
    shares = {"rs1": {"expected": 4, "observed": 4}, "rs2": {"expected": 8, "observed": 8}}
    assert found.distribution == running.notes.distribution == shares
    assert running.notes.steps == Summary(3, 3, 0, 0)
    assert found.steps == {"total": 3, "taken": 3, "failed": 0, "expected_failures": 0}
    assert found.phases == running.notes.phases
    assert [*found.phases] == ["prepare", "guests started", "steps", "first round"]
    assert (found.lab, found.name, found.kernel, found.accelerator) == ("balanced", "a", "6.1.0", "tcg")
    assert "Masq" in found.table and set(found.nodes) == {"director", "rs1", "rs2", "client"}
    # The transcript is a real file in the evidence.
    entries = transcript.records(Path(found.evidence) / cluster.TRANSCRIPT)
    assert [(entry.command, entry.status) for entry in entries] == [(command, 0) for command in typed]


def test_other_answers_than_foreseen_are_an_error(boot: Boot, tmp_path: Path) -> None:
    boot.running.turns = ["10.0.0.100"] * 12
    found = commands.up(str(tmp_path / "balanced"))
    assert found.distribution["rs2"] == {"expected": 8, "observed": 0}
    assert found.wrong is not None and found.wrong.exit_code == 1
    assert "the servers did not answer in the order" in found.wrong.message
    assert boot.running.log[-2:] == ["keep", "leave"]
    assert found.as_json()["rounds"][0]["observed"] == ["rs1"] * 12


def test_a_lab_comes_up_without_its_how_to(boot: Boot, tmp_path: Path) -> None:
    found = commands.up(str(tmp_path / "balanced"), name="other", apply=False)
    assert boot.asked["name"] == "other" and not boot.asked["connect"]
    assert boot.running.log == ["enter", "keep", "leave"]
    assert found.steps == {"total": 3, "taken": 0, "failed": 0, "expected_failures": 0}
    assert (found.distribution, found.table) == ({}, "")


def test_a_lab_whose_step_fails_stays_up(boot: Boot, tmp_path: Path) -> None:
    boot.running.results[boot.running.steps[1].command] = ShellResult("no such service\n", 2, 0.1)
    with pytest.raises(StepFailed, match="step 2 failed: ended with status 2") as caught:
        commands.up(str(tmp_path / "balanced"))
    assert (caught.value.hint or "").startswith("the lab stays up for a look: ./run lab.ssh director")
    assert boot.running.log[-2:] == ["keep", "leave"] and boot.running.notes.distribution is None
    assert boot.running.notes.steps == Summary(3, 2, 1, 0)


def test_a_lab_that_is_only_verified_does_not_stay(boot: Boot, tmp_path: Path) -> None:
    boot.running.results[boot.running.steps[1].command] = ShellResult("no such service\n", 2, 0.1)
    with pytest.raises(StepFailed, match="step 2 failed: ended with status 2") as caught:
        commands.verify(
            str(tmp_path / "balanced"), spec=DirectorSpec(), reports={}, listeners=commands.Listeners()
        )
    assert caught.value.hint == f"all that was done: {tmp_path / cluster.TRANSCRIPT}"
    assert boot.running.log[-1] == "leave" and "keep" not in boot.running.log


def test_a_lab_whose_first_round_fails_stays_up(boot: Boot, tmp_path: Path) -> None:
    boot.running.retype("ipvsadm -A -t 127.0.0.1:PORT -s", *COMMANDS[1:])
    with pytest.raises(CheckFailed, match="no first round, because"):
        commands.up(str(tmp_path / "balanced"))
    assert boot.running.log[-2:] == ["keep", "leave"]


def test_a_lab_that_does_not_boot_does_not_stay(boot: Boot, tmp_path: Path) -> None:
    boot.failure = BootError("director did not come up")
    with pytest.raises(BootError, match="did not come up"):
        commands.up(str(tmp_path / "balanced"))
    assert boot.running.log == []


def test_a_lab_whose_kernel_lacks_what_it_needs_is_skipped(boot: Boot, tmp_path: Path) -> None:
    boot.failure = FeatureLacking("kernel 2.4.37.11 has no IPv6", "its lab.yaml has 'needs: [ipv6]'")
    with pytest.raises(FeatureLacking):
        commands.up(str(tmp_path / "balanced"))
    reports = {"junit": tmp_path / "junit.xml"}
    found = commands.verify(
        str(tmp_path / "balanced"), spec=DirectorSpec(), reports=reports, listeners=commands.Listeners()
    )
    assert (found.up, found.exit_code, found.as_json()["checks"]["skipped"]) == (None, 0, 1)
    checked = pytest_run.from_junit("balanced", reports["junit"], 0)
    (case,) = checked.cases
    assert (case.name, case.outcome) == ("lab.yaml", Outcome.SKIPPED)
    assert case.message == "kernel 2.4.37.11 has no IPv6"
    assert found.checked.cases[0].message == f"{case.message}\n  its lab.yaml has 'needs: [ipv6]'"


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
        lambda: commands.check(name, {}, quiet=True),
        lambda: commands.attach_console(name, "director"),
    ):
        with pytest.raises(StateError, match=f"the lab '{name}' is not up"):
            attempt()


def test_no_first_round_without_a_client_whatever_the_steps(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot.running.retype("ipvsadm -A -t 127.0.0.1:80 --no-such-option")
    with pytest.raises(CheckFailed, match="the steps cannot be read as a table"):
        commands.first_rounds(cast(Any, boot.running))
    monkeypatch.setattr(boot.running, "is_enterable", lambda node: False)
    (left_out,) = commands.first_rounds(cast(Any, boot.running)).left_out
    assert "no client of this lab is a Mininet host" in left_out.why
