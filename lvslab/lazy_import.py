"""Imports of packages without slow imports of theirs, as Invoke's of asyncio and YAML."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from types import ModuleType


@contextmanager
def instead_of(name: str, **attributes: object) -> Iterator[None]:
    """Replace the module ``name``, unless imported, in the block. No other thread may import then."""
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
