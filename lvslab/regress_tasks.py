"""The commands for matrices of kernels, versions of ipvsadm, and labs; as `tasks.py` has all others."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Context

from lvslab.program import JSON, end, task


@task(
    positional=["run"],
    help={
        "run": "the folder of a run, or its results.json",
        "html": "where to write the page (default: report.html in the folder of the run)",
        "junit": "where to write JUnit XML (default: nowhere)",
        "json": "print the results as one JSON document (see matrix.schema); no page then without --html",
    },
)
def report(c: Context, run: str, html: str = "", junit: str = "", json: bool = False) -> None:
    """Show what came of a matrix: one HTML file with all evidence, or JUnit XML."""
    from lvslab import show, show_compare
    from lvslab.regress import reading, reports

    kept = reading.read(Path(run))
    page = Path(html) if html else None if json else kept.folder / reports.PAGE
    written = reports.write(kept, html=page, junit=Path(junit) if junit else None)
    if json:
        show.document(kept.run.model_dump(mode="json"))
    else:
        print(show_compare.reported(kept.run, [f"{what}: {path}" for what, path in written.items()]))


@task(
    positional=["old", "new"],
    help={
        "old": "the folder of a run, or its results.json",
        "new": "the same of a later one",
        "json": JSON,
    },
)
def compare(c: Context, old: str, new: str, json: bool = False) -> None:
    """What changed between two runs of a matrix: is it of the kernel, of ipvsadm or of the lab?"""
    from lvslab import show, show_compare
    from lvslab.regress import compare as comparing
    from lvslab.regress import reading

    found = comparing.compare(reading.read(Path(old)), reading.read(Path(new)))
    show.document(found.as_json()) if json else print(show_compare.compared(found))
    end(found.exit_code)


@task()
def schema(c: Context) -> None:
    """The JSON Schema of a run's results.json."""
    from lvslab import show
    from lvslab.regress import results

    show.document(results.json_schema())


matrices = Collection("matrix")
for _task in (report, compare, schema):
    matrices.add_task(_task)
