"""Models of the forwarding methods of IPVS: masquerading, gatewaying, tunneling and local.

A method's model is a module here of its name, with an instance of a subclass of `Method` as ``METHOD``. The
diagnosis, forecasts and live services ask `method_for`; nothing else knows how a method works. How ipvsadm
writes the four methods is in `lvslab.check.ipvs.table.FORWARDING`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from lvslab.check.forwarding.method import Method
from lvslab.check.ipvs.table import Forwarding

__all__ = ["Method", "method_for"]


@cache
def method_for(name: Forwarding) -> Method:
    """Return the model of a forwarding method, or a `Method` that claims nothing."""
    module = f"{__name__}.{name}"
    return Method(name) if find_spec(module) is None else cast(Method, import_module(module).METHOD)
