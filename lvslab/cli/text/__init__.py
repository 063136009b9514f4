"""Texts of the commands: ``text.lab`` imports the module ``lab`` when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lvslab.cli.text import (
        compare,
        howto,
        kernel,
        lab,
        layout,
        matrix,
        progress,
        project,
        snapshot,
        toolchain,
        watch,
    )
else:
    from importlib import import_module

    def __getattr__(name: str) -> object:
        if name in __all__:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "compare",
    "howto",
    "kernel",
    "lab",
    "layout",
    "matrix",
    "progress",
    "project",
    "snapshot",
    "toolchain",
    "watch",
]
