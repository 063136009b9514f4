"""The commands for how-tos; as `tasks.py` has all others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from invoke import Collection, Context

from lvslab.program import end, task

JSON = "print one JSON document"


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
    kernel: Sequence[str] = (),
    ipvsadm: str = "",
    junit: str = "",
    json: bool = False,
) -> None:
    """Type a how-to step by step in a fresh lab, and say of each step whether it does what the text says."""
    from lvslab import howto_verify, show, show_howto

    with show.Progress() as progress:
        listeners = howto_verify.Listeners(progress.event, progress.kernel, progress.verdict)
        result = howto_verify.verify(
            path,
            lab=lab,
            kernels=listed(kernel),
            ipvsadm=ipvsadm or None,
            junit=Path(junit) if junit else None,
            listeners=listeners,
        )
    show.document(result.as_json()) if json else print(show_howto.verified(result))
    end(result.exit_code)


def listed(given: Sequence[str]) -> list[str]:
    """The names in options that may each hold several, with commas or blanks between them.

    The path of a file that is there is one name, whatever is in it.
    """
    names: list[str] = []
    for text in given:
        names += [text] if Path(text).is_file() else text.replace(",", " ").split()
    return names


howtos = Collection("howto")
howtos.add_task(verify)
