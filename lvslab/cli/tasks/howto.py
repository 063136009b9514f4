"""The commands for how-tos."""

from __future__ import annotations

from invoke import Context

from lvslab.cli import text
from lvslab.cli.command_line import names_in
from lvslab.cli.program import Group, end, say
from lvslab.cli.report_options import NO_REPORTS
from lvslab.errors import UsageError
from lvslab.report.formats import Places

group = Group("howto")


@group.task(
    positional=["path"],
    iterable=["kernel"],
    reports="each kernel's own is with its evidence",
    help={
        "path": "a Markdown file, or a lab's name or folder",
        "lab": "the lab to type it in: a name, or the path of a folder (default: what the file says)",
        "kernel": "a kernel as in lab.up, or several separated by commas; may be repeated",
        "ipvsadm": "as in lab.up",
    },
)
def verify(
    c: Context,
    path: str,
    lab: str = "",
    kernel: list[str] | None = None,
    ipvsadm: str = "",
    reports: Places = NO_REPORTS,
    json: bool = False,
) -> None:
    """Type a how-to step by step in a fresh lab, and judge each step."""
    from lvslab.howto import verify as howto_verify

    with text.progress.Progress() as progress:
        result = howto_verify.verify(
            path,
            lab=lab,
            kernels=names_in(kernel),
            ipvsadm=ipvsadm,
            reports=reports,
            listeners=howto_verify.Listeners(progress.event, progress.kernel, progress.verdict),
        )
    say(result, json, text.howto.verified)
    end(result.exit_code)


@group.task(
    iterable=["kernel"],
    help={
        "record": "first run the how-tos and checks that the claims rest on, and record the results",
        "only": "with --record: one how-to of docs/tutorial, or the checks of one lab (default: all)",
        "kernel": "with --record: as in howto.verify (default: all kernels of the page)",
    },
)
def review(c: Context, record: bool = False, only: str = "", kernel: list[str] | None = None) -> None:
    """Write docs/tutorial-review.md: the tutorial's claims, and the kernels on which they hold."""
    from lvslab.howto import record as recording
    from lvslab.howto import verify as howto_verify

    if record:
        with text.progress.Progress() as progress:
            listeners = howto_verify.Listeners(progress.event, progress.kernel, progress.verdict)
            recording.record(only, names_in(kernel), listeners)
    elif only or kernel:
        raise UsageError("--only and --kernel need --record", "without --record nothing is run")
    print(recording.write())
