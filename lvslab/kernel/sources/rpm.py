"""Unpack RPM packages with kernels; nothing is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

from lvslab.errors import BuildError, CommandFailed
from lvslab.run import missing_program, run

# Whose the files are does not matter here, and nothing gets out of the folder that cpio works in.
_UNPACK = (
    'set -o pipefail; rpm2cpio "$1" | cpio --extract --make-directories --no-absolute-filenames --quiet'
)


def unpack(package: Path, folder: Path) -> None:
    """Unpack the files of ``package`` into ``folder``.

    Raises MachineError where rpm2cpio or cpio is missing, BuildError where the package is damaged.
    """
    for program in ("rpm2cpio", "cpio"):
        if shutil.which(program) is None:
            missing_program(program)
    try:
        run(["bash", "-c", _UNPACK, "bash", package.resolve()], cwd=folder)
    except CommandFailed as failed:
        raise BuildError(f"{package} is not a whole RPM package", failed.hint) from None
