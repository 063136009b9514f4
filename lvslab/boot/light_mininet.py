"""What we use of Mininet, imported without setuptools.

Mininet takes one class from distutils, to tell old versions of Open vSwitch from new ones. Since distutils
left Python's standard library, it comes with setuptools, and importing that takes five times as long as
Mininet itself, in the middle of a lab's start.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packaging.version import Version


def strict_version(text: str) -> Version:
    """The version that ``text`` says, to be compared with others: what Mininet takes StrictVersion for."""
    from packaging.version import Version

    return Version(text)


@contextmanager
def _without_distutils() -> Iterator[None]:
    name = "distutils.version"
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.StrictVersion = strict_version  # type: ignore[attr-defined]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


with _without_distutils():
    from mininet.link import Intf, Link
    from mininet.net import Mininet
    from mininet.node import Node, Switch
    from mininet.util import numCores

__all__ = ["Intf", "Link", "Mininet", "Node", "Switch", "numCores"]
