"""Tests on several kernels: ``pytest labs --lvs-kernel 2.4.37 --lvs-kernel debian-6.1``.

A pytest plugin beside `lvslab.check.pytest_plugin.hooks`, which provides the labs. Each test of a lab runs
once for each kernel. The tests of one module on one kernel run together, so their lab is booted once. With
pytest-xdist (``-n``) all of these run on one worker, for the same reason.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from lvslab.check.testbed import Testbed

LABS = ("lab", "bare_lab", "fresh_lab")
"""Fixtures that are running labs."""
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
    """With ``-n`` alone, make xdist keep tests together that share a lab."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadscope"
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """Distribute the tests of a module by kernel; xdist would keep the module together."""
    if config.option.dist != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    kernels = _ids(config)

    class ByLab(LoadScopeScheduling):  # type: ignore[misc]  # it may be another version's
        def _split_scope(self, nodeid: str) -> str:
            return lab_of(nodeid, kernels)

    return ByLab(config, log)


def lab_of(nodeid: str, kernels: Sequence[str]) -> str:
    """Return a test's module, and that of ``kernels`` with which its parameters begin."""
    module, _, test = nodeid.partition("::")
    parameters = test.partition("[")[2].removesuffix("]") + "-"
    found = [name for name in kernels if parameters.startswith(f"{name}-")]
    return " ".join([module, *sorted(found, key=len)[-1:]])


def pytest_configure(config: pytest.Config) -> None:
    """Reject options that contradict each other, and unknown kernels and versions."""
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
    from lvslab.errors import LvsLabError
    from lvslab.kernel import catalogue, find
    from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build

    try:
        for name in kernels:
            # What is ready-made is known, and need not be downloaded yet.
            if name not in find.DISTRIBUTION and catalogue.ready(name) is None:
                find.find(name)
        if ipvsadm:
            ipvsadm_build.chosen(ipvsadm)
    except LvsLabError as unknown:
        raise pytest.UsageError(str(unknown)) from None


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the tests of labs by kernel."""
    kernels: Sequence[str] = metafunc.config.getoption("lvs_kernel")
    if kernels and set(LABS) & set(metafunc.fixturenames):
        metafunc.parametrize(_PARAMETER, kernels, ids=_ids(metafunc.config), scope="module", indirect=True)


@pytest.fixture(scope="module")
def lvs_kernel(request: pytest.FixtureRequest) -> str | None:
    """Kernel of ``--lvs-kernel`` for the test's labs; None for that of lab.yaml or of ``--lab``."""
    return getattr(request, "param", None)


def _ids(config: pytest.Config) -> list[str]:
    """Names of the kernels in the names of tests."""
    return [Path(name).name for name in config.getoption("lvs_kernel")]


def kernel_of(item: pytest.Function) -> str | None:
    """Kernel of ``--lvs-kernel`` that this test is for."""
    name = item.callspec.params.get(_PARAMETER) if hasattr(item, "callspec") else None
    return None if name is None else str(name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Record the kernel and versions of a test as properties of its case in JUnit.

    If its lab did not come up, only the kernel is recorded.
    """
    if not isinstance(item, pytest.Function) or (name := kernel_of(item)) is None:
        return
    item.user_properties.append(("lvs-kernel", name))
    for lab in LABS:
        if testbed := cast("Testbed | None", item.funcargs.get(lab)):
            versions = testbed.cluster.versions.items()
            item.user_properties += [(f"{program}-version", version) for program, version in versions]
            return
