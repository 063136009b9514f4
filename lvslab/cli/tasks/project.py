"""The commands for this machine, and for the project itself; they belong to no group."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from invoke import Context

from lvslab.cli import text
from lvslab.cli.program import Group, end, say
from lvslab.paths import PROJECT

group = Group()


@group.task()
def doctor(c: Context, json: bool = False) -> None:
    """Show what this machine can do, what it lacks, and how to get it."""
    from lvslab.cli import doctor as doctors

    findings = [asdict(finding) for finding in doctors.examine()]
    say(findings, json, text.project.doctor)
    end(3 if any(finding["ok"] is False for finding in findings) else 0)


LINTERS = (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["codespell_lib"])
"""Arguments of ``python -m``, one list for each linter; pyproject.toml says what they look at."""


@group.task(
    help={
        "slow": "run the tests that take minutes (kernel builds, kill rounds), and no others",
        "select": "run only tests whose names match (pytest -k)",
        "workers": "how many processes share the tests (default: one for each processor, at most four)",
    }
)
def test(c: Context, slow: bool = False, select: str = "", workers: int = 0) -> None:
    """Run the tests, except those that take minutes."""
    from lvslab.kernel.toolchain import building

    command = ["pytest", *(["--slow"] if slow else [])]
    command += ["-k", select] if select else []
    number = workers or min(building.processors(), 4)
    if number > 1:
        # In the order that they stand in: those that take long come first.
        command += ["-n", str(number), "--no-loadscope-reorder"]
    _python(command)


@group.task()
def lint(c: Context) -> None:
    """Run the linters: ruff, mypy and codespell."""
    for command in LINTERS:
        _python(command)


def _python(command: Sequence[str]) -> None:
    """Run ``python -m`` with ``command`` in the project; if it fails, end with its status."""
    from lvslab.run import spawn

    with spawn([sys.executable, "-P", "-m", *command], stdin=None, cwd=PROJECT) as process:
        end(process.wait())


@group.task(
    help={
        "rounds": "how often to measure each thing",
        "tests": "how many tests with a lab of their own to run",
        "kernel": "measure only web-nat, with this kernel as in lab.up",
        "tree": "measure how long this kernel's source tree takes to build instead of labs",
        "matrix": "measure a matrix: its overhead over its cells' own time, and the gain of a second worker",
    }
)
def bench(
    c: Context,
    rounds: int = 3,
    tests: int = 50,
    kernel: str = "",
    tree: str = "",
    matrix: bool = False,
    json: bool = False,
) -> None:
    """Measure how long labs take to start and end, or kernels to build."""
    sys.path.insert(0, str(PROJECT / "tools"))
    from bench import builds
    from bench import labs as benches
    from bench import matrix as bench_matrix

    if matrix:
        found = bench_matrix.measure(rounds)
    else:
        found = builds.measure(Path(tree), rounds) if tree else benches.measure(rounds, tests, kernel)
    say(found, json, text.project.bench)
