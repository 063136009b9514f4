"""The commands for kernels, and for what they are built with; as `tasks.py` has all others."""

from __future__ import annotations

from pathlib import Path

from invoke import Collection, Context

from lvslab.cli.program import JSON, end, say, task

KERNEL = "a version (2.4.37.11), a series (6.1), or a name that kernel.list shows"
INSECURE = "take a tarball that nothing verifies"


@task(name="list", help={"json": JSON})
def list_kernels(c: Context, json: bool = False) -> None:
    """The kernels that can be had, and those that are in the store."""
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel import report as kernel_report

    say(kernel_report.listed(), json, show_kernels.listed)


@task(name="show", positional=["kernel"], help={"kernel": KERNEL, "json": JSON})
def show_kernel(c: Context, kernel: str, json: bool = False) -> None:
    """What is known of a kernel, and what its IPVS cannot do."""
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel import report as kernel_report

    say(kernel_report.shown(kernel), json, show_kernels.shown)


@task(name="fetch", positional=["kernel"], help={"kernel": KERNEL, "insecure": INSECURE, "json": JSON})
def fetch_kernel(c: Context, kernel: str, insecure: bool = False, json: bool = False) -> None:
    """Download and verify what a kernel is built from, or a ready-made one."""
    from lvslab.cli.text import common
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel import report as kernel_report

    with common.Progress():
        files = kernel_report.fetched(kernel, insecure)
    say({"files": [str(file) for file in files]}, json, show_kernels.fetched)


@task(
    name="import",
    positional=["path"],
    help={
        "path": "a bzImage (vmlinuz), or a kernel's Debian package",
        "modules": "its modules: the folder that holds kernel/, or a Debian package",
        "config": "what it was configured with",
        "json": JSON,
    },
)
def import_kernel(c: Context, path: str, modules: str = "", config: str = "", json: bool = False) -> None:
    """Take a kernel that was built elsewhere into the store."""
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel import imports

    places = (Path(given) if given else None for given in (modules, config))
    built = imports.take(Path(path), *places)
    about = {"name": built.name, "folder": str(built.folder), "modules": len(built.manifest.modules)}
    say(about, json, show_kernels.imported)


@task(
    name="rm",
    positional=["kernel"],
    help={"kernel": "a name of the store, or a version that it has once", "json": JSON},
)
def remove_kernel(c: Context, kernel: str, json: bool = False) -> None:
    """Delete a kernel from the store."""
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel import store

    say({"deleted": [store.remove(kernel).name]}, json, show_kernels.removed)


@task(
    name="build",
    positional=["version"],
    help={
        "version": "a kernel of the catalogue, such as 2.4.37.11, or the version of --tree",
        "tree": "a source tree of your own to build instead of a release; nothing is written into it",
        "config": "a file of kernel settings, which have the last word",
        "jobs": "how many things make does at a time (default: one for each processor)",
        "insecure": "take the source even where nothing vouches for it",
        "json": JSON,
    },
)
def build_kernel(
    c: Context,
    version: str,
    tree: str = "",
    config: str = "",
    jobs: int = 0,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Build a kernel with the tutorial's IPVS configuration, and keep it."""
    from lvslab.cli.text import common
    from lvslab.kernel import build as kernel_build

    with common.Progress():
        built = kernel_build.build(
            version,
            tree=Path(tree) if tree else None,
            config=Path(config) if config else None,
            jobs=jobs if jobs != 0 else None,
            insecure=insecure,
        )
    say(kernel_build.as_json(built), json, common.kernel_built)


@task(
    name="try",
    positional=["path"],
    iterable=["labs"],
    help={
        "path": "a bzImage, a .deb, an .rpm, or a kernel's source tree",
        "labs": "a lab, or several with commas between them (default: web-nat); may be given more than once",
        "select": "only checks whose names match (pytest -k)",
        "message": "only a failure counts that says this (a regular expression)",
        "strict": "count a failure even where a known bug explains it",
        "build": "build the tree even where something was built in it",
        "config": "as in kernel.build; builds the tree",
        "jobs": "as in kernel.build",
        "json": JSON,
    },
)
def try_kernel(
    c: Context,
    path: str,
    labs: list[str] | None = None,
    select: str = "",
    message: str = "",
    strict: bool = False,
    build: bool = False,
    config: str = "",
    jobs: int = 0,
    json: bool = False,
) -> None:
    """Run labs on a kernel, and say whether it is good: for developers, and for git bisect run."""
    from lvslab.cli.tasks.howto import listed
    from lvslab.cli.text import common
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.matrix import bisect

    with common.Progress() as progress:
        result = bisect.run(
            Path(path),
            labs=listed(labs) or ["web-nat"],
            select=select,
            message=message,
            strict=strict,
            build=build,
            config=Path(config) if config else None,
            jobs=jobs if jobs != 0 else None,
            report=progress.event,
        )
    common.document(result.as_json()) if json else print(show_kernels.tried(result))
    end(result.exit_code)


@task(
    name="config",
    positional=["version"],
    help={"version": "as in kernel.build", "tree": "as in kernel.build", "config": "as in kernel.build"},
)
def show_kernel_config(c: Context, version: str, tree: str = "", config: str = "") -> None:
    """What kernel.build asks of a kernel's configuration, and where that stands."""
    from lvslab.kernel import build as kernel_build

    print(
        kernel_build.asked(version, Path(tree) if tree else None, Path(config) if config else None), end=""
    )


@task(name="list", help={"json": JSON})
def list_toolchains(c: Context, json: bool = False) -> None:
    """The compiler and the programs for old kernels, and which of them are built."""
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel.toolchain import compilers

    say(compilers.listed(), json, show_kernels.toolchains)


@task(
    name="build",
    positional=["name"],
    help={
        "name": "one of toolchain.list (default: all that old kernels and their guests need)",
        "json": JSON,
    },
)
def build_toolchain(c: Context, name: str = "", json: bool = False) -> None:
    """Build the compiler and the programs for old kernels, each once."""
    from lvslab.cli.text import common
    from lvslab.cli.text import kernels as show_kernels
    from lvslab.kernel.toolchain import compilers

    with common.Progress():
        compilers.build([name] if name else compilers.usual())
    say(compilers.listed(), json, show_kernels.toolchains)


kernels = Collection("kernel")
for _task in (
    list_kernels,
    show_kernel,
    show_kernel_config,
    fetch_kernel,
    build_kernel,
    import_kernel,
    try_kernel,
    remove_kernel,
):
    kernels.add_task(_task)
toolchains = Collection("toolchain")
for _task in (list_toolchains, build_toolchain):
    toolchains.add_task(_task)
