"""Verdicts on all steps of a how-to, also on those after a step that failed.

``runner`` stops at the first step that does not end as the how-to says, since the lab is not usable then.
Here the how-to itself is tested, and its author wants to know every mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lvslab.apply.runner import NodeShell, take
from lvslab.apply.shell import CommandTimeout
from lvslab.apply.transcript import Transcript
from lvslab.errors import LvsLabError, StepFailed
from lvslab.outcome import STEPS, Outcome

if TYPE_CHECKING:
    from lvslab.apply.howto import Step


@dataclass(frozen=True)
class StepVerdict:
    """Verdict on one step of a how-to: PASSED, FAILED, EXPECTED_FAILURE or NOT_RUN.

    ``number``, ``node``, ``line`` and ``command`` are those of the step. ``reason`` says why it failed, was
    expected to, or was not run; it is empty for a step that passed. ``doubtful`` is the number of the first
    earlier step that failed or was not run, which may be why this step ended as it did; it is None if there
    is none, or if this step was not run. ``status`` is None if the command did not end. ``seconds`` is its
    duration, ``started`` the time in UTC as ISO 8601, empty if it was not run.
    """

    number: int
    node: str
    line: int
    command: str
    verdict: Outcome
    reason: str = ""
    doubtful: int | None = None
    status: int | None = None
    seconds: float = 0.0
    output: str = ""
    started: str = ""

    def as_json(self) -> dict[str, Any]:
        """The verdict in the document of ``--json``."""
        return {**asdict(self), "verdict": STEPS.word(self.verdict)}


def judge_steps(
    steps: Sequence[Step],
    open_shell: Callable[[str], AbstractContextManager[NodeShell]],
    transcript: Transcript,
    versions: Mapping[str, str],
    report: Callable[[StepVerdict], None],
) -> tuple[StepVerdict, ...]:
    """Take all ``steps`` in order, each in the shell of its node, and judge them.

    Steps that were typed are written to ``transcript``; ``report`` is called with every verdict. A step is
    not run if its node has no shell any more (an earlier step ended it or did not end, or the node is gone),
    or if it depends on a version that is not in ``versions``. Raises KeyboardInterrupt, but no LvsLabError.
    """
    judged: list[StepVerdict] = []
    first_wrong: int | None = None
    with ExitStack() as opened:
        shells = _Shells(open_shell, opened)
        for step in steps:
            found = _judge(step, shells, transcript, versions, first_wrong)
            if found.verdict in (Outcome.FAILED, Outcome.NOT_RUN) and first_wrong is None:
                first_wrong = step.number
            judged.append(found)
            report(found)
    return tuple(judged)


def not_run(step: Step, reason: str) -> StepVerdict:
    """Verdict on a step that was not typed, for ``reason``."""
    return StepVerdict(step.number, step.node, step.line, step.command, Outcome.NOT_RUN, reason)


class _Shells:
    """Shells of the nodes, opened at their first use and closed with ``opened``."""

    def __init__(
        self, open_shell: Callable[[str], AbstractContextManager[NodeShell]], opened: ExitStack
    ) -> None:
        self._open, self._opened = open_shell, opened
        self._found: dict[str, NodeShell | str] = {}

    def of(self, node: str) -> NodeShell:
        """Return the shell of ``node``. Raises StepFailed if it does not open, without a second try."""
        if node not in self._found:
            try:
                self._found[node] = self._opened.enter_context(self._open(node))
            except LvsLabError as error:
                self._found[node] = f"no login on {node}: {_first_line(error)}"
        found = self._found[node]
        if isinstance(found, str):
            raise StepFailed(found)
        return found


def _judge(
    step: Step,
    shells: _Shells,
    transcript: Transcript,
    versions: Mapping[str, str],
    first_wrong: int | None,
) -> StepVerdict:
    try:
        record, error = take(step, shells.of(step.node), versions)
    except LvsLabError as reason:
        return not_run(step, _first_line(reason))
    # A shell that has gone raises before it runs anything; a command that timed out has been run.
    if isinstance(error, StepFailed) and not isinstance(error, CommandTimeout):
        return not_run(step, _first_line(error))
    transcript.append(record)
    if isinstance(error, KeyboardInterrupt):
        raise error
    fields = {**vars(record)}
    outcome: Outcome = fields.pop("outcome")
    verdict = Outcome.FAILED if outcome.bad else outcome
    return StepVerdict(**fields, verdict=verdict, doubtful=first_wrong)


def _first_line(error: LvsLabError) -> str:
    return error.message.partition("\n")[0]
