"""Import a package without one of its imports that takes long and is not used here.

Some packages import at their top what few of their users need, and every command waits for it: Invoke takes
most of its time to import asyncio, an e-mail parser and YAML, Mininet to import setuptools.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType


@contextmanager
def instead_of(name: str, **attributes: object) -> Iterator[None]:
    """Replace the module ``name`` in the block by one with only ``attributes``, if it is not imported yet.

    Not for when other threads import.
    """
    with _in_place(name, ModuleType(name)) as stand_in:
        vars(stand_in).update(attributes)
        yield


@contextmanager
def postponed(name: str) -> Iterator[None]:
    """Delay the import of ``name`` by what is imported in the block until its first use."""
    with _in_place(name, ModuleType(name)) as stand_in:
        stand_in.__getattr__ = _attribute_of(name)  # type: ignore[method-assign]
        yield


def _attribute_of(name: str) -> Callable[[str], object]:
    return lambda attribute: getattr(import_module(name), attribute)


@contextmanager
def _in_place(name: str, stand_in: ModuleType) -> Iterator[ModuleType]:
    if name in sys.modules:
        yield stand_in
        return
    sys.modules[name] = stand_in
    try:
        yield stand_in
    finally:
        del sys.modules[name]
