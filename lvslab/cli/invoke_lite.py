"""What we use of Invoke, imported in half the time.

Its help for testing tasks takes unittest.mock, and that takes asyncio; its version, which nobody asks it
for here, is found with a parser for e-mail; YAML is for configuration files.
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
    from invoke.parser import ParserContext
    from invoke.parser.context import to_flag
    from invoke.util import helpline

__all__ = [
    "Argument",
    "Collection",
    "Exit",
    "ParseError",
    "ParserContext",
    "Program",
    "Task",
    "UnexpectedExit",
    "helpline",
    "task",
    "to_flag",
]
