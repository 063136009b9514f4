"""Reader of a lab's ``lab.yaml`` and ``howto.md``, from the cache where neither file has changed.

That takes a millisecond; to import pydantic and the parsers takes longer than to resume a director.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from lvslab.apply import howto
from lvslab.apply.howto import Step
from lvslab.cache import store
from lvslab.lab.files import LAB_FILE
from lvslab.lab.model import Lab

T = TypeVar("T")

_FORMAT = 3
"""Version of the readers' rules: raise it when they give other results for the same files."""


def lab(folder: Path) -> Lab:
    """Read the lab of ``folder``. Raises LabFileError for the first mistake in its files."""

    def read() -> Lab:
        from lvslab.lab import loader

        return loader.load(folder)

    try:
        zones = sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.zone")))).hexdigest()
    except OSError:
        return read()
    return _read(folder, LAB_FILE, Lab, zones, read)


def steps(folder: Path, lab: Lab) -> tuple[Step, ...]:
    """Read the steps of the how-to in ``folder``. Raises LabFileError, MachineError."""
    file, nodes = howto.HOWTO_FILE, lab.nodes.keys()
    return _read(folder, file, Step, " ".join(nodes), lambda: howto.load(folder / file, nodes))


def _read(folder: Path, file: str, kind: type, context: str, read: Callable[[], T]) -> T:
    """Return the results of ``read`` for ``file`` and ``context``: values of the dataclass ``kind``."""
    try:
        content = (folder / file).read_bytes()
    except OSError:
        return read()  # which reports what is wrong with it
    place = str(folder.resolve()).encode()
    rules = f"{_FORMAT} {shape_of(kind)} {sys.version}"
    sources = [content, place, context.encode(), rules.encode()]
    return store.remembered(f"{file}-{sha256(place).hexdigest()[:16]}", sources, read)


def shape_of(kind: type) -> str:
    """Return the field names of all dataclasses of the module of ``kind``: a pickle holds their values."""
    found = [each for each in vars(sys.modules[kind.__module__]).values() if isinstance(each, type)]
    return str(
        [(each.__name__, *each.__dict__["__dataclass_fields__"]) for each in found if is_dataclass(each)]
    )
