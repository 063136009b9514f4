"""Takes a how-to's steps, one after the other, each in its node's own shell, and judges how they end."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from typing import NoReturn, Protocol

from lvslab.apply.shell import CommandTimeout, ConnectionLost, ShellResult
from lvslab.apply.transcript import Entry, Outcome, Transcript, printable
from lvslab.boot.status import Summary
from lvslab.errors import LvsLabError, StepFailed

# How much of a long output an error message repeats; the transcript has all of it.
_SHOWN_LINES = 20


class Step(Protocol):
    """A step as ``lvslab.apply.howto`` reads it from howto.md."""

    @property
    def number(self) -> int: ...
    @property
    def node(self) -> str: ...
    @property
    def command(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def known_failure(self) -> str | None: ...
    @property
    def timeout(self) -> float: ...
    def expects_failure(self, versions: Mapping[str, str], /) -> bool: ...
    def complaint(self, status: int, output: str, versions: Mapping[str, str], /) -> str | None: ...


class NodeShell(Protocol):
    """What a step is run in; ``lvslab.apply.shell.Shell`` is one."""

    def run(self, command: str, timeout: float) -> ShellResult: ...


class UnexpectedEnd(StepFailed):
    """A step did not end as the how-to says; ``entry`` is that step, ``summary`` the count with it."""

    def __init__(self, message: str, hint: str, entry: Entry, summary: Summary) -> None:
        super().__init__(message, hint)
        self.entry = entry
        self.summary = summary


def apply_steps(
    steps: Sequence[Step],
    open_shell: Callable[[str], AbstractContextManager[NodeShell]],
    transcript: Transcript,
    versions: Mapping[str, str] | Callable[[], Mapping[str, str]],
    report: Callable[[Entry], None],
    option: str = "",
) -> Summary:
    """Take ``steps`` in order and write each to ``transcript`` and ``report`` as soon as it has ended.

    ``open_shell`` makes the shell of a node when its first step comes; it stays open until all is done.
    ``versions`` (name to version, as known failures name them) may be a function: it is called once, at
    the first step that is a known failure. ``option`` follows the commands that hints name. Raises
    UnexpectedEnd (a StepFailed) at the first step that ends otherwise than the how-to says, and whatever
    ``open_shell`` raises. A connection that breaks during a step is written down as that step's failure
    and raised as ConnectionLost (a BootError).
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
            entry, error = take(step, shells[step.node], known or {})
            transcript.append(entry)
            report(entry)
            if entry.outcome == "expected failure":
                expected_failures += 1
            elif entry.outcome != "ok":
                summary = Summary(len(steps), entry.number, 1, expected_failures)
                _stop(step, entry, error, summary, option)
    return Summary(len(steps), len(steps), 0, expected_failures)


def take(
    step: Step, shell: NodeShell, versions: Mapping[str, str]
) -> tuple[Entry, LvsLabError | KeyboardInterrupt | None]:
    """Run one step and judge it; also what it raised, where it had no end that could be judged.

    Raises LvsLabError before it runs a step that depends on a version that is not in ``versions``.
    """
    # Asked first: it raises where a version is not known, and a step that was taken must be written down.
    must_fail = step.expects_failure(versions)
    started = datetime.now(UTC)
    began = time.monotonic()
    try:
        result = shell.run(step.command, step.timeout)
    except (LvsLabError, KeyboardInterrupt) as error:
        # A command that has not ended is never the failure that was expected: its shell is of no more use.
        match error:
            case CommandTimeout():
                output, reason = error.output, f"did not end within {step.timeout:g} s"
            case ConnectionLost():
                output, reason = error.output, "the connection broke before it ended"
            case LvsLabError():
                output, reason = "", error.message
            case _:
                output, reason = "", "interrupted"
        return _entry(step, started, output, None, time.monotonic() - began, "failed", reason), error
    reason = step.complaint(result.status, result.output, versions) or ""
    outcome: Outcome = "failed" if reason else "ok"
    if must_fail:
        if result.status == 0:
            outcome = "unexpectedly passed"
        elif not reason:
            outcome, reason = "expected failure", step.known_failure or ""
    if outcome == "failed" and result.ended:
        reason += "; the shell ended with it"
    return _entry(step, started, result.output, result.status, result.seconds, outcome, reason), None


def _entry(
    step: Step,
    started: datetime,
    output: str,
    status: int | None,
    seconds: float,
    outcome: Outcome,
    reason: str,
) -> Entry:
    return Entry(
        number=step.number,
        node=step.node,
        line=step.line,
        command=step.command,
        output=output,
        status=status,
        seconds=round(seconds, 6),
        started=started.isoformat(timespec="milliseconds"),
        outcome=outcome,
        reason=reason,
    )


def _stop(
    step: Step,
    entry: Entry,
    error: LvsLabError | KeyboardInterrupt | None,
    summary: Summary,
    option: str,
) -> NoReturn:
    message = describe(entry)
    look, history = f"./run lab.ssh {step.node}{option}", f"./run lab.transcript{option}"
    hint = f"the lab stays up for a look: {look}; all that was done: {history}"
    if entry.outcome == "unexpectedly passed":
        hint += "\n  if these versions have mended it, howto.md must not call it a known failure on them"
    if isinstance(error, ConnectionLost):
        raise ConnectionLost(message, error.output, hint) from error
    if error is not None and not isinstance(error, StepFailed):
        raise error
    raise UnexpectedEnd(message, hint, entry, summary) from error


def describe(entry: Entry) -> str:
    """``entry`` as an error message: the step as it stands in howto.md, what was wrong, what it printed."""
    command = textwrap.indent(printable(entry.command).rstrip("\n"), "    ").lstrip()
    verb = "passed unexpectedly" if entry.outcome == "unexpectedly passed" else "failed"
    lines = [
        f"howto.md:{entry.line}: on {entry.node}: {command}",
        f"  step {entry.number} {verb}: {printable(entry.reason)}",
    ]
    printed = printable(entry.output).splitlines()
    if len(printed) > _SHOWN_LINES:
        lines.append(f"  it printed {len(printed)} lines, the last {_SHOWN_LINES} of them:")
    else:
        lines.append("  it printed:" if printed else "  it printed nothing")
    lines += [f"    {line}" for line in printed[-_SHOWN_LINES:]]
    return "\n".join(lines)
