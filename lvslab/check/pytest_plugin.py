"""The pytest plugin: a lab's folder is a suite, and its tests get running labs from these fixtures.

``pytest labs/web-nat --lab web-nat`` checks the lab that is up under that name; without ``--lab`` one is
booted for the module, and ends with it. Loaded by every pytest of the environment, so it imports nothing
until used.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lvslab.check.testbed import NodeUnderTest, Testbed


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--lab``."""
    group = parser.getgroup("lvslab", "Linux Virtual Server labs")
    group.addoption("--lab", metavar="NAME", help="check the lab that is up as NAME, instead of booting one")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a check found as a message, without the traceback of lvslab's own code."""
    report = yield
    if call.excinfo is not None and report.outcome == "failed":
        from lvslab.errors import LvsLabError

        if isinstance(call.excinfo.value, LvsLabError):
            report.longrepr = str(call.excinfo.value)
    return report


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest, record_testsuite_property: Any) -> Iterator[Testbed]:
    """The lab of the module's folder, up and with its how-to applied. For tests that leave it as it was."""
    from lvslab.check.testbed import Testbed
    from lvslab.cluster import attach

    if name := request.config.getoption("--lab"):
        with attach(name) as running, Testbed(running) as testbed:
            _record(testbed, record_testsuite_property)
            yield testbed
        return
    with _booted(request.path.parent) as testbed:
        testbed.apply()
        _record(testbed, record_testsuite_property)
        yield testbed


@pytest.fixture
def bare_lab(request: pytest.FixtureRequest) -> Iterator[Testbed]:
    """A lab of its own for one test, booted, and without a single step of the how-to.

    Its directors are of the same kind as those of the lab that ``--lab`` names, and run the same kernel.
    """
    from lvslab.cluster import attach

    kernel_name, kind = None, "qemu"
    if name := request.config.getoption("--lab"):
        with attach(name) as running:
            kernel_name, kind = running.kernel_name, running.director_kind
    with _booted(request.path.parent, kernel_name, kind) as testbed:
        yield testbed


@pytest.fixture
def fresh_lab(bare_lab: Testbed) -> Testbed:
    """A lab of its own for one test, with the how-to applied. For tests that change or break it."""
    bare_lab.apply()
    return bare_lab


@pytest.fixture
def director(lab: Testbed) -> NodeUnderTest:
    """The first director of the lab."""
    return lab.directors[0]


@pytest.fixture
def real_servers(lab: Testbed) -> tuple[NodeUnderTest, ...]:
    """The real servers of the lab, in the order of lab.yaml."""
    return lab.real_servers


@pytest.fixture
def clients(lab: Testbed) -> tuple[NodeUnderTest, ...]:
    """The clients of the lab, in the order of lab.yaml."""
    return lab.clients


@contextmanager
def _booted(folder: Path, kernel_name: str | None = None, director_kind: str = "qemu") -> Iterator[Testbed]:
    from lvslab.check.testbed import Testbed
    from lvslab.cluster import booted
    from lvslab.errors import MachineError

    name = f"{folder.name[:20]}-{secrets.token_hex(3)}"
    with ExitStack() as opened:
        try:
            running = opened.enter_context(
                booted(folder, name=name, kernel_name=kernel_name, director_kind=director_kind)
            )
        except MachineError as lacking:
            pytest.skip(str(lacking))
        yield opened.enter_context(Testbed(running))


def _record(testbed: Testbed, record: Any) -> None:
    record("lab", testbed.cluster.lab.name)
    for program, version in testbed.cluster.versions.items():
        record(f"{program}-version", version)
