"""What all reports in JUnit XML have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from lvslab.apply.transcript import printable
from lvslab.errors import UsageError


def check_place(file: Path | None) -> None:
    """Raise UsageError where no report can be written to ``file``, before the work that it is about."""
    if file is None:
        return
    folder = file.resolve().parent
    wrong = "it is a folder" if file.is_dir() else "" if folder.is_dir() else f"there is no folder {folder}"
    if not wrong and not os.access(file if file.exists() else folder, os.W_OK):
        wrong = "it may not be written"
    if wrong:
        raise UsageError(f"{file} cannot be written: {wrong}", "--junit takes the name of a file")


def written(root: Element) -> bytes:
    """The document of ``root``. What XML 1.0 does not take is shown as visible escapes."""
    for element in root.iter():
        for key, value in element.items():
            element.set(key, printable(value))
        element.text = element.text and printable(element.text)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def add_properties(suite: Element, about: Mapping[str, str]) -> None:
    """Say ``about``, name by name, as properties of ``suite``."""
    properties = SubElement(suite, "properties")
    for name, value in about.items():
        SubElement(properties, "property", name=name, value=value)


def add_outcome(case: Element, tag: str, reason: str, kind: str = "") -> None:
    """Say that ``case`` ended with ``tag`` (failure, error, skipped), of that ``kind`` if there are several:
    the first line of ``reason`` is the message, and all of it the text, where there is more."""
    first, _, more = reason.partition("\n")
    outcome = SubElement(case, tag, message=first)
    if kind:
        outcome.set("type", kind)
    outcome.text = reason if more else None
