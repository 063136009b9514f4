"""Packages of any Debian release: ready-made kernels, and kernels' sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lvslab.debian import packages
from lvslab.debian.packages import Package
from lvslab.errors import BuildError, LvsLabError
from lvslab.run import run

_KERNEL = re.compile(r"linux-image-\d")
_PART = re.compile(r"linux-(binary|modules)-\d\S*")
# A package with a kernel in it is never so small: Debian 14's only depends on those that have its parts.
_SMALL = 1 << 20  # bytes


@dataclass(frozen=True)
class KernelPackages:
    """The package files with a kernel's image and its modules: one file up to Debian 13.

    The image is ``boot/vmlinuz-RELEASE``, or ``vmlinuz`` in the modules folder.
    """

    image: Path
    modules: Path


def kernel_packages(release: str | None, meta: str) -> KernelPackages:
    """Return the newest kernel that ``meta`` (``linux-image-cloud-amd64``) depends on, in the cache.

    ``release`` is Debian's; None is this machine's own. What was found once stays so until the cache is
    cleared. Raises MachineError where apt cannot serve it, BuildError where a checksum is wrong.
    """
    wanted = packages.depends_on(meta, _KERNEL, release=release)
    try:
        return _parts(release, package(release, wanted).path)
    except LvsLabError:
        # The archive has moved on since that name was remembered.
        packages.forget(meta, release=release)
        newer = packages.depends_on(meta, _KERNEL, release=release)
        if newer == wanted:
            packages.forget(meta, release=release)
            raise
        return _parts(release, package(release, newer).path)


def present(release: str | None, meta: str) -> bool:
    """Return whether ``kernel_packages`` would find everything in the cache."""
    wanted = packages.remembered(meta, release=release)
    return wanted is not None and any(packages.folder().glob(f"{wanted}_*.deb"))


def package(release: str | None, name: str) -> Package:
    """Fetch one package of ``release`` without its dependencies. Raises as `kernel_packages`."""
    (found,) = packages.fetch([name], dependencies=False, release=release)
    return found


def _parts(release: str | None, image: Path) -> KernelPackages:
    if image.stat().st_size > _SMALL:
        return KernelPackages(image, image)
    depends = run(["dpkg-deb", "--field", image, "Depends"]).stdout.decode()
    parts = {found.group(1): found.group() for found in _PART.finditer(depends)}
    if set(parts) != {"binary", "modules"}:
        raise BuildError(f"{image} neither holds a kernel nor depends on packages that do", depends.strip())
    return KernelPackages(package(release, parts["binary"]).path, package(release, parts["modules"]).path)
