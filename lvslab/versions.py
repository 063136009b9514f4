"""Versions as numbers that can be compared."""

from __future__ import annotations

import re


def version_of(release: str) -> tuple[int, ...]:
    """The numbers that a release begins with: 2.6.32.71-lvslab is (2, 6, 32, 71)."""
    found = re.match(r"\d+(?:\.\d+)*", release)
    return tuple(int(number) for number in found[0].split(".")) if found else ()
