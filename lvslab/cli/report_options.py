"""Options of commands for reports: ``--NAME FILE`` for each row of `lvslab.report.formats.FORMATS`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lvslab.report.formats import FORMATS, Places

NO_REPORTS: Places = MappingProxyType({})
"""Default of the parameter ``reports`` of a command."""

_NOWHERE = "default: nowhere"


def expand(body: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter ``reports`` of a command by one for each format."""
    signature = inspect.signature(body)

    @wraps(body)
    def command(*arguments: Any, **options: Any) -> None:
        reports = {name: Path(file) for name in FORMATS if (file := options.pop(name, ""))}
        body(*arguments, reports=reports, **options)

    parameters = list(signature.parameters.values())
    place = list(signature.parameters).index("reports")
    kind = parameters[place].kind
    parameters[place : place + 1] = [Parameter(name, kind, default="") for name in FORMATS]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def help_texts(note: str) -> Mapping[str, str]:
    """Help texts of the options. ``note`` is about the first format, which may be written in any case."""
    return {
        name: f"where to write {title} ({_NOWHERE if number else note or _NOWHERE})"
        for number, (name, title) in enumerate(FORMATS.items())
    }
