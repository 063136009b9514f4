"""The schedulers that have a model, collected from the modules of this folder.

A module registers its schedulers in a mapping ``SCHEDULERS`` from the name, as ``ipvsadm -s`` takes it, to a
function from the kernel's version and the scheduler's flags to a `Model` (`Build`). A scheduler that came
after 2.4 has a row of kind "scheduler" in the catalogue's features.toml too.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

from lvslab.check.schedulers.model import Build, Choice, Model, Moment
from lvslab.errors import CheckFailed
from lvslab.kernel import catalogue

TUTORIAL = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq")
"""The schedulers of the tutorial's kernel configuration, in its order."""


@cache
def builders() -> Mapping[str, Build]:
    """Return how to build the model of each scheduler, by name."""
    found: dict[str, Build] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)], f"{__package__}."):
        found |= getattr(import_module(module.name), "SCHEDULERS", {})
    return found


def later() -> tuple[str, ...]:
    """Return the schedulers that came after the tutorial and choose exactly, the oldest first.

    Each is a feature of the catalogue. One that draws (twos) is not among them.
    """
    rows = catalogue.features().items()
    since = {name: catalogue.numbers(row.since) for name, row in rows if name in builders()}
    exact = [name for name, version in since.items() if not builders()[name](version, ()).unforeseen]
    return tuple(sorted(exact, key=since.__getitem__))


def model_for(scheduler: str, kernel: str, flags: Collection[str] = ()) -> Model:
    """Return the model of ``scheduler``, as ``ipvsadm -s`` names it, in a kernel.

    ``kernel`` is a version or a release; a release such as 6.1.0-50-cloud-amd64 does not say which update of
    6.1 it is: ``director.kernel`` finds out. ``flags`` are those of ``ipvsadm -b``. Raises CheckFailed where
    that kernel does not have the scheduler, or it has no model.
    """
    if scheduler in catalogue.features() and (reason := catalogue.lacking(kernel, scheduler)):
        raise CheckFailed(reason)
    if scheduler not in builders():
        known = ", ".join(sorted(builders()))
        raise CheckFailed(f"the scheduler {scheduler} has no model", f"there are models of {known}")
    version = catalogue.numbers(kernel)
    model = builders()[scheduler](version, frozenset(flags))

    def without_thresholds(moment: Moment) -> Choice:
        servers = tuple(replace(server, overloaded=False) for server in moment.servers)
        return model.choose(replace(moment, servers=servers))

    # 2.4 has no thresholds, so it marks no server as overloaded.
    return model if version >= (2, 6) else replace(model, choose=without_thresholds)
