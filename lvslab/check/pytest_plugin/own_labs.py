"""Tests that boot labs of their own although one is up.

A pytest plugin beside `lvslab.check.pytest_plugin.hooks`, for ``--lab``. A lab of its own shows whether the
how-to holds, and nothing about the cluster that is up. So these tests are told apart from the others, and
with ``--here`` they are left out.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from lvslab.check.pytest_plugin.figures import OWN_LAB
from lvslab.check.pytest_plugin.kernels import LABS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--here``."""
    parser.getgroup("lvslab").addoption(
        "--here", action="store_true", help="with --lab: leave out tests that boot labs of their own"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse ``--here`` without a lab."""
    if config.getoption("here") and not config.getoption("lab"):
        raise pytest.UsageError("--here is for a lab that is up: name it with --lab")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--lab``, mark tests that boot labs of their own; with ``--here``, leave them out."""
    if not config.getoption("lab"):
        return
    here, others = list[pytest.Item](), list[pytest.Item]()
    for item in items:
        boots = not set(LABS[1:]).isdisjoint(getattr(item, "fixturenames", ()))
        (others if boots else here).append(item)
    for item in others:
        item.user_properties.append((OWN_LAB, "yes"))
    if config.getoption("here") and others:
        config.hook.pytest_deselected(items=others)
        items[:] = here


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> Generator[None, Any, Any]:
    """Say of each test that has a lab of its own that it has one."""
    category, letter, word = yield
    if category and _is_own(report):
        text, *markup = word if isinstance(word, tuple) else (word,)
        said = f"{text} in a lab of its own"
        word = (said, *markup) if markup else said
    return category, letter, word


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the outcomes of the lab that is up, and of labs of their own."""
    name = terminalreporter.config.getoption("lab")
    if name and (of_others := _counts(terminalreporter, own=True)):
        of_lab = _counts(terminalreporter, own=False) or "no test"
        terminalreporter.section("labs")
        terminalreporter.write(f"{name}: {of_lab}\nlabs of their own: {of_others}\n")


def _counts(reporter: pytest.TerminalReporter, *, own: bool) -> str:
    """Count the outcomes of tests with, or without, a lab of their own."""
    from lvslab.outcome import PYTEST

    counts = {
        outcome: sum(_is_own(report) == own for report in reports)
        for outcome, reports in reporter.stats.items()
        if outcome in PYTEST.words.values()
    }
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def _is_own(report: object) -> bool:
    return (OWN_LAB, "yes") in getattr(report, "user_properties", ())
