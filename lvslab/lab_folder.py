"""A lab's folder, read: ``lab.yaml`` and ``howto.md``, from the cache where neither file has changed.

Reading them takes pydantic and parsers of YAML and Markdown, and importing these takes longer than to resume
a director. What came of it is plain data, which takes a millisecond.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from lvslab.apply import howto
from lvslab.apply.howto import Step
from lvslab.build import store
from lvslab.topology import LAB_FILE, Lab

T = TypeVar("T")

_ROOMS = Path(__file__).parent
# The rules by which a file is read: the rooms that read it, and all that these import.
_LAB_RULES = ("errors.py", "groups.py", "schema.py", "spec.py", "topology.py", "zone_file.py")
_HOWTO_RULES = ("apply/howto.py", "errors.py", "run.py", "topology.py")


def lab(folder: Path) -> Lab:
    """The lab of ``folder``. Raises LabFileError for the first mistake in its ``lab.yaml``."""

    def read() -> Lab:
        from lvslab import spec

        return spec.load(folder)

    try:
        zones = sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.zone")))).hexdigest()
    except OSError:
        return read()
    return _read(folder, LAB_FILE, _LAB_RULES, zones, read)


def steps(folder: Path, lab: Lab) -> tuple[Step, ...]:
    """The steps of its how-to. Raises LabFileError, MachineError."""
    file, nodes = howto.HOWTO_FILE, lab.nodes.keys()
    return _read(folder, file, _HOWTO_RULES, " ".join(nodes), lambda: howto.load(folder / file, nodes))


def _read(folder: Path, file: str, rules: tuple[str, ...], context: str, read: Callable[[], T]) -> T:
    """What ``read`` makes of ``file``, by ``rules``, in a ``context``."""
    try:
        sources = [path.read_bytes() for path in (folder / file, *map(_ROOMS.joinpath, rules))]
    except OSError:
        return read()  # and hear what is wrong with it
    place = str(folder.resolve()).encode()
    sources += [place, context.encode(), sys.version.encode()]
    return store.remembered(f"{file}-{sha256(place).hexdigest()[:16]}", sources, read)
