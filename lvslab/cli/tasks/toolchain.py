"""The commands for the compilers and programs that old kernels need."""

from __future__ import annotations

from invoke import Context

from lvslab.cli import text
from lvslab.cli.program import Group, say

group = Group("toolchain")


@group.task(name="list")
def list_toolchains(c: Context, json: bool = False) -> None:
    """List the compiler and the programs for old kernels, and which are built."""
    from lvslab.kernel.toolchain import compilers

    say(compilers.listed(), json, text.toolchain.listed)


@group.task(
    positional=["name"],
    help={"name": "a name that toolchain.list shows (default: all that old kernels and their guests need)"},
)
def build(c: Context, name: str = "", json: bool = False) -> None:
    """Build the compiler and the programs for old kernels, each once."""
    from lvslab.kernel.toolchain import compilers

    with text.progress.Progress():
        compilers.build([name] if name else compilers.usual())
    say(compilers.listed(), json, text.toolchain.listed)
