"""The commands. Each parses its arguments, calls one function, and prints what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from invoke import Collection, Context
from invoke.exceptions import Exit

from lvslab.paths import PROJECT
from lvslab.program import task

# Everything else is imported where it is used: `./run --list` shall not wait for pydantic and paramiko.

NAME = "the name that the lab is up as; may be left out where only one is up"
NODE = "a node's name, as in lab.status"
JSON = "print one JSON document"
KERNEL = "a version (2.4.37.11), a series (6.1), or a name that kernel.list shows"
INSECURE = "take a tarball that nothing verifies"
DIRECTOR = "what directors are: qemu (virtual machines) or mininet (hosts on this machine's kernel)"


def _say(value: Any, json: bool, as_text: Callable[[Any], str]) -> None:
    from lvslab import show

    show.document(value) if json else print(as_text(value))


def _end(status: int) -> None:
    if status != 0:
        raise Exit(code=status)


@task(name="list", help={"json": JSON})
def list_labs(c: Context, json: bool = False) -> None:
    """The labs there are, and which of them are up."""
    from lvslab import running, show

    _say(running.listed(), json, show.labs)


@task(
    positional=["lab"],
    help={
        "lab": "a lab's name, or the path of its folder",
        "name": "what to call the running lab (default: the lab's name)",
        "kernel": "the directors' kernel: a name or version of kernel.list, or a bzImage's path",
        "director": DIRECTOR,
        "ipvsadm": "the directors' ipvsadm: a version, or the path of its source (default: the usual one)",
        "apply": "whether to type the how-to's steps",
        "cold": "boot the directors instead of resuming a snapshot of them",
        "json": JSON,
    },
)
def up(
    c: Context,
    lab: str = "web-nat",
    name: str = "",
    kernel: str = "",
    director: str = "qemu",
    ipvsadm: str = "",
    apply: bool = True,
    cold: bool = False,
    json: bool = False,
) -> None:
    """Boot a lab, apply its how-to, and show how it balances."""
    from lvslab import lab as labs
    from lvslab import show

    with show.Progress() as progress:
        listeners = labs.Listeners(progress.event, progress.step)
        result = labs.up(
            lab,
            name=name,
            kernel=kernel or None,
            director=director,
            ipvsadm=ipvsadm or None,
            apply=apply,
            cold=cold,
            listeners=listeners,
        )
    show.document(result.as_json()) if json else print(show.up(result))


@task(help={"name": NAME, "json": JSON})
def apply(c: Context, name: str = "", json: bool = False) -> None:
    """Type the how-to's steps in a lab that is up without them (lab.up --no-apply)."""
    from lvslab import lab, running, show

    with show.Progress() as progress:
        result = lab.apply(running.only(name), lab.Listeners(progress.event, progress.step))
    show.document(result.as_json()) if json else print(show.up(result))


@task(help={"name": NAME, "junit": "where to write JUnit XML (default: with the evidence)", "json": JSON})
def check(c: Context, name: str = "", junit: str = "", json: bool = False) -> None:
    """Check with real traffic that the cluster does what the how-to says."""
    from lvslab import lab, running, show

    result = lab.check(running.only(name), Path(junit) if junit else None, quiet=json)
    if json:
        show.document(result.as_json())
    _end(result.exit_code)


@task(help={"name": NAME, "json": JSON})
def status(c: Context, name: str = "", json: bool = False) -> None:
    """What a running lab is doing."""
    from lvslab import running, show

    _say(running.status(running.only(name)), json, show.status)


@task(name="exec", positional=["node"], help={"node": NODE, "command": "what to run", "name": NAME})
def execute(c: Context, node: str, command: str, name: str = "") -> None:
    """Run a command on a node over SSH; ends with the command's status."""
    from lvslab import lab, running

    _end(lab.execute(running.only(name), node, command))


@task(positional=["node"], help={"node": NODE, "name": NAME})
def ssh(c: Context, node: str, name: str = "") -> None:
    """Log in to a node."""
    from lvslab import lab, running

    command = lab.login(running.only(name), node)
    os.execvp(command[0], command)


@task(positional=["node"], help={"node": "a director's name", "name": NAME})
def console(c: Context, node: str, name: str = "") -> None:
    """Attach to the serial console of a director."""
    from lvslab import lab, running

    lab.attach_console(running.only(name), node)


@task(name="transcript", help={"name": NAME, "json": JSON})
def show_transcript(c: Context, name: str = "", json: bool = False) -> None:
    """What was typed where, what it printed, and how it ended."""
    from lvslab import lab, running, show
    from lvslab.apply import transcript

    entries = lab.steps_taken(running.only(name))
    if json:
        show.document([asdict(entry) for entry in entries])
    else:
        print(transcript.render(entries, show.colourful(sys.stdout)), end="")


@task(help={"name": NAME, "all": "end every lab of this machine", "json": JSON})
def down(c: Context, name: str = "", all: bool = False, json: bool = False) -> None:
    """End a lab; nothing of it is left but its evidence."""
    from lvslab import running, show

    ended = running.down(running.names() if all else [running.only(name)])
    _say({"ended": ended}, json, lambda found: show.ended(found["ended"]))


@task(
    positional=["lab"],
    help={
        "lab": "a lab's name, or the path of its folder",
        "kernel": "as in lab.up",
        "director": "as in lab.up",
        "ipvsadm": "as in lab.up",
        "junit": "where to write JUnit XML (default: with the evidence)",
        "json": JSON,
    },
)
def verify(
    c: Context,
    lab: str = "web-nat",
    kernel: str = "",
    director: str = "qemu",
    ipvsadm: str = "",
    junit: str = "",
    json: bool = False,
) -> None:
    """Up, check and down in one, under a name of its own: for scripts."""
    from lvslab import lab as labs
    from lvslab import show

    with show.Progress() as progress:
        listeners = labs.Listeners(progress.event, progress.step)
        result = labs.verify(
            lab,
            kernel=kernel or None,
            director=director,
            ipvsadm=ipvsadm or None,
            junit=Path(junit) if junit else None,
            listeners=listeners,
        )
    show.document(result.as_json()) if json else print(show.verified(result))
    _end(result.exit_code)


@task()
def schema(c: Context) -> None:
    """The JSON Schema of lab.yaml, for editors."""
    from lvslab import show, spec

    show.document(spec.json_schema())


@task(name="list", help={"json": JSON})
def list_snapshots(c: Context, json: bool = False) -> None:
    """The memory snapshots of booted directors."""
    from lvslab import show
    from lvslab.boot import snapshot

    _say(snapshot.listed(), json, show.snapshots)


@task(
    help={
        "days": "delete what was not used for so many days",
        "mebibytes": "delete the least lately used until the rest takes no more MiB on disk",
        "json": JSON,
    }
)
def prune(c: Context, days: int = 30, mebibytes: int = 2048, json: bool = False) -> None:
    """Delete old memory snapshots; running labs keep what they use."""
    from lvslab import show
    from lvslab.boot import snapshot

    _say({"deleted": snapshot.prune(days, mebibytes)}, json, show.pruned)


@task(name="list", help={"json": JSON})
def list_kernels(c: Context, json: bool = False) -> None:
    """The kernels that can be had, and those that are in the store."""
    from lvslab import show_kernels
    from lvslab.build import kernel_report

    _say(kernel_report.listed(), json, show_kernels.listed)


@task(name="show", positional=["kernel"], help={"kernel": KERNEL, "json": JSON})
def show_kernel(c: Context, kernel: str, json: bool = False) -> None:
    """What is known of a kernel, and what its IPVS cannot do."""
    from lvslab import show_kernels
    from lvslab.build import kernel_report

    _say(kernel_report.shown(kernel), json, show_kernels.shown)


@task(name="fetch", positional=["kernel"], help={"kernel": KERNEL, "insecure": INSECURE, "json": JSON})
def fetch_kernel(c: Context, kernel: str, insecure: bool = False, json: bool = False) -> None:
    """Download and verify what a kernel is built from, or a ready-made one."""
    from lvslab import show, show_kernels
    from lvslab.build import kernel_report

    with show.Progress():
        files = kernel_report.fetched(kernel, insecure)
    _say({"files": [str(file) for file in files]}, json, show_kernels.fetched)


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
    from lvslab import show_kernels
    from lvslab.build import kernel_import

    places = (Path(given) if given else None for given in (modules, config))
    built = kernel_import.take(Path(path), *places)
    _say({"name": built.name, "folder": str(built.folder)}, json, show_kernels.imported)


@task(
    name="rm",
    positional=["kernel"],
    help={"kernel": "a name of the store, or a version that it has once", "json": JSON},
)
def remove_kernel(c: Context, kernel: str, json: bool = False) -> None:
    """Delete a kernel from the store."""
    from lvslab import show_kernels
    from lvslab.build import kernel_store

    _say({"deleted": [kernel_store.remove(kernel).name]}, json, show_kernels.removed)


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
    from lvslab import show
    from lvslab.build import kernel_build

    with show.Progress():
        built = kernel_build.build(
            version,
            tree=Path(tree) if tree else None,
            config=Path(config) if config else None,
            jobs=jobs if jobs != 0 else None,
            insecure=insecure,
        )
    _say(kernel_build.as_json(built), json, show.kernel_built)


@task(
    name="config",
    positional=["version"],
    help={"version": "as in kernel.build", "tree": "as in kernel.build", "config": "as in kernel.build"},
)
def show_kernel_config(c: Context, version: str, tree: str = "", config: str = "") -> None:
    """What kernel.build asks of a kernel's configuration, and where that stands."""
    from lvslab.build import kernel_build

    print(
        kernel_build.asked(version, Path(tree) if tree else None, Path(config) if config else None), end=""
    )


@task(name="list", help={"json": JSON})
def list_toolchains(c: Context, json: bool = False) -> None:
    """The compiler and the programs for old kernels, and which of them are built."""
    from lvslab import show_kernels
    from lvslab.build import toolchain

    _say(toolchain.listed(), json, show_kernels.toolchains)


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
    from lvslab import show, show_kernels
    from lvslab.build import toolchain

    with show.Progress():
        toolchain.build([name] if name else toolchain.usual())
    _say(toolchain.listed(), json, show_kernels.toolchains)


@task(help={"json": JSON})
def doctor(c: Context, json: bool = False) -> None:
    """What this machine can do, what it lacks, and how to get it."""
    from lvslab import doctor as doctors
    from lvslab import show

    findings = [asdict(finding) for finding in doctors.examine()]
    _say(findings, json, show.doctor)
    _end(3 if any(finding["ok"] is False for finding in findings) else 0)


@task(help={"select": "only tests whose names match (pytest -k)"})
def test(c: Context, select: str = "") -> None:
    """Run all tests that this machine allows."""
    command = [sys.executable, "-P", "-m", "pytest", *(["-k", select] if select else [])]
    _end(subprocess.run(command, cwd=PROJECT, check=False).returncode)


@task()
def lint(c: Context) -> None:
    """Run the linters: ruff and mypy."""
    for command in (["ruff", "check"], ["mypy", "lvslab", "tasks.py", "labs"]):
        _end(subprocess.run([sys.executable, "-P", "-m", *command], cwd=PROJECT, check=False).returncode)


@task(
    help={
        "rounds": "how often each thing is measured",
        "tests": "how many tests with a lab of their own are run",
        "kernel": "measure web-nat alone, with this kernel as in lab.up",
        "tree": "measure how long this kernel's source tree takes to build, and no labs",
        "json": JSON,
    }
)
def bench(
    c: Context, rounds: int = 3, tests: int = 50, kernel: str = "", tree: str = "", json: bool = False
) -> None:
    """Measure how long labs take to come and go, or kernels to build, beside what they cannot do without."""
    from lvslab import bench as benches
    from lvslab import bench_builds, show

    _say(
        bench_builds.measure(Path(tree), rounds) if tree else benches.measure(rounds, tests, kernel),
        json,
        show.bench,
    )


_lab = Collection("lab")
for _task in (list_labs, up, apply, check, status, execute, ssh, console, show_transcript, down, verify):
    _lab.add_task(_task)
_lab.add_task(schema)
_snapshot = Collection("snapshot")
for _task in (list_snapshots, prune):
    _snapshot.add_task(_task)
_kernel = Collection("kernel")
for _task in (
    list_kernels,
    show_kernel,
    show_kernel_config,
    fetch_kernel,
    build_kernel,
    import_kernel,
    remove_kernel,
):
    _kernel.add_task(_task)
_toolchain = Collection("toolchain")
for _task in (list_toolchains, build_toolchain):
    _toolchain.add_task(_task)
ns = Collection(_lab, _snapshot, _kernel, _toolchain, doctor, test, lint, bench)
