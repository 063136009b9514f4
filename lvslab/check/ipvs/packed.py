"""Texts that a director packs, since an emulated serial port is slow: by ``gzip -c | base64``."""

from __future__ import annotations

import base64
import gzip
import zlib

MARK = "packed"
"""The first line of a list that may be packed, if it is."""


def unpack(text: str) -> str:
    """Return what was packed, "" where that is not complete."""
    try:
        return gzip.decompress(base64.b64decode(text, validate=False)).decode(errors="replace")
    except (OSError, EOFError, ValueError, zlib.error):
        return ""
