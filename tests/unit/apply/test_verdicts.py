from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lvslab.apply import howto
from lvslab.apply.runner import NodeShell
from lvslab.apply.shell import CommandTimeout, ConnectionLost, ShellResult
from lvslab.apply.transcript import Transcript, records
from lvslab.apply.verdicts import StepVerdict, judge_steps, not_run
from lvslab.errors import BootError, StepFailed
from lvslab.outcome import STEPS, Outcome

OK = ShellResult("", 0, 0.25)


@dataclass
class Nodes:
    """Shells that answer from a list, as those of ``lvslab.apply.shell`` do."""

    path: Path
    answers: Mapping[str, ShellResult | BaseException] = field(default_factory=dict)
    unreachable: tuple[str, ...] = ()
    log: list[str] = field(default_factory=list)
    reported: list[StepVerdict] = field(default_factory=list)

    def open_shell(self, node: str) -> AbstractContextManager[NodeShell]:
        run: Callable[[str, str], ShellResult] = self._run

        class Shell:
            gone = ""

            def run(self, command: str, timeout: float) -> ShellResult:
                if self.gone:
                    raise StepFailed(f"the shell on {node} {self.gone}", f"so this was not run: {command}")
                try:
                    result = run(node, command)
                except CommandTimeout:
                    self.gone = "was given up"
                    raise
                except ConnectionLost:
                    self.gone = "is gone with its connection"
                    raise
                if result.ended:
                    self.gone = f"ended with status {result.status}"
                return result

        @contextmanager
        def opened() -> Iterator[NodeShell]:
            self.log.append(f"open {node}")
            if node in self.unreachable:
                raise BootError(f"{node} is not up: it hangs\nlast lines of its console")
            yield Shell()

        return opened()

    def _run(self, node: str, command: str) -> ShellResult:
        self.log.append(f"{node}: {command}")
        answer = self.answers.get(command, OK)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __call__(self, *steps: howto.Step, iptables: str = "1.8.9") -> list[str]:
        """The verdicts, with a question mark behind those that are doubtful."""
        versions = {"iptables": iptables} if iptables else {}
        with Transcript(self.path) as transcript:
            judged = judge_steps(steps, self.open_shell, transcript, versions, self.reported.append)
        assert self.reported == [*judged]
        return [STEPS.word(found.verdict) + ("?" if found.doubtful else "") for found in judged]


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path / "transcript")


def step(number: int, command: str, node: str = "director", **more: object) -> howto.Step:
    return howto.Step(number, node, command, 10 * number, **more)  # type: ignore[arg-type]


def known_failure(number: int, command: str) -> howto.Step:
    on = howto.Versions("iptables", ">=1.4.3")
    return step(number, command, known_failure="refused since 1.4.3", known_failure_on=on)


def test_all_is_well(nodes: Nodes) -> None:
    assert nodes(step(1, "a"), step(2, "b", "client")) == ["ok", "ok"]
    assert nodes.log == ["open director", "director: a", "open client", "client: b"]
    first = nodes.reported[0]
    assert (first.number, first.node, first.line, first.command) == (1, "director", 10, "a")
    assert (first.reason, first.doubtful, first.status, first.seconds) == ("", None, 0, 0.25)
    assert first.started.endswith("+00:00")


def test_steps_behind_one_that_failed_are_taken_and_doubtful(nodes: Nodes) -> None:
    nodes.answers = {"bad": ShellResult("no such thing\n", 2, 0.1), "worse": ShellResult("", 1, 0.1)}
    steps = step(1, "a"), step(2, "bad"), step(3, "c"), step(4, "worse"), step(5, "e", "client")
    assert nodes(*steps) == ["ok", "failed", "ok?", "failed?", "ok?"]
    # The first one that went wrong is the one to look at.
    assert [found.doubtful for found in nodes.reported] == [None, None, 2, 2, 2]
    assert nodes.reported[1].reason == "ended with status 2, and status 0 was expected"
    assert nodes.reported[1].output == "no such thing\n"
    assert [entry.number for entry in records(nodes.path)] == [1, 2, 3, 4, 5]


def test_a_known_failure_is_expected_on_its_versions_alone(nodes: Nodes, tmp_path: Path) -> None:
    nodes.answers = {"drop": ShellResult("refused\n", 2, 0.1)}
    assert nodes(known_failure(1, "drop"), step(2, "b")) == ["expected failure", "ok"]
    assert nodes.reported[0].reason == "refused since 1.4.3"
    older = Nodes(tmp_path / "older", nodes.answers)
    assert older(known_failure(1, "drop"), iptables="1.4.2") == ["failed"]


def test_a_known_failure_that_passes_failed(nodes: Nodes) -> None:
    assert nodes(known_failure(1, "drop"), step(2, "b")) == ["failed", "ok?"]
    assert nodes.reported[0].reason.startswith("expected to fail here (refused since 1.4.3)")


@pytest.mark.parametrize(
    ("answer", "verdict", "why"),
    [
        (ShellResult("", 0, 0.1, ended=True), "ok", "the shell on director ended with status 0"),
        (ShellResult("", 3, 0.1, ended=True), "failed", "the shell on director ended with status 3"),
        (CommandTimeout("too long", "so far", 30), "failed", "the shell on director was given up"),
        (ConnectionLost("gone"), "failed", "the shell on director is gone with its connection"),
    ],
)
def test_where_a_nodes_shell_has_gone_its_further_steps_are_not_run(
    nodes: Nodes, answer: ShellResult | BaseException, verdict: str, why: str
) -> None:
    nodes.answers = {"a": answer}
    found = nodes(step(1, "a"), step(2, "b"), step(3, "c"), step(4, "d", "client"))
    assert found == [verdict, "not run", "not run", "ok?"]
    assert [found.reason for found in nodes.reported[1:3]] == [why, why]
    assert nodes.reported[3].doubtful == (1 if verdict == "failed" else 2)
    # The transcript has what was typed.
    assert [entry.number for entry in records(nodes.path)] == [1, 4]
    assert not [line for line in nodes.log if line in ("director: b", "director: c")]


def test_a_node_without_a_login_is_asked_once(nodes: Nodes) -> None:
    nodes.unreachable = ("director",)
    assert nodes(step(1, "a"), step(2, "b"), step(3, "c", "client")) == ["not run", "not run", "ok?"]
    assert nodes.reported[1].reason == "no login on director: director is not up: it hangs"
    assert nodes.log == ["open director", "open client", "client: c"]


def test_a_step_that_depends_on_an_unknown_version_is_not_run(nodes: Nodes) -> None:
    assert nodes(known_failure(1, "drop"), step(2, "b"), iptables="") == ["not run", "ok?"]
    assert "the version of iptables, and it is not known" in nodes.reported[0].reason
    assert nodes.log == ["open director", "director: b"]


def test_an_interrupt_ends_it_and_is_in_the_transcript(nodes: Nodes) -> None:
    nodes.answers = {"a": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        nodes(step(1, "a"), step(2, "b"))
    assert [entry.reason for entry in records(nodes.path)] == ["interrupted"]


def test_what_was_not_run_has_nothing_but_a_reason() -> None:
    assert not_run(step(2, "b"), "why") == StepVerdict(2, "director", 20, "b", Outcome.NOT_RUN, "why")
