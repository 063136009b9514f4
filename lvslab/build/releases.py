"""Packages of any Debian release: kernels that are ready-made, and kernels' sources."""

from __future__ import annotations

import re
from pathlib import Path

from lvslab.build import packages
from lvslab.build.packages import Package
from lvslab.errors import LvsLabError

_KERNEL = re.compile(r"linux-image-\d")


def kernel_package(release: str, meta: str) -> Path:
    """The package file of the newest kernel that ``meta`` (``linux-image-cloud-amd64``) of ``release``
    stands for, in the cache.

    What was found once stays so until the cache is cleared. Raises MachineError where apt cannot serve it,
    BuildError where a checksum is wrong.
    """
    wanted = packages.depends_on(meta, _KERNEL, release=release)
    try:
        return package(release, wanted).path
    except LvsLabError:
        # The archive has moved on since that name was remembered.
        packages.forget(meta, release=release)
        newer = packages.depends_on(meta, _KERNEL, release=release)
        if newer == wanted:
            raise
        return package(release, newer).path


def package(release: str, name: str) -> Package:
    """One package of ``release``, without what it depends on. Raises as ``kernel_package`` does."""
    (found,) = packages.fetch([name], dependencies=False, release=release)
    return found
