"""Kernels, images and servers from elsewhere, in a folder that the environment names.

The folder holds ``given.json``, which says where kernels, guest images and servers are, and ``keys``, the
SSH keys that the images were made with. Its files are used instead of found or built ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lvslab.lab.directors import DirectorSpec

VARIABLE = "LVSLAB_GIVEN"
"""The environment variable with the folder's path; child processes inherit it."""

FILE = "given.json"
KEYS = "keys"


def folder() -> Path | None:
    """Return the folder, None if the environment does not name one."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else None


def read(lab: Path, spec: DirectorSpec) -> Mapping[str, Any] | None:
    """Return what is pinned for a lab's folder with such directors, or None.

    It has the fields of `lvslab.cluster.prepare.Prepared`.
    """
    if (place := folder()) is None:
        return None
    found: Mapping[str, Any] = json.loads((place / FILE).read_bytes())
    return found if found["for"] == wanted(lab, spec) else None


def wanted(lab: Path, spec: DirectorSpec) -> list[str]:
    """Return the key of pinned files, as the folder's document has it."""
    return [str(lab.resolve()), spec.kernel, spec.ipvsadm]
