"""The commands for matrices of kernels, versions of ipvsadm, and labs; as `tasks.py` has all others."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Context

from lvslab.howto_tasks import listed
from lvslab.program import JSON, end, task


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
    from lvslab import show, show_matrix
    from lvslab.regress import matrix

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
    show.document(run.model_dump(mode="json")) if json else print(show_matrix.run(run, folder))
    end(matrix.exit_code(run))


matrices = Collection("matrix")
for _task in (run_matrix,):
    matrices.add_task(_task)
