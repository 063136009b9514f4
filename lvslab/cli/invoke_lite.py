"""Invoke without its slow imports, which halves its import time.

Not imported: unittest.mock (for testing tasks; imports asyncio), importlib.metadata (for Invoke's version;
imports the e-mail parser) and, until it is used, YAML (for configuration files).
"""

from __future__ import annotations

from lvslab.lazy_import import instead_of, postponed

with (
    instead_of("unittest.mock", Mock=None),
    instead_of("importlib.metadata", version=lambda _: "unknown"),
    postponed("invoke.vendor.yaml"),
):
    from invoke import Argument, Collection, Program, Task, task
    from invoke.exceptions import Exit, ParseError, UnexpectedExit
    from invoke.parser import Parser, ParserContext
    from invoke.parser.context import to_flag
    from invoke.util import helpline

__all__ = [
    "Argument",
    "Collection",
    "Exit",
    "ParseError",
    "Parser",
    "ParserContext",
    "Program",
    "Task",
    "UnexpectedExit",
    "helpline",
    "task",
    "to_flag",
]
