"""Checks of a running cluster, and the traffic that they make.

Modules that labs imported under another name until release 0.1 are found by it for one more release, with a
DeprecationWarning. `MOVED` has the modules, `RENAMED` the names in modules; both go after that release.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: Mapping[str, str] = {
    "lvslab.boot.ftp_server": "lvslab.boot.services.ftp",
    "lvslab.build": "lvslab.kernel",
    "lvslab.check.access_log": "lvslab.check.traffic.access_log",
    "lvslab.check.address_order": "lvslab.check.traffic.address_order",
    "lvslab.check.chance": "lvslab.check.exact_test",
    "lvslab.check.dice": "lvslab.check.seed",
    "lvslab.check.director": "lvslab.check.ipvs.director",
    "lvslab.check.dns": "lvslab.check.traffic.dns",
    "lvslab.check.features": "lvslab.check.ipvs.features",
    "lvslab.check.ftp": "lvslab.check.traffic.ftp",
    "lvslab.check.held": "lvslab.check.traffic.held",
    "lvslab.check.http": "lvslab.check.traffic.http",
    "lvslab.check.ipvs_listing": "lvslab.check.ipvs.listing",
    "lvslab.check.ipvs_rules": "lvslab.check.ipvs.rules",
    "lvslab.check.ipvs_stats": "lvslab.check.ipvs.stats",
    "lvslab.check.ipvs_table": "lvslab.check.ipvs.table",
    "lvslab.check.ipvs_typed": "lvslab.check.ipvs.typed",
    "lvslab.check.known_bugs": "lvslab.check.ipvs.known_bugs",
    "lvslab.check.namespace": "lvslab.check.traffic.namespace",
    "lvslab.check.own_view": "lvslab.check.probes",
    "lvslab.check.plain_http": "lvslab.check.traffic.http",
    "lvslab.check.ports": "lvslab.check.traffic.ports",
    "lvslab.check.schedulers.drawn": "lvslab.check.schedulers.power_of_two",
    "lvslab.check.schedulers.least": "lvslab.check.schedulers.least_connection",
    "lvslab.check.schedulers.models": "lvslab.check.schedulers.registry",
    "lvslab.check.schedulers.moment": "lvslab.check.schedulers.model",
    "lvslab.check.schedulers.turns": "lvslab.check.schedulers.round_robin",
    "lvslab.check.visits": "lvslab.check.traffic.visits",
    "lvslab.check.wrk": "lvslab.check.traffic.wrk",
}
"""Former module name to today's."""

RENAMED: Mapping[str, Mapping[str, str]] = {
    "lvslab.check.ipvs.director": {
        "read": "read_director",
        "settled": "read_settled",
        "fresh": "read_fresh",
    },
    "lvslab.check.ipvs.listing": {
        "Entry": "Connection",
        "ServerConnections": "ListedServer",
        "ServiceConnections": "ListedService",
        "parse_connections": "parse_listing",
        "parse_entries": "parse_connection_entries",
    },
    "lvslab.check.load": {"ended": "await_result"},
    "lvslab.check.schedulers": {"LATER": "later()"},
    "lvslab.check.seed": {"dice": "random_for"},
    "lvslab.check.traffic.access_log": {"Entry": "LogEntry"},
    "lvslab.check.traffic.dns": {"Answer": "DnsAnswer"},
    "lvslab.check.traffic.http": {"ask": "attempt", "Answer": "Attempt", "Failed": "Failure"},
    "lvslab.check.traffic.wrk": {"Sent": "WrkResult", "together": "merge"},
}
"""Module to former name to today's, with ``()`` where a constant has become a function.

Each module here ends with ``__getattr__ = former_names(__name__)``.
"""


def former_names(module: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of ``module``, which finds its names in `RENAMED`."""

    def getattr_(name: str) -> Any:
        new = RENAMED[module].get(name)
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{new}")
        value = getattr(sys.modules[module], new.removesuffix("()"))
        return value() if new.endswith("()") else value

    return getattr_


def _warn(old: str, new: str) -> None:
    # The first frame outside of this module and of importlib is the import in the lab.
    warnings.warn(
        f"{old} is now {new}, and the old name will go after the next release",
        DeprecationWarning,
        stacklevel=3,
    )


class _FormerPaths:
    """A finder and loader for the modules in `MOVED`."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, cls()) if name in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        _warn(module.__name__, new)
        # importlib takes what stands here at the end, so that there is one module under both names.
        sys.modules[module.__name__] = import_module(new)


sys.meta_path.append(_FormerPaths)
