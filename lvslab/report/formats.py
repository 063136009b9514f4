"""Formats of reports: one row for each, and a module of its name here with ``document(report) -> bytes``.

A format is written by checks, how-tos and matrices alike, where its option ``--NAME FILE`` says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lvslab.errors import UsageError

if TYPE_CHECKING:
    from lvslab.report.model import Report

FORMATS: Mapping[str, str] = {"junit": "JUnit XML"}
"""Titles of the formats by name."""

JUNIT_FILE = "junit.xml"
"""Name of the report that is written with the evidence in any case."""

Places = Mapping[str, Path]
"""Files to write, by the name of their format."""


def document(name: str, report: Report) -> bytes:
    """Write ``report`` in the format ``name``."""
    return cast(bytes, import_module(f"lvslab.report.{name}").document(report))


def check_places(places: Places) -> None:
    """Raise UsageError if a report cannot be written; call this before long work."""
    for name, file in places.items():
        folder = file.resolve().parent
        if file.is_dir():
            raise _unwritable(name, file, "it is a folder")
        if not folder.is_dir():
            raise _unwritable(name, file, f"there is no folder {folder}")
        if not os.access(file if file.exists() else folder, os.W_OK):
            raise _unwritable(name, file, "it may not be written")


def write(places: Places, report: Report) -> None:
    """Write ``report`` to all ``places``. Raises UsageError."""
    for name, file in places.items():
        write_file(name, file, document(name, report))


def write_file(option: str, file: Path, content: bytes) -> None:
    """Write a report that was asked for with ``--OPTION FILE``. Raises UsageError."""
    check_places({option: file})
    try:
        file.write_bytes(content)
    except OSError as error:
        raise _unwritable(option, file, str(error.strerror)) from error


def _unwritable(option: str, file: Path, why: str) -> UsageError:
    return UsageError(f"{file} cannot be written: {why}", f"--{option} takes the name of a file")
