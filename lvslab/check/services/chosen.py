"""Directors and virtual services that a command's options name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lvslab.check.ipvs.table import Service
from lvslab.errors import StateError, UsageError
from lvslab.lab.files import suggest

if TYPE_CHECKING:
    from lvslab.cluster.running import RunningLab


def director_of(running: RunningLab, name: str) -> str:
    """Return the director called ``name``, the first one for "". Raises UsageError for none."""
    there = running.lab.directors
    if name and name not in there:
        raise UsageError(f"the lab '{running.name}' has no director '{name}'", suggest(name, there))
    return name or next(iter(there))


def services_of(table: Sequence[Service], name: str, director: str) -> list[Service]:
    """Return the services in the ``table`` of ``director`` called ``name``, all for "".

    A service has its address as a name too. Raises StateError for an empty table, UsageError where none has
    the name.
    """
    if not table:
        raise StateError(
            f"{director} has no virtual service",
            "`ipvsadm -A` makes one; ./run lab.apply types the how-to's",
        )
    found = [service for service in table if name in ("", str(service), service.address)]
    if not found:
        raise UsageError(
            f"{director} has no virtual service '{name}'", f"there is {' and '.join(map(str, table))}"
        )
    return found
