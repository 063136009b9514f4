"""Reader of a lab's ``lab.yaml`` and ``howto.md``, from the cache where neither file has changed.

That takes a millisecond; to import pydantic and the parsers takes longer than to resume a director.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lvslab.cache import store
from lvslab.lab.files import LAB_FILE

if TYPE_CHECKING:
    from lvslab.apply.howto import Step
    from lvslab.errors import LabFileError
    from lvslab.lab.model import Lab

T = TypeVar("T")

_FORMAT = 6
"""Version of the readers' rules: raise it when they give other results for the same files."""


def lab(folder: Path) -> Lab:
    """Read the lab of ``folder``. Raises LabFileError for the first mistake in its files."""
    from lvslab.lab.model import Lab

    def read() -> Lab:
        from lvslab.lab import loader

        return loader.load(folder)

    return _read_lab(LAB_FILE, folder, shape_of(Lab), read)


def title_and_size(folder: Path) -> tuple[str, int]:
    """Read a lab's title and number of nodes, without its model. Raises LabFileError as `lab` does."""

    def read() -> tuple[str, int]:
        found = lab(folder)
        return found.title, len(found.nodes)

    return _read_lab("title", folder, "", read)


def steps(folder: Path, lab: Lab) -> tuple[Step, ...]:
    """Read the steps of the how-to in ``folder``. Raises LabFileError, MachineError."""
    from lvslab.apply import howto

    file, nodes = folder / howto.HOWTO_FILE, lab.nodes.keys()
    context = f"{' '.join(nodes)} {shape_of(howto.Step)}"
    return _read(file.name, file, context, lambda: howto.load(file, nodes))


def mistake_of(
    lab: Lab, node: str, place: tuple[int | str, ...], message: str, hint: str | None
) -> LabFileError:
    """Return the error of a key of a node ("": of the lab), found after the lab was read."""
    from lvslab.lab import loader  # only a mistake has to wait for this import

    return loader.mistake_of(lab, node, place, message, hint)


def _read_lab(name: str, folder: Path, shape: str, read: Callable[[], T]) -> T:
    """Return the result of ``read`` for the ``lab.yaml`` and the zone files in ``folder``."""
    try:
        zones = sha256(b"".join(file.read_bytes() for file in sorted(folder.glob("*.zone")))).hexdigest()
    except OSError:
        return read()
    return _read(name, folder / LAB_FILE, f"{zones} {shape}", read)


def _read(name: str, file: Path, context: str, read: Callable[[], T]) -> T:
    """Return the result of ``read`` for ``file`` and ``context``, kept under ``name`` for its folder."""
    try:
        content = file.read_bytes()
    except OSError:
        return read()  # which reports what is wrong with it
    place = str(file.parent.resolve()).encode()
    sources = [content, place, context.encode(), f"{_FORMAT} {sys.version}".encode()]
    return store.remembered(f"{name}-{sha256(place).hexdigest()[:16]}", sources, read)


def shape_of(kind: type) -> str:
    """Return the field names of all dataclasses of the module of ``kind``: a pickle holds their values."""
    found = [each for each in vars(sys.modules[kind.__module__]).values() if isinstance(each, type)]
    return str(
        [(each.__name__, *each.__dict__["__dataclass_fields__"]) for each in found if is_dataclass(each)]
    )
