"""Paths of the project, the cache (may be deleted) and the evidence (is kept)."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def labs() -> Path:
    """Return the folder that holds one folder for each lab."""
    return PROJECT / "labs"


def cache() -> Path:
    """Return the cache's folder: ``$LVSLAB_CACHE``, else ``lvslab`` in the user's XDG cache folder."""
    return _folder("LVSLAB_CACHE", "XDG_CACHE_HOME", ".cache")


def state() -> Path:
    """Return the folder of evidence: ``$LVSLAB_STATE``, else ``lvslab`` in the user's XDG state folder."""
    return _folder("LVSLAB_STATE", "XDG_STATE_HOME", ".local/state")


def _folder(own: str, xdg: str, default: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).resolve()
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / default) / "lvslab"
