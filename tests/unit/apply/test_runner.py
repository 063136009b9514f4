from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lvslab.apply.runner import NodeShell, UnexpectedEnd, apply_steps
from lvslab.apply.shell import CommandTimeout, ConnectionLost, ShellResult
from lvslab.apply.transcript import StepRecord, Transcript, records
from lvslab.boot.status import Summary
from lvslab.errors import BootError, LvsLabError, StepFailed
from lvslab.outcome import Outcome


@dataclass(frozen=True)
class Step:
    """What the runner sees of a step of howto.md."""

    number: int
    command: str
    node: str = "director"
    exit: int = 0
    known_failure: str | None = None
    timeout: float = 30.0

    @property
    def line(self) -> int:
        return 30 + self.number

    def expects_failure(self, versions: Mapping[str, str]) -> bool:
        return self.known_failure is not None and versions["iptables"] >= "1.4"

    def complaint(self, status: int, output: str, versions: Mapping[str, str]) -> str | None:
        if self.expects_failure(versions):
            if status == 0:
                return "expected to fail here, but it ended with status 0"
            return None if "No chain" in output else "did not print 'No chain'"
        return None if status == self.exit else f"ended with status {status}, and {self.exit} was expected"


@dataclass
class Cluster:
    """Nodes whose shells answer from a list, and note what becomes of them."""

    answers: Mapping[str, ShellResult | BaseException] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def open_shell(self, node: str) -> AbstractContextManager[NodeShell]:
        log, answers = self.log, self.answers

        class Shell:
            def run(self, command: str, timeout: float) -> ShellResult:
                log.append(f"{node}: {command} ({timeout:g} s)")
                answer = answers.get(command, ShellResult("", 0, 0.25))
                if isinstance(answer, BaseException):
                    raise answer
                return answer

        @contextmanager
        def opened() -> Iterator[NodeShell]:
            log.append(f"open {node}")
            try:
                yield Shell()
            finally:
                log.append(f"close {node}")

        return opened()


@dataclass
class Run:
    path: Path
    reported: list[StepRecord] = field(default_factory=list)

    def __call__(
        self,
        cluster: Cluster,
        *steps: Step,
        versions: Mapping[str, str] | Callable[[], Mapping[str, str]] = {"iptables": "1.8"},  # noqa: B006
        option: str | None = None,
    ) -> Summary:
        with Transcript(self.path) as transcript:
            return apply_steps(steps, cluster.open_shell, transcript, versions, self.report, option)

    def report(self, entry: StepRecord) -> None:
        # Whoever hears of a step can already read of it in the transcript.
        assert records(self.path)[-1] == entry
        self.reported.append(entry)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "transcript")


NAT_DROP = Step(2, "iptables -t nat -P POSTROUTING DROP", known_failure="nat is not for filtering")
REFUSED = ShellResult("No chain\n", 2, 0.5)


def test_each_node_has_one_shell_for_all_its_steps_in_the_order_of_the_howto(run: Run) -> None:
    cluster = Cluster()
    summary = run(cluster, Step(1, "a"), Step(2, "b", node="rs1", timeout=5), Step(3, "c"))
    assert summary == Summary(total=3, taken=3, failed=0, expected_failures=0)
    assert cluster.log == [
        "open director",
        "director: a (30 s)",
        "open rs1",
        "rs1: b (5 s)",
        "director: c (30 s)",
        "close rs1",
        "close director",
    ]
    assert [(entry.number, entry.node, entry.line, entry.outcome) for entry in run.reported] == [
        (1, "director", 31, Outcome.PASSED),
        (2, "rs1", 32, Outcome.PASSED),
        (3, "director", 33, Outcome.PASSED),
    ]
    assert records(run.path) == run.reported
    assert run.reported[0].started.endswith("+00:00")
    assert run.reported[0].seconds == 0.25


def test_a_status_that_the_howto_expects_is_ok(run: Run) -> None:
    cluster = Cluster({"false": ShellResult("", 1, 0.1)})
    assert run(cluster, Step(1, "false", exit=1)) == Summary(1, 1, 0, 0)
    assert (run.reported[0].outcome, run.reported[0].reason) == (Outcome.PASSED, "")


def test_an_unexpected_failure_stops_the_run_and_shows_the_step(run: Run) -> None:
    cluster = Cluster({"ipvsadm -a \\\n  -m": ShellResult("partly\n\x1b[1mNo such service\n", 2, 0.1)})
    with pytest.raises(UnexpectedEnd) as caught:
        run(cluster, Step(1, "a"), Step(2, "ipvsadm -a \\\n  -m"), Step(3, "never"))
    assert caught.value.message == (
        "howto.md:32: on director: ipvsadm -a \\\n"
        "      -m\n"
        "  step 2 failed: ended with status 2, and 0 was expected\n"
        "  it printed:\n"
        "    partly\n"
        "    \\x1b[1mNo such service"
    )
    assert caught.value.hint == f"all that was done: {run.path}"
    assert caught.value.exit_code == 5
    assert caught.value.summary == Summary(total=3, taken=2, failed=1, expected_failures=0)
    assert caught.value.record == records(run.path)[-1] == run.reported[-1]
    assert (run.reported[-1].outcome, run.reported[-1].status) == ("failed", 2)
    assert cluster.log[-1] == "close director"
    assert not any("never" in line for line in cluster.log)


def test_of_a_long_output_the_message_has_the_end(run: Run) -> None:
    cluster = Cluster({"a": ShellResult("".join(f"line {n}\n" for n in range(100)), 1, 0.1)})
    with pytest.raises(StepFailed, match="it printed 100 lines, the last 20 of them") as caught:
        run(cluster, Step(1, "a"))
    assert "line 99" in caught.value.message
    assert "line 79\n" not in caught.value.message
    assert "line 0\n" in records(run.path)[0].output


def test_a_known_failure_is_counted_and_the_run_goes_on(run: Run) -> None:
    cluster = Cluster({NAT_DROP.command: REFUSED})
    assert run(cluster, Step(1, "a"), NAT_DROP, Step(3, "c")) == Summary(3, 3, 0, 1)
    assert (run.reported[1].outcome, run.reported[1].reason, run.reported[1].status) == (
        Outcome.EXPECTED_FAILURE,
        "nat is not for filtering",
        2,
    )


def test_a_known_failure_that_passes_fails_the_run(run: Run) -> None:
    with pytest.raises(UnexpectedEnd, match=r"step 2 passed unexpectedly: expected to fail here") as caught:
        run(Cluster(), NAT_DROP)
    assert "known failure" in (caught.value.hint or "")
    assert run.reported[0].outcome == "unexpectedly passed"
    assert caught.value.summary.failed == 1


def test_another_failure_than_the_known_one_fails_the_run(run: Run) -> None:
    cluster = Cluster({NAT_DROP.command: ShellResult("iptables: not found\n", 127, 0.1)})
    with pytest.raises(UnexpectedEnd, match="did not print 'No chain'"):
        run(cluster, NAT_DROP)
    assert run.reported[0].outcome == "failed"


def test_on_other_versions_a_known_failure_is_a_step_like_any(run: Run) -> None:
    assert run(Cluster(), NAT_DROP, versions={"iptables": "1.3"}) == Summary(1, 1, 0, 0)
    with pytest.raises(UnexpectedEnd, match="step 2 failed: ended with status 2"):
        run(Cluster({NAT_DROP.command: REFUSED}), NAT_DROP, versions={"iptables": "1.3"})


def test_versions_are_asked_for_once_and_only_for_a_known_failure(run: Run) -> None:
    asked: list[str] = []

    def versions() -> Mapping[str, str]:
        asked.append("versions")
        return {"iptables": "1.8"}

    run(Cluster(), Step(1, "a"), versions=versions)
    assert asked == []
    run(Cluster({NAT_DROP.command: REFUSED}), NAT_DROP, NAT_DROP, versions=versions)
    assert asked == ["versions"]


def test_a_step_whose_expectation_is_not_known_is_not_taken(run: Run) -> None:
    cluster = Cluster()
    with pytest.raises(KeyError):
        run(cluster, NAT_DROP, versions={"ipvsadm": "1.31"})
    assert cluster.log == ["open director", "close director"]


@pytest.mark.parametrize("known_failure", [None, "hangs here"])
def test_a_timeout_is_a_failure_whatever_was_expected(run: Run, known_failure: str | None) -> None:
    cluster = Cluster({"a": CommandTimeout("too long", "so far\n", 30)})
    with pytest.raises(UnexpectedEnd, match="step 1 failed: did not end within 30 s"):
        run(cluster, Step(1, "a", known_failure=known_failure))
    assert (run.reported[0].status, run.reported[0].output) == (None, "so far\n")


def test_a_lost_connection_is_written_down_and_stays_a_boot_error(run: Run) -> None:
    cluster = Cluster({"reboot": ConnectionLost("gone", "bye\n")})
    with pytest.raises(BootError) as caught:
        run(cluster, Step(1, "reboot"))
    assert "howto.md:31: on director: reboot\n  step 1 failed: the connection broke" in caught.value.message
    assert (run.reported[0].outcome, run.reported[0].output) == ("failed", "bye\n")


@pytest.mark.parametrize("failure", [REFUSED, ConnectionLost("gone", "")])
def test_where_to_look_after_a_failure(run: Run, failure: ShellResult | Exception) -> None:
    """A lab that ends with its test has no shell any more; one that stays has."""
    with pytest.raises(LvsLabError) as caught:
        run(Cluster({"a": failure}), Step(1, "a"))
    assert caught.value.hint == f"all that was done: {run.path}"
    with pytest.raises(LvsLabError) as caught:
        run(Cluster({"a": failure}), Step(1, "a"), option=" --name b")
    assert caught.value.hint == (
        "the lab stays up for a look: ./run lab.ssh director --name b; "
        "all that was done: ./run lab.transcript --name b"
    )


def test_a_shell_that_ended_with_the_step_is_said(run: Run) -> None:
    cluster = Cluster({"exit 3": ShellResult("", 3, 0.1, ended=True)})
    with pytest.raises(UnexpectedEnd, match="and 0 was expected; the shell ended with it"):
        run(cluster, Step(1, "exit 3"))


def test_an_interrupt_leaves_the_step_in_the_transcript(run: Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Cluster({"a": KeyboardInterrupt()}), Step(1, "a"))
    assert (records(run.path)[0].outcome, records(run.path)[0].reason) == ("failed", "interrupted")


def test_a_node_that_cannot_be_reached_takes_no_step(run: Run) -> None:
    def open_shell(node: str) -> AbstractContextManager[NodeShell]:
        raise BootError(f"{node} does not answer")

    with Transcript(run.path) as transcript, pytest.raises(LvsLabError, match="director does not answer"):
        apply_steps([Step(1, "a")], open_shell, transcript, {}, run.report)
    assert records(run.path) == []
