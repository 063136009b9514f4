"""RPM packages as a source of kernels: unpacked by libarchive's bsdtar, never installed."""

from __future__ import annotations

from pathlib import Path

from lvslab.errors import BuildError, CommandFailed
from lvslab.run import run


def unpack(package: Path, folder: Path) -> None:
    """Unpack the files of ``package`` into ``folder``.

    Raises MachineError where bsdtar is missing, BuildError where the package is damaged.
    """
    try:
        # Nothing gets out of the folder: bsdtar refuses paths with "..", takes the leading slash off others,
        # and follows no links. Whose the files are does not matter here.
        run(["bsdtar", "-xof", package.resolve(), "-C", folder])
    except CommandFailed as failed:
        raise BuildError(f"{package} is not a whole RPM package", failed.hint) from None
