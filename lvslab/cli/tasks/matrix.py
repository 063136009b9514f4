"""The commands for matrices of kernels, versions of ipvsadm, and labs."""

from __future__ import annotations

from invoke import Context

from lvslab.cli import text
from lvslab.cli.command_line import names_in, number, path_in
from lvslab.cli.program import Group, end, say
from lvslab.cli.report_options import NO_REPORTS
from lvslab.report.formats import Places

group = Group("matrix")

RUN = "the folder of a run, or its results.json; latest: the last run"


@group.task(
    iterable=["kernels", "ipvsadm", "labs"],
    help={
        "kernels": "kernels as in lab.up, separated by commas; store: all that kernel.build has built",
        "ipvsadm": "versions of ipvsadm as in lab.up, separated by commas (default: the usual one)",
        "labs": "names or paths of labs, separated by commas (default: all)",
        "output": "the folder for results and evidence (default: a new one)",
        "resume": "continue the run in this folder; latest: the last run",
        "seed": "the number from which the checks draw their random choices (default: a new one)",
        "workers": "how many cells to run at a time on this machine (default: as many as fit)",
        "scheduler": "the address of a Dask scheduler whose workers run the cells",
    },
)
def run(
    c: Context,
    kernels: list[str] | None = None,
    ipvsadm: list[str] | None = None,
    labs: list[str] | None = None,
    output: str = "",
    resume: str = "",
    seed: str = "",
    workers: int = 0,
    scheduler: str = "",
    json: bool = False,
) -> None:
    """Run every lab on every kernel with every ipvsadm, each in a fresh cluster."""
    from lvslab.matrix import run as matrix

    wanted = matrix.Request(
        kernels=names_in(kernels),
        ipvsadm=names_in(ipvsadm),
        labs=names_in(labs),
        output=path_in(output),
        resume=resume,
        seed=number("--seed", seed),
        workers=workers,
        scheduler=scheduler,
    )
    with text.matrix.Progress() as progress:
        found, folder = matrix.run(wanted, progress)
    text.layout.document(found.model_dump(mode="json")) if json else print(text.matrix.run(found, folder))
    end(matrix.exit_code(found))


@group.task(
    positional=["run"],
    reports="",
    help={
        "run": RUN,
        "html": "where to write the page (default: report.html in the folder of the run)",
        "json": "print the results as one JSON document (see matrix.schema); writes a page only with --html",
    },
)
def report(c: Context, run: str, html: str = "", reports: Places = NO_REPORTS, json: bool = False) -> None:
    """Report a matrix as one HTML file with all evidence, or as JUnit XML."""
    from lvslab.matrix import folder, reading
    from lvslab.matrix.report import writer

    kept = reading.read(folder.place(run))
    page = path_in(html) or (None if json else kept.folder / writer.PAGE)
    written = writer.write(kept, html=page, reports=reports)
    if json:
        text.layout.document(kept.run.model_dump(mode="json"))
    else:
        print(text.compare.reported(kept.run, [f"{what}: {file}" for what, file in written.items()]))


@group.task(positional=["old", "new"], help={"old": RUN, "new": "a later run, given in the same way"})
def compare(c: Context, old: str, new: str, json: bool = False) -> None:
    """Compare two runs: what changed, and whether kernel, ipvsadm or lab is the cause."""
    from lvslab.matrix import folder, reading
    from lvslab.matrix.compare import comparison

    found = comparison.compare(*(reading.read(folder.place(run)) for run in (old, new)))
    say(found, json, text.compare.compared)
    end(found.exit_code)


@group.task()
def schema(c: Context) -> None:
    """Print the JSON Schema of a run's results.json."""
    from lvslab.matrix import results

    text.layout.document(results.json_schema())
