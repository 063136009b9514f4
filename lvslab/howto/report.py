"""Report of the verification of a how-to: a suite for each kernel, a case for each step."""

from __future__ import annotations

from lvslab.apply.verdicts import StepVerdict
from lvslab.howto.results import OnKernel, Verified
from lvslab.outcome import STEPS, Outcome
from lvslab.report.model import Report, ReportCase, Suite


def report(result: Verified) -> Report:
    """Return the report of a how-to's results.

    The first case of a suite, "lab up", is an ERROR if the lab did not come up. A step's output has its
    command and what it printed.
    """
    return Report("lvslab how-to", tuple(_suite(result, run) for run in result.runs))


def _suite(result: Verified, run: OnKernel) -> Suite:
    about = {"lab": result.lab, "howto": result.file, "evidence": run.evidence}
    about |= {f"{program}-version": version for program, version in run.versions.items()}
    up = ReportCase("lab up", Outcome.ERROR if run.error else Outcome.PASSED, message=run.error)
    return Suite(
        name=f"{result.file} on {run.label}",
        group=f"{result.lab}.{run.label}",
        cases=(up, *map(_case, run.steps)),
        seconds=run.seconds,
        properties=about,
    )


def _case(step: StepVerdict) -> ReportCase:
    typed = step.command.partition("\n")[0]
    doubt = f"(doubtful: step {step.doubtful} went wrong before it)\n" if step.doubtful else ""
    ran = step.verdict is not Outcome.NOT_RUN
    return ReportCase(
        name=f"step {step.number}, line {step.line}, on {step.node}: {typed}",
        outcome=step.verdict,
        seconds=step.seconds,
        message=step.reason,
        output=f"{step.node}# {step.command}\n{step.output}{doubt}" if ran else "",
        word=STEPS.word(step.verdict),
    )
