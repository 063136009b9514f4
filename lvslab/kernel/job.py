"""One build of a kernel, from its source to a folder for the store."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.cache import folders, store
from lvslab.errors import BuildError
from lvslab.kernel import config, config_tree, modules, patches
from lvslab.kernel import recipe as kernel_recipe
from lvslab.kernel import tree as kernel_tree
from lvslab.kernel.catalogue import KernelRow
from lvslab.kernel.recipe import Recipe
from lvslab.kernel.sources import tarballs
from lvslab.kernel.store import Manifest
from lvslab.kernel.toolchain.building import Build
from lvslab.run import run

log = logging.getLogger("lvslab.progress.kernel")

Take = Callable[[str, Sequence[str], bytes], None]
"""A function that takes a step: its description, its command, and the command's input."""

_SHOWN = 12  # of the settings that kconfig did not take


@dataclass(frozen=True)
class Compiler:
    """A compiler's name, and the prefix of its programs."""

    name: str
    cross: str


@dataclass(frozen=True)
class Job:
    """One build: ``work`` is its temporary folder, ``made`` the one for the store."""

    row: KernelRow
    requested: Mapping[str, config.Setting]
    compiler: Compiler
    work: Path
    made: Path
    jobs: int

    @property
    def recipe(self) -> Recipe:
        """The recipe of this kernel."""
        flags = tuple(patches.host_flags(self.row.fixes))
        return Recipe(self.row.family, self.row.arch, self.compiler.cross, self.jobs, flags)

    def run(self, tree: Path | None, insecure: bool) -> None:
        """Build ``tree``, which is only read, or else the release's source. Raises BuildError."""
        for name in ("linux", "tree", "upper", "overlay", "modules", "programs", "tmp"):
            (self.work / name).mkdir()
        for name, text in kernel_recipe.programs(self.recipe).items():
            store.write(self.work / "programs" / name, text.encode(), mode=0o755)
        linux, lower = self.work / "linux", None
        if tree is None:
            tarballs.unpack(tarballs.get(self.row.name, insecure=insecure), linux)
        elif self._takes_layers(tree):
            lower = tree
        else:
            run(["cp", "--archive", "--reflink=auto", f"{tree}/.", linux])
        read, written = (linux, linux) if lower is None else (lower, self.work / "upper")

        log.info("building Linux %s with %s, %d jobs", self.row.version, self.compiler.name, self.jobs)
        name, log_file = f"Linux {self.row.version}", self.made / "build.log"
        with log_file.open("wb") as stream, Build(name, "make", stream, self._kept("log")) as steps:

            def take(what: str, command: Sequence[str], input: bytes = b"") -> None:
                steps.take(what, command, self.inside(lower, command), input=input)

            if kernel_tree.was_built_in(read):
                take("cleaning the copy of the tree", kernel_recipe.make(self.recipe, "mrproper"))
            patches.apply(self.row.fixes, read, written, strict=self.row.is_own_series)
            final = self._configure(take, read, written)
            has_modules = config.values(final).get("MODULES") == "y"
            for what, command in kernel_recipe.build(self.recipe, has_modules):
                take(what, command)
            steps.done()
            self._collect(written)

    def _kept(self, what: str) -> Path:
        """Return where the log or the config of this build is kept if it fails."""
        return paths.cache() / "kernels" / "failed" / f"{self.row.version}.{what}"

    def _takes_layers(self, tree: Path) -> bool:
        """Return whether an overlay over the tree is possible; not every file system allows it."""
        return run(self.inside(tree, ["true"]), check=False).returncode == 0

    def inside(self, lower: Path | None, command: Sequence[str]) -> Sequence[str]:
        """Return the command that runs ``command`` in this build's mounts and environment."""
        variables = kernel_recipe.environment(self.recipe)
        return kernel_recipe.inside(self.work, lower, variables, command, root=os.geteuid() == 0)

    def _configure(self, take: Take, read: Path, written: Path) -> str:
        """Make the final .config and return it. Raises BuildError where a requested setting is missing."""
        with_settings = kernel_tree.reads_settings(read)
        if with_settings:
            text = config.render(self.requested)
            store.write(self.work / kernel_recipe.SETTINGS.name, text.encode())
        else:
            # From 2.6 on many symbols are on unless told not to be; in 2.4 hardly any.
            known = [] if self.row.family == "2.4" else config_tree.definitions(read, self.row.arch)
            others = [place.symbol for place in known if place.type in ("bool", "tristate")]
            text = kernel_recipe.questions(self.requested, others)
            store.write(written / ".config", text.encode())
        take("configuring", kernel_recipe.configure(self.recipe, with_settings), b"\n" * 10000)
        final = (written / ".config").read_text(errors="replace")
        (self.made / "config").write_text(final)
        if mismatches := config.verify(self.requested, final):
            store.write(self._kept("config"), final.encode())
            known = config_tree.definitions(read, self.row.arch)
            raise refused(self.row.version, mismatches, known, config.values(final))
        return final

    def _collect(self, written: Path) -> None:
        image = kernel_tree.image(written)
        if image is None:
            raise BuildError(f"Linux {self.row.version} was built, and there is no bzImage")
        shutil.copyfile(image, self.made / "bzImage")
        installed = self.work / "modules" / "lib/modules"
        for folder in installed.iterdir() if installed.is_dir() else ():
            run(["rm", "-rf", "--", *(folder / link for link in ("build", "source", "pcmcia"))])
            if self.row.family == "2.4":
                # depmod of today's kmod sees no module in a .o file.
                found = modules.of_folder(folder, modules.ALL)
                store.write(folder / "modules.dep", modules.tables(found)["modules.dep"])
            else:
                run(["depmod", "--basedir", self.work / "modules", folder.name])
        if installed.is_dir():
            (self.made / "lib").mkdir()
            installed.rename(self.made / "lib/modules")
        folders.flush(self.made)

    def manifest(self, origin: str, source_sha256: str) -> Manifest:
        """Return the manifest of ``made``, after ``run``; ``origin`` is its ``source`` there."""
        from lvslab.kernel import find

        image = self.made / "bzImage"
        release = find.release_of(image)
        folder = self.made / "lib/modules" / release
        flags = [word for _, command in kernel_recipe.build(self.recipe, True) for word in command[1:]]
        return Manifest(
            row=self.row.name,
            version=self.row.version,
            release=release,
            arch=self.row.arch,
            family=self.row.family,
            image=self.row.image,
            userland=self.row.userland,
            nic=self.row.nic,
            memory=self.row.memory,
            compiler=self.compiler.name,
            flags=tuple(dict.fromkeys(word for word in flags if "=" in word)),
            source=origin,
            source_sha256=source_sha256,
            config_sha256=sha256((self.made / "config").read_bytes()).hexdigest(),
            image_sha256=store.sha256(image),
            built=int(time.time()),
            modules=tuple(
                sorted(file.relative_to(folder).as_posix() for file in (folder / "kernel").rglob("*.*o"))
            ),
        )


def refused(
    version: str,
    mismatches: Sequence[config.Mismatch],
    known: Sequence[config_tree.Definition],
    final: Mapping[str, str],
) -> BuildError:
    """Return the error for settings that kconfig dropped or changed, causes before their effects."""
    lacking = {mismatch.setting.symbol for mismatch in mismatches}
    reasons = [(mismatch, config_tree.explain(mismatch, known, final)) for mismatch in mismatches]
    reasons.sort(key=lambda pair: any(f"{symbol} is " in pair[1] for symbol in lacking))
    lines = [
        f"{mismatch.setting.line} ({mismatch.setting.where}) became {mismatch.found}: {reason}"
        for mismatch, reason in reasons[:_SHOWN]
    ]
    if len(mismatches) > _SHOWN:
        lines.append(f"and {len(mismatches) - _SHOWN} more")
    what = "a setting that was" if len(mismatches) == 1 else f"{len(mismatches)} settings that were"
    return BuildError(f"Linux {version} does not take {what} asked for", "\n  ".join(lines))
