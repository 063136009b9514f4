"""Turn a user's own kernel (file, package, source tree) into a name for ``lab.up``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from lvslab.errors import UsageError
from lvslab.kernel import build as kernel_build
from lvslab.kernel import find, imports, store
from lvslab.kernel import tree as kernel_tree
from lvslab.kernel.sources import rpm
from lvslab.kernel.store import Built

_FORMS = "give a bzImage, a .deb, an .rpm, or a kernel's source tree"


def usable(
    path: Path, *, build: bool = False, config: Path | None = None, jobs: int | None = None
) -> tuple[str, str]:
    """Return the kernel of ``path`` as ``lab.up --kernel`` takes it, and its description.

    A bzImage or a ``.deb`` is taken as it is, an ``.rpm`` and what was built in a source tree, modules
    included, into the store. A tree that nothing was built in, or with ``build`` any, is built as by
    ``kernel.build --tree``; ``config`` and ``jobs`` are for that. Raises UsageError where it is none of
    these, or was changed since it was built, BuildError where it cannot be built or unpacked.
    """
    if not path.exists():
        raise UsageError(f"there is no {path}", _FORMS)
    if (built := store.read(path.resolve())) is not None:
        return str(path.resolve()), f"Linux {built.manifest.release}, {path}"
    tree = _tree_of(path)
    if tree is not None:
        image = kernel_tree.image(tree)
        if image is None or build or config is not None:
            made = kernel_build.build(kernel_tree.version(tree), tree=tree, config=config, jobs=jobs)
            return made.name, f"Linux {made.manifest.release}, built from {tree}"
        taken = _as_built(tree, image)
    elif path.suffix == ".rpm":
        taken = _of_rpm(path)
    else:
        release = find.find(str(path.resolve())).release
        return str(path.resolve()), f"Linux {release}, {path}"
    return taken.name, f"Linux {taken.manifest.release}, {path}"


def _tree_of(path: Path) -> Path | None:
    """Return the source tree of ``path``, which may be its bzImage; None for other files."""
    tree = path.resolve()
    if tree.is_file() and tree.name == "bzImage" and tree.parent.name == "boot" and len(tree.parents) > 3:
        tree = tree.parents[3]
        return tree if (tree / "Makefile").is_file() and kernel_tree.image(tree) else None
    return tree if tree.is_dir() else None


def _as_built(tree: Path, image: Path) -> Built:
    """Take what was built in ``tree``. Raises UsageError where a source is newer."""
    if (newer := kernel_tree.newer_source(tree, image)) is not None:
        raise UsageError(
            f"{newer} is newer than {image}", "make it, or have it built in a place of its own: --build"
        )
    release = find.release_of(image)
    if release.startswith("2.4."):
        raise UsageError(f"{tree} is Linux {release}, whose modules cannot be told apart", "use --build")
    with tempfile.TemporaryDirectory() as place:
        modules = Path(place)
        (modules / "kernel").mkdir()
        for file in tree.rglob("*.ko"):
            target = modules / "kernel" / file.relative_to(tree)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file, target)
        settings = tree / ".config"
        return imports.take(image, modules, settings if settings.is_file() else None)


def _of_rpm(package: Path) -> Built:
    with tempfile.TemporaryDirectory() as place:
        unpacked = Path(place)
        rpm.unpack(package, unpacked)
        found = [*unpacked.glob("boot/vmlinuz-*"), *unpacked.glob("lib/modules/*/vmlinuz")]
        if not found:
            raise UsageError(f"{package} is not a kernel's package: it has no vmlinuz in it")
        folder = unpacked / "lib/modules" / find.release_of(found[0])
        if not (folder / "kernel").is_dir():
            raise UsageError(f"{package} has a kernel, and no modules of it", "build one with binrpm-pkg")
        settings = next(iter([*unpacked.glob("boot/config-*"), *folder.glob("config")]), None)
        return imports.take(found[0], folder, settings)
