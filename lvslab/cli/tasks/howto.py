"""The commands for how-tos; as `tasks.py` has all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invoke import Collection, Context

from lvslab.cli.program import JSON, end, task


@task(
    positional=["path"],
    iterable=["kernel"],
    help={
        "path": "a Markdown file, or a lab's name or folder",
        "lab": "the lab that it is typed in: a name, or the path of a folder (default: what the file says)",
        "kernel": "a kernel as in lab.up, or several with commas between them; may be given more than once",
        "ipvsadm": "as in lab.up",
        "junit": "where to write JUnit XML (each kernel's own is with its evidence)",
        "json": JSON,
    },
)
def verify(
    c: Context,
    path: str,
    lab: str = "",
    kernel: list[str] | None = None,
    ipvsadm: str = "",
    junit: str = "",
    json: bool = False,
) -> None:
    """Type a how-to step by step in a fresh lab, and say of each step whether it does what the text says."""
    from lvslab.cli.text import common, howto
    from lvslab.howto import verify as howto_verify

    with common.Progress() as progress:
        listeners = howto_verify.Listeners(progress.event, progress.kernel, progress.verdict)
        result = howto_verify.verify(
            path,
            lab=lab,
            kernels=listed(kernel),
            ipvsadm=ipvsadm,
            junit=Path(junit) if junit else None,
            listeners=listeners,
        )
    common.document(result.as_json()) if json else print(howto.verified(result))
    end(result.exit_code)


@task(
    name="review",
    iterable=["kernel"],
    help={
        "record": "run what the claims rest on, and record what came of it",
        "only": "with --record: one how-to of docs/tutorial, or the checks of one lab (default: all)",
        "kernel": "with --record: as in howto.verify (default: all kernels of the page)",
    },
)
def write_review(c: Context, record: bool = False, only: str = "", kernel: list[str] | None = None) -> None:
    """Write docs/tutorial-review.md: what the tutorial says, and on which kernels it holds."""
    from lvslab.cli.text import common
    from lvslab.errors import UsageError
    from lvslab.howto import record as review_run
    from lvslab.howto import verify as howto_verify

    if (only or kernel) and not record:
        raise UsageError("--only and --kernel go with --record", "without it nothing is run")
    if record:
        with common.Progress() as progress:
            listeners = howto_verify.Listeners(progress.event, progress.kernel, progress.verdict)
            review_run.record(only, listed(kernel), listeners)
    print(review_run.write())


def listed(given: Sequence[str] | None) -> list[str]:
    """The names in options that may each hold several, with commas or blanks between them.

    The path of something that is there is one name, whatever is in it; of a folder, where it has a slash.
    """
    names: list[str] = []
    for text in given or ():
        whole = Path(text).is_file() or ("/" in text and Path(text).exists())
        names += [text] if whole else text.replace(",", " ").split()
    return names


howtos = Collection("howto")
for _task in (verify, write_review):
    howtos.add_task(_task)
