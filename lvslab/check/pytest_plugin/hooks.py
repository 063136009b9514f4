"""The pytest plugin: a lab's folder is a suite of tests, which get running labs from these fixtures.

``pytest labs/web-nat --lab web-nat`` checks the lab that is up under that name; without ``--lab`` one is
booted for the module, and ends with it; with ``--lvs-kernel`` one for each kernel (see
`lvslab.check.pytest_plugin.kernels`). Loaded by every pytest of the environment, so it imports nothing until
used.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lvslab.check.pytest_plugin.figures import FAMILY, KNOWN_BUG, MEASURED, RAISED, SAID
from lvslab.check.pytest_plugin.kernels import LABS, kernel_of

if TYPE_CHECKING:
    from lvslab.check.pytest_plugin.pool import Spares
    from lvslab.check.pytest_plugin.recording import Recording
    from lvslab.check.testbed import NodeUnderTest, Testbed
    from lvslab.cluster.record import Record

pytest_plugins = ["lvslab.check.pytest_plugin.kernels", "lvslab.check.pytest_plugin.own_labs"]

_SPARES: pytest.StashKey[Spares] = pytest.StashKey()
_KNOWN_BUG = pytest.StashKey[str]()
_RECORDINGS: pytest.StashKey[dict[str, tuple[Testbed, Recording]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--lab``."""
    group = parser.getgroup("lvslab", "Linux Virtual Server labs")
    group.addoption("--lab", metavar="NAME", help="check the lab that is up as NAME, instead of booting one")


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.stash[_RECORDINGS] = {}
    meaning = "skip the test where the directors' kernel or ipvsadm is older than these features of IPVS"
    config.addinivalue_line("markers", f"needs(feature, ...): {meaning} (names of the catalogue's features)")
    meaning = "expect the test to fail where the directors' kernel or ipvsadm has one of these bugs"
    config.addinivalue_line("markers", f"known_bug(bug, ...): {meaning} (names of the catalogue's bugs)")


def pytest_report_header() -> str:
    """Print the seed of random choices, for repetitions."""
    from lvslab.check import seed

    return f"lvslab: {seed.VARIABLE}={seed.seed()}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Discard the packets of previous tests."""
    for _, recording in _recordings(item).values():
        recording.begin()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own, which tells expected failures
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show an LvsLabError without a traceback; record its class and the packets.

    The packets are those that the lab's directors have seen during the test.
    """
    report = yield
    found = []
    if call.excinfo is not None and hasattr(report, "wasxfail"):
        found += [(SAID, str(call.excinfo.value)), *_known_bug(item)]
    if call.excinfo is None and report.outcome == "failed":  # it passed, and was expected to fail
        found += _known_bug(item)
    if call.excinfo is not None and report.outcome == "failed":
        from lvslab.errors import LvsLabError, family

        if isinstance(error := call.excinfo.value, LvsLabError):
            report.longrepr = str(error)
            found += [(RAISED, type(error).__name__), (FAMILY, family(error).__name__)]
        if recordings := _recordings(item):
            _keep_packets(item, report, recordings)
    elif call.when == "call":
        for testbed, _ in _recordings(item).values():
            _capture_file(item, testbed).unlink(missing_ok=True)  # of the last time
    item.user_properties += found
    report.user_properties += found  # which has a copy of the item's
    return report


def _known_bug(item: pytest.Item) -> list[tuple[str, str]]:
    """Property with the known bug for which ``item`` was expected to fail."""
    bug = item.stash.get(_KNOWN_BUG, "")
    return [(KNOWN_BUG, bug)] if bug else []


def _keep_packets(
    item: pytest.Item, report: pytest.TestReport, recordings: Mapping[str, tuple[Testbed, Recording]]
) -> None:
    """Write a failed test's packets to a file, and its name to the report."""
    from lvslab.check.pytest_plugin.recording import save

    file = _capture_file(item, next(testbed for testbed, _ in recordings.values()))
    try:
        what = save([recording.taken() for _, recording in recordings.values()], file)
    except OSError as refused:
        told = f"not written: {refused}"
    else:
        told = f"{file}\n{what}"
        item.user_properties.append(("capture", str(file)))
    if isinstance(report.longrepr, str):
        report.longrepr += f"\npackets: {told}"
    elif (addsection := getattr(report.longrepr, "addsection", None)) is not None:
        addsection("packets", told)  # a traceback


def _recordings(item: pytest.Item) -> dict[str, tuple[Testbed, Recording]]:
    """Recordings of the running labs that ``item`` uses, by fixture."""
    names: Collection[str] = getattr(item, "fixturenames", ())
    return {name: found for name, found in item.config.stash[_RECORDINGS].items() if name in names}


def _capture_file(item: pytest.Item, testbed: Testbed) -> Path:
    """File for the packets of ``item``: beside the JUnit report, or with the lab's evidence."""
    junit = item.config.getoption("xmlpath", None)
    folder = Path(junit).absolute().parent if junit else testbed.cluster.evidence
    test = re.sub(r"[^\w.,=-]+", "-", f"{item.path.stem}.{item.name}")[:200].rstrip("-")
    return folder / "captures" / f"{test}.pcapng"


@contextmanager
def _recorded(request: pytest.FixtureRequest, testbed: Testbed) -> Iterator[None]:
    """Record the packets of the directors of ``testbed``, the value of the fixture."""
    from lvslab.check.pytest_plugin.recording import Recording

    recordings, name = request.config.stash[_RECORDINGS], str(request.fixturename)
    recording = Recording(testbed.cluster)
    recordings[name] = testbed, recording
    try:
        yield
    finally:
        del recordings[name]
        recording.close()


@pytest.fixture(autouse=True)
def _features(request: pytest.FixtureRequest) -> None:
    """Skip a test that ``needs`` more, or expect it to fail for a ``known_bug``.

    The reason for the skip names the versions of the programs that lack the feature.
    """
    wanted, bugs = (
        [name for mark in request.node.iter_markers(marker) for name in mark.args]
        for marker in ("needs", "known_bug")
    )
    if not wanted and not bugs:
        return
    from lvslab.check.ipvs import known_bugs
    from lvslab.kernel import catalogue

    versions = _versions(request)
    if (reason := catalogue.first_lacking(versions, wanted)) is not None:
        pytest.skip(reason)
    request.node.stash[_KNOWN_BUG] = known_bugs.expect(request.node, versions, bugs)


def _versions(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """Versions of programs on the directors of the test's lab."""
    if record := _running(request.config):
        return record.versions
    for fixture in LABS:
        if fixture in request.fixturenames:
            testbed: Testbed = request.getfixturevalue(fixture)
            return testbed.cluster.versions
    raise pytest.UsageError(f"{request.node.name} needs a feature of IPVS, and uses no lab that may lack it")


@pytest.fixture(scope="module")
def lab(
    request: pytest.FixtureRequest, lvs_kernel: str | None, record_testsuite_property: Any
) -> Iterator[Testbed]:
    """The lab of the module's folder, up and with its how-to applied. For tests that leave it as it was."""
    from lvslab.check.testbed import Testbed
    from lvslab.cluster.cluster import attach, booted
    from lvslab.errors import FeatureLacking, MachineError
    from lvslab.lab.directors import DirectorSpec

    folder = request.path.parent
    given, ipvsadm = request.config.getoption("--lab"), request.config.getoption("lvs_ipvsadm")
    spec = DirectorSpec.chosen(lvs_kernel or "", ipvsadm=ipvsadm or "")
    name = f"{folder.name[:20]}-{secrets.token_hex(3)}"
    with ExitStack() as opened:
        try:
            booting = None if given else opened.enter_context(booted(folder, name=name, spec=spec))
        except (FeatureLacking, MachineError) as lacking:
            pytest.skip(str(lacking))
        running = booting or opened.enter_context(attach(given))
        testbed = opened.enter_context(Testbed(running))
        opened.enter_context(_recorded(request, testbed))
        if not given:
            testbed.apply()
        record_testsuite_property("lab", testbed.cluster.lab.name)
        for program, version in testbed.cluster.versions.items():
            record_testsuite_property(f"{program}-version", version)
        yield testbed


@pytest.fixture
def bare_lab(request: pytest.FixtureRequest, lvs_kernel: str | None) -> Iterator[Testbed]:
    """A lab for one test, booted, without any step of the how-to.

    Its directors are of the same kind as those of the lab that ``--lab`` names, and run the same kernel, or
    that of ``--lvs-kernel``.
    """
    yield from _own(request, applied=False)


@pytest.fixture
def fresh_lab(request: pytest.FixtureRequest, lvs_kernel: str | None) -> Iterator[Testbed]:
    """A lab for one test, with the how-to applied. For tests that change or break it.

    The how-to is typed in the first one. If all of it is typed on directors, those of further labs are
    resumed in the state after its last step.
    """
    yield from _own(request, applied=True)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Function that records a figure: its arguments are a name and the figure with its unit.

    Figures are shown with the results, and are properties of the test case in JUnit.
    """

    def measured(name: str, figure: str) -> None:
        request.node.user_properties.append((f"{MEASURED}{name}", figure))

    return measured


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that tests have measured, on all workers of xdist."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    told = (told for report in reports for told in getattr(report, "user_properties", ()))
    figures = ((name.removeprefix(MEASURED), said) for name, said in told if name.startswith(MEASURED))
    lines = dict.fromkeys(f"{name}: {said}" for name, said in figures)  # each phase of a test tells them
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("".join(f"{line}\n" for line in lines))


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


def _own(request: pytest.FixtureRequest, *, applied: bool) -> Iterator[Testbed]:
    """Provide a lab for one test, and start those of the next tests."""
    from lvslab.check.pytest_plugin.pool import Spares, Wanted
    from lvslab.errors import FeatureLacking, MachineError
    from lvslab.lab.directors import DirectorSpec

    config = request.config
    if _SPARES not in config.stash:
        config.stash[_SPARES] = Spares()
    spares, record = config.stash[_SPARES], _running(config)
    spec = record.spec if record else DirectorSpec.chosen(ipvsadm=config.getoption("lvs_ipvsadm") or "")

    def wanted(item: pytest.Function, applied: bool) -> Wanted:
        own, folder = replace(spec, kernel=kernel_of(item) or spec.kernel), item.path.parent
        here = record is not None and record.lab.folder == folder.resolve()
        return Wanted(folder, own, applied, record if here else None)

    coming = [
        wanted(item, fixture == "fresh_lab")
        for item in _after(request.node)
        for fixture in LABS[1:]
        if fixture in item.fixturenames
    ]
    own = spares.take(wanted(request.node, applied), coming)
    try:
        try:
            testbed = own.testbed()
        except (FeatureLacking, MachineError) as lacking:
            pytest.skip(str(lacking))
        spares.prepare(coming)
        with _recorded(request, testbed):
            yield testbed
    finally:
        spares.end(own)


def _after(node: pytest.Function) -> Iterator[pytest.Function]:
    """Tests after ``node``. On a worker of xdist, only those that share a lab with it are known."""
    items = node.session.items
    later = (item for item in items[items.index(node) + 1 :] if isinstance(item, pytest.Function))
    if not hasattr(node.config, "workerinput"):
        return later
    return (item for item in later if (item.path, kernel_of(item)) == (node.path, kernel_of(node)))


def _running(config: pytest.Config) -> Record | None:
    """Return the record of the lab that ``--lab`` names: tests' own labs are to be like it."""
    from lvslab.cluster.cluster import attach

    if not (name := config.getoption("--lab")):
        return None
    with attach(name) as running:
        return running.record


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the labs that were started for tests that did not run."""
    if _SPARES in session.config.stash:
        session.config.stash[_SPARES].close()
