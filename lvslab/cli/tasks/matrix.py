"""The commands for matrices of kernels, versions of ipvsadm, and labs; as `tasks.py` has all others."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Context

from lvslab.cli.program import JSON, end, task
from lvslab.cli.tasks.howto import listed

RUN = "the folder of a run, or its results.json; latest: the last run"


@task(
    name="run",
    iterable=["kernels", "ipvsadm", "labs"],
    help={
        "kernels": "kernels as in lab.up, with commas between them; store: all that kernel.build has built",
        "ipvsadm": "versions of ipvsadm as in lab.up, with commas between them (default: the usual one)",
        "labs": "names or paths of labs, with commas between them (default: all)",
        "output": "the folder for results and evidence (default: a new one)",
        "resume": "go on with the run in this folder; latest: with the last one",
        "seed": "what random choices of the checks come from (default: another one each time)",
        "workers": "how many cells to try at a time here (default: as many as there is room for)",
        "scheduler": "the address of a Dask scheduler, whose workers are to try the cells",
        "json": JSON,
    },
)
def run_matrix(
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
    """Try every lab on every kernel with every ipvsadm, each in a fresh cluster, several at a time."""
    from lvslab.cli.text import common
    from lvslab.cli.text import matrix as show_matrix
    from lvslab.matrix import run as matrix

    wanted = matrix.Wanted(
        kernels=listed(kernels),
        ipvsadm=listed(ipvsadm),
        labs=listed(labs),
        output=Path(output) if output else None,
        resume=resume,
        seed=show_matrix.number("--seed", seed),
        workers=workers,
        scheduler=scheduler,
    )
    with show_matrix.Progress() as progress:
        run, folder = matrix.run(wanted, progress)
    common.document(run.model_dump(mode="json")) if json else print(show_matrix.run(run, folder))
    end(matrix.exit_code(run))


@task(
    positional=["run"],
    help={
        "run": RUN,
        "html": "where to write the page (default: report.html in the folder of the run)",
        "junit": "where to write JUnit XML (default: nowhere)",
        "json": "print the results as one JSON document (see matrix.schema); no page then without --html",
    },
)
def report(c: Context, run: str, html: str = "", junit: str = "", json: bool = False) -> None:
    """Show what came of a matrix: one HTML file with all evidence, or JUnit XML."""
    from lvslab.cli.text import common
    from lvslab.cli.text import compare as show_compare
    from lvslab.matrix import folder as run_folder
    from lvslab.matrix import reading
    from lvslab.matrix.report import writer

    kept = reading.read(run_folder.place(run))
    page = Path(html) if html else None if json else kept.folder / writer.PAGE
    written = writer.write(kept, html=page, junit=Path(junit) if junit else None)
    if json:
        common.document(kept.run.model_dump(mode="json"))
    else:
        print(show_compare.reported(kept.run, [f"{what}: {path}" for what, path in written.items()]))


@task(
    positional=["old", "new"],
    help={
        "old": RUN,
        "new": "the same of a later run",
        "json": JSON,
    },
)
def compare(c: Context, old: str, new: str, json: bool = False) -> None:
    """What changed between two runs of a matrix: is it of the kernel, of ipvsadm or of the lab?"""
    from lvslab.cli.text import common
    from lvslab.cli.text import compare as show_compare
    from lvslab.matrix import folder as run_folder
    from lvslab.matrix import reading
    from lvslab.matrix.compare import comparison as comparing

    found = comparing.compare(*(reading.read(run_folder.place(run)) for run in (old, new)))
    common.document(found.as_json()) if json else print(show_compare.compared(found))
    end(found.exit_code)


@task()
def schema(c: Context) -> None:
    """The JSON Schema of a run's results.json."""
    from lvslab.cli.text import common
    from lvslab.matrix import results

    common.document(results.json_schema())


matrices = Collection("matrix")
for _task in (run_matrix, report, compare, schema):
    matrices.add_task(_task)
