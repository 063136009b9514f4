"""Take a how-to's steps in order, each in its node's shell, and judge their ends."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from lvslab.apply.shell import CommandTimeout, ConnectionLost, ShellResult
from lvslab.apply.transcript import StepRecord, Transcript, printable
from lvslab.boot.status import Summary
from lvslab.errors import LvsLabError, StepFailed
from lvslab.outcome import Outcome

if TYPE_CHECKING:
    from lvslab.apply.howto import Step

_SHOWN_LINES = 20
"""Lines of a long output that an error message repeats; the transcript has all of them."""


class NodeShell(Protocol):
    """Shell that steps are run in, such as `lvslab.apply.shell.Shell`."""

    def run(self, command: str, timeout: float) -> ShellResult: ...


class UnexpectedEnd(StepFailed):
    """A step did not end as the how-to says: ``record`` is that step, ``summary`` includes it."""

    def __init__(self, message: str, hint: str, record: StepRecord, summary: Summary) -> None:
        super().__init__(message, hint)
        self.record = record
        self.summary = summary


def apply_steps(
    steps: Sequence[Step],
    open_shell: Callable[[str], AbstractContextManager[NodeShell]],
    transcript: Transcript,
    versions: Mapping[str, str] | Callable[[], Mapping[str, str]],
    report: Callable[[StepRecord], None],
    option: str | None = None,
) -> Summary:
    """Take ``steps`` in order; write and ``report`` each when it has ended.

    ``open_shell`` opens the shell of a node for its first step; it stays open until the last step.
    ``versions`` (name to version, as known failures name them) may be a function: it is called once, at
    the first step that is a known failure. ``option`` is appended to the commands in hints; None if the lab
    ends with the caller, so that they cannot be used. Raises UnexpectedEnd (a StepFailed) at the first step
    that does not end as the how-to says, and what ``open_shell`` raises. A connection that breaks during a
    step is recorded as a failure of that step and raised as ConnectionLost (a BootError).
    """
    known: Mapping[str, str] | None = None
    shells: dict[str, NodeShell] = {}
    expected_failures = 0
    with ExitStack() as opened:
        for step in steps:
            if step.known_failure is not None and known is None:
                known = versions() if callable(versions) else versions
            if step.node not in shells:
                shells[step.node] = opened.enter_context(open_shell(step.node))
            record, error = take(step, shells[step.node], known or {})
            transcript.append(record)
            report(record)
            if record.outcome is Outcome.EXPECTED_FAILURE:
                expected_failures += 1
            elif record.outcome.bad:
                summary = Summary(len(steps), record.number, 1, expected_failures)
                _stop(record, error, summary, _where_to_look(step.node, transcript.path, option))
    return Summary(len(steps), len(steps), 0, expected_failures)


def take(
    step: Step, shell: NodeShell, versions: Mapping[str, str]
) -> tuple[StepRecord, LvsLabError | KeyboardInterrupt | None]:
    """Run one step and judge it. Also return the error, if the command did not end.

    Raises LvsLabError, and does not run the step, if it depends on a version that is not in ``versions``.
    """
    # First, since it may raise, and a step that has been run must be recorded.
    must_fail = step.expects_failure(versions)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    taken = StepRecord(
        step.number, step.node, step.line, step.command, "", None, 0.0, started, Outcome.FAILED
    )
    began = time.monotonic()
    try:
        result = shell.run(step.command, step.timeout)
    except (LvsLabError, KeyboardInterrupt) as error:
        # A command that has not ended is never the expected failure: its shell cannot be used any more.
        match error:
            case CommandTimeout():
                output, reason = error.output, f"did not end within {step.timeout:g} s"
            case ConnectionLost():
                output, reason = error.output, "the connection broke before it ended"
            case LvsLabError():
                output, reason = "", error.message
            case _:
                output, reason = "", "interrupted"
        seconds = round(time.monotonic() - began, 6)
        return replace(taken, output=output, seconds=seconds, reason=reason), error
    reason = step.complaint(result.status, result.output, versions) or ""
    outcome = Outcome.FAILED if reason else Outcome.PASSED
    if must_fail:
        if result.status == 0:
            outcome = Outcome.UNEXPECTEDLY_PASSED
        elif not reason:
            outcome, reason = Outcome.EXPECTED_FAILURE, step.known_failure or ""
    if outcome is Outcome.FAILED and result.ended:
        reason += "; the shell ended with it"
    seconds, output, status = round(result.seconds, 6), result.output, result.status
    return replace(
        taken, output=output, status=status, seconds=seconds, outcome=outcome, reason=reason
    ), None


def _where_to_look(node: str, transcript: Path, option: str | None) -> str:
    if option is None:
        return f"all that was done: {transcript}"
    look, history = f"./run lab.ssh {node}{option}", f"./run lab.transcript{option}"
    return f"the lab stays up for a look: {look}; all that was done: {history}"


def _stop(
    record: StepRecord, error: LvsLabError | KeyboardInterrupt | None, summary: Summary, hint: str
) -> NoReturn:
    message = describe(record)
    if record.outcome is Outcome.UNEXPECTEDLY_PASSED:
        hint += "\n  if these versions have mended it, howto.md must not call it a known failure on them"
    if isinstance(error, ConnectionLost):
        raise ConnectionLost(message, error.output, hint) from error
    if error is not None and not isinstance(error, StepFailed):
        raise error
    raise UnexpectedEnd(message, hint, record, summary) from error


def describe(record: StepRecord) -> str:
    """Error message for ``record``: the step as in howto.md, the mistake, and the output."""
    command = textwrap.indent(printable(record.command).rstrip("\n"), "    ").lstrip()
    verb = "passed unexpectedly" if record.outcome is Outcome.UNEXPECTEDLY_PASSED else "failed"
    lines = [
        f"howto.md:{record.line}: on {record.node}: {command}",
        f"  step {record.number} {verb}: {printable(record.reason)}",
    ]
    printed = printable(record.output).splitlines()
    if len(printed) > _SHOWN_LINES:
        lines.append(f"  it printed {len(printed)} lines, the last {_SHOWN_LINES} of them:")
    else:
        lines.append("  it printed:" if printed else "  it printed nothing")
    lines += [f"    {line}" for line in printed[-_SHOWN_LINES:]]
    return "\n".join(lines)
