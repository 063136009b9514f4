"""The same tests on one kernel after the other: ``pytest labs --lvs-kernel 2.4.37 --lvs-kernel debian-6.1``.

A plugin of pytest beside `lvslab.check.pytest_plugin`, which has the labs. Each test of a lab is there once
for each kernel, and those of one module on one kernel come one after the other, so their lab is booted once.
With pytest-xdist (``-n``) all of these go to one worker, for the same reason.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed

LABS = ("lab", "bare_lab", "fresh_lab")
"""The fixtures that are a running lab."""
_PARAMETER = "lvs_kernel"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--lvs-kernel`` and ``--lvs-ipvsadm``."""
    group = parser.getgroup("lvslab")
    group.addoption(
        "--lvs-kernel",
        metavar="KERNEL",
        action="append",
        default=[],
        help="boot labs with directors of this kernel, as in lab.up; may be given more than once",
    )
    group.addoption("--lvs-ipvsadm", metavar="VERSION", help="boot labs with this ipvsadm, as in lab.up")


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """With ``-n`` alone, have xdist keep tests together that share a lab."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadgroup"
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that contradict each other or ask for what does not exist."""
    kernels, ipvsadm = config.getoption("lvs_kernel"), config.getoption("lvs_ipvsadm")
    if not (kernels or ipvsadm) or hasattr(config, "workerinput"):
        return
    if config.getoption("lab"):
        given = "--lvs-kernel" if kernels else "--lvs-ipvsadm"
        raise pytest.UsageError(
            f"--lab names a lab that is up, and its kernel and ipvsadm cannot be changed: leave out {given}"
        )
    if len(set(kernels)) < len(kernels):
        raise pytest.UsageError(f"--lvs-kernel names a kernel twice: {', '.join(kernels)}")
    from lvslab.build import catalogue, ipvsadm_build, kernel
    from lvslab.errors import LvsLabError

    try:
        for name in kernels:
            # What is ready-made is known, and need not be downloaded yet.
            if name not in kernel.DISTRIBUTION and catalogue.ready(name) is None:
                kernel.find(name)
        if ipvsadm:
            ipvsadm_build.chosen(ipvsadm)
    except LvsLabError as unknown:
        raise pytest.UsageError(str(unknown)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have a test of a lab once for each kernel."""
    kernels: Sequence[str] = metafunc.config.getoption("lvs_kernel")
    if kernels and set(LABS) & set(metafunc.fixturenames):
        ids = [Path(name).name for name in kernels]
        metafunc.parametrize(_PARAMETER, kernels, ids=ids, scope="module", indirect=True)


@pytest.fixture(scope="module")
def lvs_kernel(request: pytest.FixtureRequest) -> str | None:
    """The kernel of ``--lvs-kernel`` that the test's labs run; None where lab.yaml, or the lab of ``--lab``,
    says which."""
    return getattr(request, "param", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tell xdist which tests share a lab."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if isinstance(item, pytest.Function) and set(LABS) & set(item.fixturenames):
            item.add_marker(pytest.mark.xdist_group("@".join(filter(None, shared_by(item)))))


def kernel_of(item: pytest.Function) -> str | None:
    """The kernel of ``--lvs-kernel`` that this test is for."""
    name = item.callspec.params.get(_PARAMETER) if hasattr(item, "callspec") else None
    return None if name is None else str(name)


def shared_by(item: pytest.Function) -> tuple[str, str | None]:
    """What the tests of one lab have in common: their module, by its path, and their kernel."""
    return str(item.path), kernel_of(item)


@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Keep with the results which kernel and versions a test ran on: properties of its case in JUnit."""
    if not isinstance(item, pytest.Function) or (name := kernel_of(item)) is None:
        return
    testbed = cast("Testbed", next(item.funcargs[lab] for lab in LABS if lab in item.funcargs))
    versions = {f"{program}-version": version for program, version in testbed.cluster.versions.items()}
    item.user_properties += [("lvs-kernel", name), *versions.items()]
