"""Build kernels from source: configure, check line by line, compile, and keep.

A build has a folder, mounts and processes of its own, so an interrupted one leaves nothing behind, and a
user's tree is only read. The result is kept under a checksum of its inputs, so it is made once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from lvslab import paths
from lvslab.cache import folders, store
from lvslab.errors import BuildError, UsageError
from lvslab.kernel import catalogue, patches
from lvslab.kernel import config as kconfig
from lvslab.kernel import recipe as kernel_recipe
from lvslab.kernel import store as kernel_store
from lvslab.kernel import tree as kernel_tree
from lvslab.kernel.catalogue import KernelRow
from lvslab.kernel.job import Compiler, Job
from lvslab.kernel.recipe import Recipe
from lvslab.kernel.sources import tarballs
from lvslab.kernel.store import Built
from lvslab.kernel.toolchain import building, component
from lvslab.kernel.toolchain.component import Component
from lvslab.run import missing_program

_INSTEAD = "--insecure takes it unverified, --tree takes a source tree"
# What a build takes on disk at its height, in MiB.
_SPACE = {"2.4": 400, "2.6": 900, "today": 2500}
# What the machine must have. make would notice late, and name a file of the kernel's instead of a package.
_PROGRAMS = {
    "2.4": ("make", "gcc", "ld", "perl", "mount", "setpriv"),
    "2.6": ("make", "gcc", "ld", "perl", "depmod", "mount", "setpriv"),
    "today": ("make", "gcc", "ld", "perl", "flex", "bison", "bc", "depmod", "mount", "setpriv"),
}


def build(
    version: str,
    *,
    tree: Path | None = None,
    config: Path | None = None,
    jobs: int | None = None,
    insecure: bool = False,
) -> Built:
    """Return the kernel of that version, built if the store lacks it.

    The store's has the same sources, configuration and compiler. ``tree`` is built instead of a release's
    source; ``config`` has the last word; ``jobs`` is the number of make's jobs, None for one for each
    processor. Raises UsageError for an unknown version, a
    tree that is not a kernel or a configuration with a mistake, MachineError where a program is missing,
    BuildError where the source is not available or does not build as asked.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs is {jobs}, and make takes at least 1")
    row = row_of(version, tree)
    if tree is None and row.source.place == "debian-package":
        row = replace(row, version=tarballs.packaged_version(tarballs.get(row.name)))
    wanted = requested(row, config)
    tree = tree.resolve() if tree else None
    made_of = kernel_tree.fingerprint(tree) if tree else _of_release(row, insecure)
    name = kernel_store.name_of(row.version, key(row, wanted, compiler_key(row), made_of))
    if there := kernel_store.read(kernel_store.folder() / name):
        return kernel_store.again(there)
    for program in _PROGRAMS[row.family]:
        if shutil.which(program, path=kernel_recipe.PATH) is None:
            missing_program(program)
    compiler = compiler_of(row)
    folders.need_space(kernel_store.folder(), _SPACE[row.family], f"building Linux {row.version}")
    with building.one_at_a_time(f"Linux {row.version}", f"kernel-{name}"):
        if there := kernel_store.read(kernel_store.folder() / name):
            return kernel_store.again(there)  # built by another process, for which this one waited
        place = kernel_store.folder()
        with folders.making(place, f"{row.version}-work") as work, folders.making(place, name) as made:
            job = Job(row, wanted, compiler, work, made, jobs or building.processors())
            job.run(tree, insecure)
            if tree and kernel_tree.fingerprint(tree) != made_of:
                raise BuildError(f"{tree} was changed while it was built", "build it again")
            return kernel_store.install(made, name, job.manifest(_origin(row, tree, insecure), made_of))


def row_of(version: str, tree: Path | None) -> KernelRow:
    """Return the catalogue's row to build by, with the version that is built.

    A tree's own version counts. That or its series must be given, so that it finds the kernel afterwards.
    """
    if tree is None:
        return catalogue.kernel(version)
    found = kernel_tree.version(tree)
    if version not in (found, catalogue.series(found)):
        raise UsageError(
            f"{tree} is Linux {found}, not {version}", f"./run kernel.build {found} --tree {tree}"
        )
    return replace(_row_for(found), version=found)


def _row_for(version: str) -> KernelRow:
    """Return the row of the version's series, or the last one that is built alike.

    It includes the fixes of the next series: what broke in between is mended where it is found. Raises
    UsageError for versions that lvslab cannot build.
    """
    rows = [row for row in catalogue.kernels().values() if row.source.place == "kernel.org"]
    for row in rows:
        if catalogue.series(row.version) == catalogue.series(version):
            return row
    numbers = catalogue.numbers(version)
    older = [row for row in rows if catalogue.numbers(row.version) <= numbers]
    if not older or (older[-1].family != "today" and numbers >= (3,)) or older[-1].family == "2.4":
        raise UsageError(
            f"lvslab cannot build Linux {version}", "it builds 2.4, 2.6 from 2.6.11 on, and 4.19 and later"
        )
    before = older[-1]
    next_fixes = next((row.fixes for row in rows[len(older) :] if row.family == before.family), ())
    return replace(before, fixes=tuple(dict.fromkeys((*before.fixes, *next_fixes))))


def requested(row: KernelRow, config: Path | None) -> Mapping[str, kconfig.Setting]:
    """Return all requested settings of the configuration: the row's fragments, then the user's file."""
    files = [paths.PROJECT / "kernel-configs" / f"{name}.config" for name in row.fragments]
    if config is not None:
        if not config.is_file():
            raise UsageError(f"there is no file {config}", "--config takes a file of kernel settings")
        files.append(config)
    numbers = catalogue.numbers(row.version)
    return kconfig.merge(kconfig.parse(file.read_text(errors="replace"), file, numbers) for file in files)


def asked(version: str, tree: Path | None, config: Path | None) -> str:
    """Return the merged fragments of a kernel as a .config, each file under a comment."""
    settings = requested(row_of(version, tree), config).values()
    files = groupby(settings, lambda setting: setting.where.rpartition(":")[0])
    return "\n".join("".join([f"# {file}\n", *(f"{row.line}\n" for row in rows)]) for file, rows in files)


def as_json(built: Built) -> Mapping[str, Any]:
    """Return the document of ``kernel.build --json``."""
    return {"name": built.name, "folder": str(built.folder), "manifest": asdict(built.manifest)}


def compiler_key(row: KernelRow) -> str:
    """Return a key of the row's compiler, which includes the machine's own tools."""
    # The old one's key has these in it.
    return building.tools() if row.compiler == "system" else component.key(Component(row.compiler))


def compiler_of(row: KernelRow) -> Compiler:
    """Return the row's compiler; the old one is built if it is missing."""
    if row.compiler == "system":
        return Compiler(building.tools().partition("\n")[0], "")
    built = component.build(Component(row.compiler))
    return Compiler(built.name, f"{built.folder}/bin/i686-linux-gnu-")


def _origin(row: KernelRow, tree: Path | None, insecure: bool) -> str:
    """Return what the kernel is built from, as its manifest has it."""
    if tree is not None:
        return "tree"
    verified = not tarballs.is_unverified(tarballs.get(row.name, insecure=insecure))
    return row.source.place if verified else "unverified"


def _of_release(row: KernelRow, insecure: bool) -> str:
    """Return the checksum of the release's tarball, which is downloaded and verified if missing."""
    if row.source.sha256:
        return row.source.sha256
    tarball = tarballs.get(row.name, insecure=insecure, instead=_INSTEAD)
    about = tarball.stat()
    stamp = f"{tarball} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
    return store.remembered(f"source-{tarball.name}", [stamp.encode()], lambda: store.sha256(tarball))


def key(row: KernelRow, wanted: Mapping[str, kconfig.Setting], compiler: str, made_of: str) -> str:
    """Return a checksum of all inputs of a kernel and of how it is built."""
    recipe = Recipe(row.family, row.arch, "", 1, tuple(patches.host_flags(row.fixes)))
    parts = (
        made_of,
        row.version,
        kconfig.render(wanted),
        compiler,
        patches.described(row.fixes),
        kernel_recipe.described(recipe),
        repr((row.image, row.userland, row.nic, row.memory)),  # which the manifest has
    )
    return sha256("\0".join(parts).encode()).hexdigest()
