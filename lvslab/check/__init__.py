"""Checks of a running cluster, and the traffic that they make.

Labs find the modules and names of release 0.1 that they used, and that have others today, for one more
release, with a DeprecationWarning. A module has its former names once it was imported by its own.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_TRAFFIC = ("access_log", "address_order", "dns", "ftp", "held", "http", "ports", "visits", "wrk")
MOVED: Mapping[str, str] = {
    "lvslab.boot.ftp_server": "lvslab.boot.services.ftp",
    "lvslab.build": "lvslab.kernel",
    "lvslab.check.chance": "lvslab.check.exact_test",
    "lvslab.check.dice": "lvslab.check.seed",
    "lvslab.check.director": "lvslab.check.ipvs.director",
    "lvslab.check.ipvs_listing": "lvslab.check.ipvs.listing",
    "lvslab.check.plain_http": "lvslab.check.traffic.http",
    **{f"lvslab.check.{name}": f"lvslab.check.traffic.{name}" for name in _TRAFFIC},
}
"""Former module name to today's."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "lvslab.check.ipvs.director": {"read": "read_director", "settled": "read_settled"},
    "lvslab.check.ipvs.listing": {"ServerConnections": "ListedServer"},
    "lvslab.check.schedulers": {"LATER": "later()"},
    "lvslab.check.seed": {"dice": "random_for"},
    "lvslab.check.traffic.access_log": {"Entry": "LogEntry"},
    "lvslab.check.traffic.dns": {"Answer": "DnsAnswer"},
    "lvslab.check.traffic.http": {"ask": "attempt", "Answer": "Attempt", "Failed": "Failure"},
    "lvslab.check.traffic.wrk": {"Sent": "WrkResult"},
}
"""Module to former name to today's, with ``()`` where a constant has become a function."""


def former_names(module: str) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for ``module`` that finds its names in `RENAMED`."""

    def getattr_(name: str) -> Any:
        if not (new := RENAMED[module].get(name)):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{new}")
        value = getattr(sys.modules[module], new.removesuffix("()"))
        return value() if new.endswith("()") else value

    return getattr_


def _warn(old: str, new: str) -> None:
    # The first frame outside of this module and of importlib is the import in the lab.
    text = f"{old} is now {new}, and the old name will go after the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=3)


class _FormerModules:
    """A finder and loader for the modules in `MOVED`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None: ...

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        _warn(module.__name__, new)
        # importlib takes what stands here at the end, so that there is one module under both names.
        sys.modules[module.__name__] = found = import_module(new)
        if new in RENAMED:
            vars(found).setdefault("__getattr__", former_names(new))


sys.meta_path.append(_FormerModules())
