"""The parts of Mininet that lvslab uses, imported without setuptools.

Mininet takes one class from distutils, which comes with setuptools. To import that takes five times as long
as Mininet itself, in the middle of a lab's start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lvslab.lazy_import import instead_of

if TYPE_CHECKING:
    from packaging.version import Version


def strict_version(text: str) -> Version:
    """Parse a version for comparisons, in place of distutils' StrictVersion."""
    from packaging.version import Version

    return Version(text)


with instead_of("distutils.version", StrictVersion=strict_version):
    from mininet.link import Intf, Link
    from mininet.net import Mininet
    from mininet.node import Node, Switch
    from mininet.util import numCores

__all__ = ["Intf", "Link", "Mininet", "Node", "Switch", "numCores"]
