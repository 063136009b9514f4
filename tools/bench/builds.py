"""Measure how long a kernel takes to build, compared to plain make, for ``bench --tree``.

Both have the same configuration and jobs. As in `labs`, all is measured in one run and in turns.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import labs
from lvslab import paths
from lvslab.errors import BuildError
from lvslab.kernel import build, patches
from lvslab.kernel import recipe as kernel_recipe
from lvslab.kernel import tree as kernel_tree
from lvslab.kernel.recipe import Recipe
from lvslab.kernel.toolchain import building
from lvslab.run import last_lines

_PLAIN = "plain make in a tree of its own, with the same .config"
_WHOLE = "kernel.build --tree, whole command"
_AGAIN = "  the same again: nothing has changed"


def measure(tree: Path, rounds: int) -> dict[str, Any]:
    """Build ``tree`` by ``kernel.build``, by it again, and by plain make, ``rounds`` times in turns.

    Returns ``about``, ``rounds`` and ``rows`` (`labs.Row`). Raises UsageError where ``tree`` is not a
    source tree, MachineError where a program is missing, BuildError where it does not build.
    """
    version = kernel_tree.version(tree)
    row = build.row_of(version, tree)
    compiler = build.compiler_of(row)
    flags = tuple(patches.host_flags(row.fixes))
    recipe = Recipe(row.family, row.arch, compiler.cross, building.processors(), flags)
    plain, whole, again = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="lvslab-bench-", dir="/var/tmp") as place:
        cache, copy = Path(place, "cache"), Path(place, "plain")
        cache.mkdir()
        # The compiler is built once for all kernels, and no part of what is measured.
        (cache / "toolchains").symlink_to(paths.cache() / "toolchains")
        words = ("kernel.build", version, "--tree", str(tree), "--json")
        for _ in range(rounds):
            seconds, built = labs.command(*words, LVSLAB_CACHE=str(cache))
            whole.append(seconds)
            again.append(labs.command(*words, LVSLAB_CACHE=str(cache))[0])
            shutil.copytree(tree, copy, symlinks=True)
            patches.apply(row.fixes, copy, copy, strict=row.is_own_series)
            shutil.copyfile(Path(built["folder"], "config"), copy / ".config")
            plain.append(_made_in(copy, recipe, Path(place, "modules")))
            for folder in (copy, Path(built["folder"])):
                shutil.rmtree(folder)
    figures = labs.Figures()
    figures.add(_PLAIN, plain)
    figures.add(_WHOLE, whole, _PLAIN)
    figures.add(_AGAIN, again, _WHOLE)
    about = f"medians of {rounds}, Linux {row.version}, {compiler.name}, {recipe.jobs} jobs"
    return {"about": about, "rounds": rounds, "rows": [asdict(row) for row in figures.rows]}


def _made_in(tree: Path, recipe: Recipe, modules: Path) -> float:
    """Return the seconds that make takes in ``tree``, from a .config to installed modules."""
    environment = {**kernel_recipe.environment(recipe), "PATH": kernel_recipe.PATH}
    del environment["TMPDIR"]
    commands = [kernel_recipe.configure(recipe, False)]
    commands += [command for _, command in kernel_recipe.build(recipe, True)]
    began = time.monotonic()
    for command in commands:
        words = [word.replace(str(kernel_recipe.MODULES), str(modules)) for word in command]
        done = subprocess.run(
            words, cwd=tree, env=environment, input=b"\n" * 10000, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise BuildError(f"plain make does not build {tree.name}", last_lines(done.stderr))
    return time.monotonic() - began
