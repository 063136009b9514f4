"""A verdict for each step of a how-to: all of them are taken, also those behind one that failed.

``runner`` stops at the first step that does not end as the how-to says, since a lab is of no use then. Here
the text is what is looked at, and the reader wants to know all that is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Literal

from lvslab.apply.runner import NodeShell, Step, take
from lvslab.apply.shell import CommandTimeout
from lvslab.apply.transcript import Entry, Transcript
from lvslab.errors import LvsLabError, StepFailed

Verdict = Literal["ok", "failed", "expected failure", "not run"]


@dataclass(frozen=True)
class Judged:
    """One step of a how-to, and what came of it.

    ``number``, ``node``, ``line`` and ``command`` are the step's own. ``reason`` says why it failed, why it
    was expected to, or why it was not run; of a step that is ok it is empty. ``doubtful`` is the number of
    the first step before this one that failed or was not run, where there is one: what this step did may be
    owing to that. It is None of a step that was not run. ``status`` is None where the command had no end,
    ``seconds`` its duration, ``started`` the time in UTC as ISO 8601, empty where it was not run.
    """

    number: int
    node: str
    line: int
    command: str
    verdict: Verdict
    reason: str = ""
    doubtful: int | None = None
    status: int | None = None
    seconds: float = 0.0
    output: str = ""
    started: str = ""


def judge_steps(
    steps: Sequence[Step],
    open_shell: Callable[[str], AbstractContextManager[NodeShell]],
    transcript: Transcript,
    versions: Mapping[str, str],
    report: Callable[[Judged], None],
) -> tuple[Judged, ...]:
    """Take all ``steps`` in order, each in its node's shell, and say of each what came of it.

    Each that was typed is written to ``transcript``; ``report`` hears of every one. A step is not run where
    its node has no shell any more (an earlier step ended it, or had no end, or the node has gone), or where
    it depends on a version that is not in ``versions``. Raises KeyboardInterrupt, and nothing of lvslab's.
    """
    judged: list[Judged] = []
    first_wrong: int | None = None
    with ExitStack() as opened:
        shells = _Shells(open_shell, opened)
        for step in steps:
            found = _judge(step, shells, transcript, versions, first_wrong)
            if found.verdict in ("failed", "not run") and first_wrong is None:
                first_wrong = step.number
            judged.append(found)
            report(found)
    return tuple(judged)


def not_run(step: Step, reason: str) -> Judged:
    """The verdict on a step that was not typed, for that ``reason``."""
    return Judged(step.number, step.node, step.line, step.command, "not run", reason)


class _Shells:
    """The shell of each node, opened when it is first asked for; closed with ``opened``."""

    def __init__(
        self, open_shell: Callable[[str], AbstractContextManager[NodeShell]], opened: ExitStack
    ) -> None:
        self._open = open_shell
        self._opened = opened
        self._shells: dict[str, NodeShell] = {}
        self._unreachable: dict[str, str] = {}

    def of(self, node: str) -> NodeShell:
        """The shell of ``node``. Raises StepFailed where it has none, at once the second time."""
        if node in self._unreachable:
            raise StepFailed(self._unreachable[node])
        if node not in self._shells:
            try:
                self._shells[node] = self._opened.enter_context(self._open(node))
            except LvsLabError as error:
                self._unreachable[node] = f"no login on {node}: {_first_line(error)}"
                raise StepFailed(self._unreachable[node]) from error
        return self._shells[node]


def _judge(
    step: Step,
    shells: _Shells,
    transcript: Transcript,
    versions: Mapping[str, str],
    first_wrong: int | None,
) -> Judged:
    try:
        entry, error = take(step, shells.of(step.node), versions)
    except LvsLabError as reason:
        return not_run(step, _first_line(reason))
    # A shell that has gone says so before it runs anything; a command without an end has been run.
    if isinstance(error, StepFailed) and not isinstance(error, CommandTimeout):
        return not_run(step, _first_line(error))
    transcript.append(entry)
    if isinstance(error, KeyboardInterrupt):
        raise error
    return _of_entry(entry, first_wrong)


def _of_entry(entry: Entry, first_wrong: int | None) -> Judged:
    return Judged(
        number=entry.number,
        node=entry.node,
        line=entry.line,
        command=entry.command,
        verdict="failed" if entry.outcome == "unexpectedly passed" else entry.outcome,
        reason=entry.reason,
        doubtful=first_wrong,
        status=entry.status,
        seconds=entry.seconds,
        output=entry.output,
        started=entry.started,
    )


def _first_line(error: LvsLabError) -> str:
    return error.message.partition("\n")[0]
