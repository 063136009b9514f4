"""The commands for kernels."""

from __future__ import annotations

from pathlib import Path

from invoke import Context

from lvslab.cli import text
from lvslab.cli.command_line import names_in, path_in
from lvslab.cli.program import Group, end, say

group = Group(
    "kernel",
    kernel="a version (2.4.37.11), a series (6.1), or a name that kernel.list shows",
    insecure="accept a source tarball that cannot be verified",
)


@group.task(name="list")
def list_kernels(c: Context, json: bool = False) -> None:
    """List the kernels that are available, and those in the store."""
    from lvslab.kernel import report as kernel_report

    say(kernel_report.listed(), json, text.kernel.listed)


@group.task(positional=["kernel"])
def show(c: Context, kernel: str, json: bool = False) -> None:
    """Show all about a kernel, and which IPVS features it lacks."""
    from lvslab.kernel import report as kernel_report

    say(kernel_report.shown(kernel), json, text.kernel.shown)


@group.task(
    name="config",
    positional=["version"],
    help={"version": "as in kernel.build", "tree": "as in kernel.build", "config": "as in kernel.build"},
)
def show_config(c: Context, version: str, tree: str = "", config: str = "") -> None:
    """Print the configuration that kernel.build asks for, with the file of each part."""
    from lvslab.kernel import build as kernel_build

    print(kernel_build.asked(version, path_in(tree), path_in(config)), end="")


@group.task(positional=["kernel"])
def fetch(c: Context, kernel: str, insecure: bool = False, json: bool = False) -> None:
    """Download and verify a kernel's source, or its packages."""
    from lvslab.kernel import report as kernel_report

    with text.progress.Progress():
        files = kernel_report.fetched(kernel, insecure)
    say({"files": [str(file) for file in files]}, json, lambda found: "\n".join(found["files"]))


@group.task(
    positional=["version"],
    help={
        "version": "a kernel of the catalogue, such as 2.4.37.11, or the version of --tree",
        "tree": "build this source tree instead of a release; nothing is written into it",
        "config": "a file of kernel settings that override all others",
        "jobs": "the number of parallel jobs of make (default: one for each processor)",
    },
)
def build(
    c: Context,
    version: str,
    tree: str = "",
    config: str = "",
    jobs: int = 0,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Build a kernel with the tutorial's IPVS configuration, and keep it in the store."""
    from lvslab.kernel import build as kernel_build

    with text.progress.Progress():
        built = kernel_build.build(
            version, tree=path_in(tree), config=path_in(config), jobs=jobs or None, insecure=insecure
        )
    say(kernel_build.as_json(built), json, text.kernel.built)


@group.task(
    name="import",
    positional=["path"],
    help={
        "path": "a bzImage (vmlinuz), or a kernel's Debian package",
        "modules": "its modules: the folder that holds kernel/, or a Debian package",
        "config": "the .config it was built with",
    },
)
def import_kernel(c: Context, path: str, modules: str = "", config: str = "", json: bool = False) -> None:
    """Add a kernel that was built elsewhere to the store."""
    from lvslab.kernel import imports

    built = imports.take(Path(path), path_in(modules), path_in(config))
    about = {"name": built.name, "folder": str(built.folder), "modules": len(built.manifest.modules)}
    say(about, json, text.kernel.imported)


@group.task(
    name="try",
    positional=["path"],
    iterable=["labs"],
    help={
        "path": "a bzImage, a .deb, an .rpm, or a kernel's source tree",
        "labs": "a lab, or several separated by commas (default: web-nat); may be repeated",
        "select": "run only checks whose names match (pytest -k)",
        "message": "count only failures whose message matches this regular expression",
        "strict": "count a failure even if a known bug explains it",
        "build": "build the tree even if something was built in it already",
        "config": "as in kernel.build; implies --build",
        "jobs": "as in kernel.build",
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
    """Run labs on a kernel and say whether it is good; for git bisect run."""
    from lvslab.matrix import bisect

    with text.progress.Progress() as progress:
        result = bisect.run(
            Path(path),
            labs=names_in(labs) or ["web-nat"],
            select=select,
            message=message,
            strict=strict,
            build=build,
            config=path_in(config),
            jobs=jobs or None,
            report=progress.event,
        )
    say(result, json, text.kernel.tried)
    end(result.exit_code)


@group.task(
    name="rm",
    positional=["kernel"],
    help={"kernel": "its name in the store, or a version or series of which the store has one kernel"},
)
def remove_kernel(c: Context, kernel: str, json: bool = False) -> None:
    """Delete a kernel from the store."""
    from lvslab.kernel import store

    say({"deleted": [store.remove(kernel).name]}, json, text.layout.named)
