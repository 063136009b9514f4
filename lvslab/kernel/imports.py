"""Take kernels that were built elsewhere into the store."""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import replace
from pathlib import Path

from lvslab.cache import folders, store
from lvslab.debian import packages
from lvslab.errors import UsageError
from lvslab.kernel import modules as modules_of
from lvslab.kernel import store as kernel_store
from lvslab.kernel.find import Kernel, find
from lvslab.kernel.store import Built, Manifest


def take(path: Path, modules: Path | None = None, config: Path | None = None) -> Built:
    """Put a kernel (a bzImage or a ``.deb``) into the store, with all its modules.

    ``modules`` is the folder that holds ``kernel/``, or a ``.deb``; without it they are those of the
    package, of ``lib/modules/RELEASE`` beside the file, or of this machine's. ``config`` is what it was
    configured with; without it, what is in the package or beside the file. The same kernel again changes
    nothing. Raises UsageError where a file is not what it should be.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "give a bzImage (vmlinuz) or a kernel's Debian package")
    kernel = find(str(path.resolve()))  # as a path: the store may have this name too
    if modules is not None:
        kernel = replace(kernel, module_source=_modules(modules, kernel.release))
    if config is not None and not config.is_file():
        raise UsageError(f"there is no file {config}", "--config takes what the kernel was configured with")
    settings = config.read_bytes() if config is not None else _config(path, kernel.release)
    number = ".".join(map(str, kernel.version))
    with folders.making(kernel_store.folder(), number) as made:
        shutil.copyfile(kernel.image, made / "bzImage")
        if settings:
            (made / "config").write_bytes(settings)
        names = _copy_modules(kernel, made / "lib/modules" / kernel.release)
        if modules is not None and modules.is_file() and not names:
            raise UsageError(
                f"{modules} has no modules of {kernel.release}", "is it the package of another kernel?"
            )
        manifest = Manifest(
            version=number,
            release=kernel.release,
            arch=kernel.arch,
            family=family(kernel.version),
            image=kernel.image_kind,
            userland=kernel.userland,
            nic=kernel.nic,
            memory=kernel.memory,
            config_sha256=hashlib.sha256(settings).hexdigest() if settings else "",
            image_sha256=kernel.sha256,
            built=int(time.time()),
            modules=names,
        )
        name = kernel_store.name_of(number, _sum(made, kernel))
        there = kernel_store.read(kernel_store.folder() / name)
        return kernel_store.again(there) if there else kernel_store.install(made, name, manifest)


def family(version: tuple[int, ...]) -> str:
    """Return the configuration's family that a kernel of that version would be built with here."""
    return "2.4" if version < (2, 5) else "2.6" if version < (3,) else "today"


def _modules(path: Path, release: str) -> Path:
    """Return ``path``, which must have modules for that kernel or none at all."""
    if path.suffix == ".deb" and path.is_file():
        return path.resolve()  # whether it has any is seen when they are taken out
    if not (path / "kernel").is_dir():
        raise UsageError(
            f"{path} is not a folder of modules: it has no kernel/ in it", "give lib/modules/RELEASE"
        )
    others = set[str]()
    for found in modules_of.releases_of(path):
        if found == release:
            break
        others.add(found)
    else:
        if others:
            raise UsageError(
                f"the modules are of {min(others)}, and the kernel is {release}: {path}",
                "build the modules of this kernel too (make modules), or name the folder of its own",
            )
    return path.resolve()


def _config(path: Path, release: str) -> bytes:
    if path.suffix == ".deb":
        wanted = f"boot/config-{release}"
        return next((found.content for found in packages.members(path, wanted.__eq__)), b"")
    for beside in (path.parent / f"config-{release}", path.parent / "config"):
        if beside.is_file():
            return beside.read_bytes()
    return b""


def _copy_modules(kernel: Kernel, target: Path) -> tuple[str, ...]:
    """Copy the modules, and return their paths below ``target``, in order."""
    source = kernel.module_source
    if source is None:
        return ()
    if source.is_dir():
        try:
            shutil.copytree(source / "kernel", target / "kernel")
        except shutil.Error as refused:
            place, _, why = refused.args[0][0]
            raise UsageError(f"{place} cannot be copied: {why}") from None
    else:
        inside = f"lib/modules/{kernel.release}/"
        for member in packages.members(source, lambda path: f"{inside}kernel/" in path and ".ko" in path):
            file = target / member.path.partition(inside)[2]
            if ".." in file.parts:
                raise UsageError(f"{source} is not a kernel's package: it has a file {member.path}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(member.content)
    return tuple(sorted(file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file()))


def _sum(made: Path, kernel: Kernel) -> str:
    """Return a checksum of image, configuration and modules, and of what the kernel boots with."""
    lines = [kernel.arch, kernel.image_kind, kernel.userland, kernel.nic]
    files = (file for file in sorted(made.rglob("*")) if file.is_file())
    lines += [f"{store.sha256(file)} {file.relative_to(made)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
