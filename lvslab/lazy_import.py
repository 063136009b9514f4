"""Imports of packages without a slow import of theirs that lvslab does not use.

Some packages import at their top what few of their users need, and every command waits for it: Invoke takes
most of its time to import asyncio, an e-mail parser and YAML, Mininet to import setuptools.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType


@contextmanager
def instead_of(name: str, **attributes: object) -> Iterator[None]:
    """Replace the module ``name`` in the block by one with only ``attributes``.

    A module that has been imported already stays. No other thread may import in the block.
    """
    if name in sys.modules:
        yield
        return
    vars(stand_in := ModuleType(name)).update(attributes)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def postponed(name: str) -> AbstractContextManager[None]:
    """Postpone imports of ``name`` in the block until its first use."""
    return instead_of(name, __getattr__=lambda attribute: getattr(import_module(name), attribute))
