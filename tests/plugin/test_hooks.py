"""The plugin in a pytest of its own, with labs that are only told of."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from lvslab.apply.howto import Step
from lvslab.boot.net import packets
from lvslab.boot.net.namespaces import Namespaces
from lvslab.boot.net.packets import Interface
from lvslab.boot.status import Summary
from lvslab.check import pytest_run
from lvslab.check.pytest_plugin import pool
from lvslab.cluster import cluster
from lvslab.cluster import registry as running
from lvslab.errors import FeatureLacking, MachineError, StateError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Bug
from lvslab.lab import loader
from lvslab.lab.directors import USUAL, DirectorSpec
from lvslab.matrix import cell
from lvslab.run import run as run_program
from tests.cables import HEADER, IPV4, sender
from tests.unit.fake_cluster import FakeCluster

pytest_plugins = ["pytester"]

LAB = """
title: for a test
networks:
  lan: {subnet: 10.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
  rs1:
    role: real-server
    interfaces: {eth0: {network: lan, address: 10.0.0.100}}
  client:
    role: client
    interfaces: {eth0: {network: lan, address: 10.0.0.9}}
"""

STEPS = (Step(1, "director", "ipvsadm -C", 3),)


class Running(FakeCluster):
    """A running lab, in which applying and copying are logged."""

    def __init__(self, name: str, folder: Path, log: list[str]) -> None:
        super().__init__(
            loader.load(folder),
            name=name,
            steps=STEPS,
            evidence=folder / "evidence",
            spec=DirectorSpec("debian", "mininet"),
            log=log,
        )

    def apply(self, *_: object, without: Sequence[str] = ()) -> Summary:
        self.log.append(f"apply without {list(without)}")
        return Summary(0, 0, 0, 0)

    def copy(self, summary: Summary) -> SimpleNamespace:
        self.log.append("copy")
        return SimpleNamespace(close=lambda: self.log.append("close"))


@pytest.fixture
def log(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What becomes of labs: attached to by name, or booted from their folder."""
    pytester.makefile(".yaml", lab=LAB)
    log: list[str] = []

    def attach(name: str) -> Running:
        log.append(f"attach {name}")
        return Running(name, pytester.path, log)

    @contextmanager
    def booted(
        folder: Path,
        *,
        name: str,
        spec: DirectorSpec = USUAL,
        steps: tuple[Step, ...] | None = None,
        **begins: Any,
    ) -> Iterator[Running]:
        log.append(f"boot {folder.name} with {spec.kernel or None}")
        if spec.kind != "qemu":
            log.append(f"director {spec.kind}")
        if steps is not None:
            log.append(f"steps {[step.command for step in steps]}")
        log.append(name)
        with Running(name, folder, log) as running:
            yield running

    monkeypatch.setattr(cluster, "attach", attach)
    monkeypatch.setattr(cluster, "booted", booted)
    monkeypatch.setattr(pool, "booted", booted)
    return log


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """Run a module of tests in this process."""
    pytester.makepyfile("import pytest\nfrom lvslab import errors\n" + test)
    # Without what collects garbage five times at every end.
    plugins = ["-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    return pytester.runpytest_inprocess(*plugins, "--junit-xml=junit.xml", *options)


@pytest.fixture
def wired(host: Namespaces, stamps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives directors an interface that has the packets which tests ``say``."""
    host.call(run_program, ["ip", "link", "set", "lo", "up"])

    def capture(self: Running, node: str, *, room: int, first: int) -> list[Interface]:
        return [Interface(node, "lo", "", first, host.call(packets.open_at, "lo", (), room), far=False)]

    def say(self: Running, words: str) -> None:
        with host.call(sender, "lo") as there:
            there.send(HEADER + IPV4 + words.encode())

    monkeypatch.setattr(Running, "capture", capture)
    monkeypatch.setattr(Running, "say", say, raising=False)


def captures(pytester: pytest.Pytester, folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (pytester.path / folder).glob("captures/*")}


def properties(pytester: pytest.Pytester) -> dict[str, str]:
    found = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    return {each.get("name", ""): each.get("value", "") for each in found}


def test_help_has_our_option(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--help")
    result.stdout.fnmatch_lines(["Linux Virtual Server labs:", "  --lab*NAME*check the lab that is up*"])


def test_a_lab_that_is_up_is_attached_to_and_left_up(pytester: pytest.Pytester, log: list[str]) -> None:
    result = run(
        pytester,
        """
def test_nodes(lab, director, real_servers, clients):
    assert director.name == "director"
    assert [node.name for node in real_servers] == ["rs1"]
    assert [node.address for node in clients] == ["10.0.0.9"]
def test_again(lab):
    pass
""",
        "--lab=mine",
    )
    result.assert_outcomes(passed=2)
    assert log == ["attach mine", "enter", "leave"]
    assert properties(pytester) == {
        "lab": pytester.path.name,
        "kernel-version": "6.1.0",
        "ipvsadm-version": "1.31",
    }


def test_without_a_name_one_lab_is_booted_for_the_module(pytester: pytest.Pytester, log: list[str]) -> None:
    run(pytester, "def test_a(lab): pass\ndef test_b(lab): pass\n").assert_outcomes(passed=2)
    assert log[0] == f"boot {pytester.path.name} with None"
    assert running.check_name(log[1].lower().replace("_", "-"))
    assert log[2:] == ["enter", "apply without []", "leave"]


def test_a_fresh_lab_for_each_test_that_breaks_it(pytester: pytest.Pytester, log: list[str]) -> None:
    run(
        pytester, "def test_a(fresh_lab): pass\ndef test_b(bare_lab): bare_lab.apply(without=['-a'])\n"
    ).assert_outcomes(passed=2)
    names = [entry for entry in log if entry.startswith("test") or "-" in entry.split()[0]]
    # The second lab comes up, and the first one ends, in the background.
    assert sorted(entry for entry in log if entry not in names) == [
        "apply without ['-a']",
        "apply without []",
        *[f"boot {pytester.path.name} with None"] * 2,
        *["enter"] * 2,
        *["leave"] * 2,
    ]
    assert len(set(names)) == 2


def test_a_fresh_lab_has_directors_like_the_one_that_is_checked(
    pytester: pytest.Pytester, log: list[str]
) -> None:
    run(pytester, "def test_a(bare_lab): pass\n", "--lab=mine").assert_outcomes(passed=1)
    assert f"boot {pytester.path.name} with debian" in log
    assert "director mininet" in log


@pytest.mark.parametrize("where", ["call", "setup", "teardown"])
def test_what_a_check_finds_is_shown_without_our_own_code(pytester: pytest.Pytester, where: str) -> None:
    raising = "raise errors.CheckFailed('rs1 never answered', 'is it up?')"
    test = {
        "call": f"def test_a():\n    {raising}\n",
        "setup": f"@pytest.fixture\ndef it():\n    {raising}\ndef test_a(it): pass\n",
        "teardown": f"@pytest.fixture\ndef it():\n    yield\n    {raising}\ndef test_a(it): pass\n",
    }
    result = run(pytester, test[where])
    text = result.stdout.str()
    assert "rs1 never answered\n  is it up?\n" in text
    assert "raise errors" not in text
    assert result.ret == 1
    (found,) = (
        child
        for case in ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
        for child in case
        if child.tag in ("failure", "error")
    )
    assert found.tag == ("failure" if where == "call" else "error")
    assert "rs1 never answered" in (found.text or "")


def test_any_other_failure_is_shown_as_ever(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_a():\n    one = 1\n    assert one == 2\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*assert one == 2", "E*assert 1 == 2"])


def test_an_expected_failure_stays_one(pytester: pytest.Pytester) -> None:
    test = """
@pytest.mark.xfail(raises=errors.CheckFailed, strict=True)
def test_a():
    raise errors.CheckFailed("as expected")
def test_b():
    with pytest.raises(errors.CheckFailed, match="caught"):
        raise errors.CheckFailed("caught")
"""
    run(pytester, test).assert_outcomes(passed=1, xfailed=1)


def test_a_lab_that_is_not_up(
    pytester: pytest.Pytester, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"unit-{secrets.token_hex(6)}"

    def attach(name: str) -> Any:
        raise StateError(f"the lab '{name}' is not up", "start it")

    monkeypatch.setattr(cluster, "attach", attach)
    result = run(pytester, "def test_a(lab): pass\n", f"--lab={name}")
    result.assert_outcomes(errors=1)
    assert f"the lab '{name}' is not up\n  start it" in result.stdout.str()


def test_a_machine_that_cannot_boot_labs_skips_and_says_why(
    pytester: pytest.Pytester, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def booted(folder: Path, **_: Any) -> Any:
        raise MachineError("labs need root", "sudo ./run ...")

    monkeypatch.setattr(cluster, "booted", booted)
    result = run(pytester, "def test_a(lab): pass\n", "-rs")
    result.assert_outcomes(skipped=1)
    assert "labs need root" in result.stdout.str()


@pytest.mark.parametrize("fixture", ["lab", "fresh_lab"])
def test_a_kernel_without_what_the_lab_needs_skips_and_says_why(
    pytester: pytest.Pytester, log: list[str], monkeypatch: pytest.MonkeyPatch, fixture: str
) -> None:
    def booted(folder: Path, **_: Any) -> Any:
        raise FeatureLacking("kernel 2.4.37 has no IPv6", "its lab.yaml has 'needs: [ipv6]'")

    monkeypatch.setattr(cluster, "booted", booted)
    monkeypatch.setattr(pool, "booted", booted)
    result = run(pytester, f"def test_a({fixture}): pass\n", "-rs")
    result.assert_outcomes(skipped=1)
    assert "kernel 2.4.37 has no IPv6" in result.stdout.str()


def test_a_test_is_skipped_where_the_kernel_cannot(pytester: pytest.Pytester, log: list[str]) -> None:
    result = run(
        pytester,
        """
@pytest.mark.needs("ipv6")
def test_can(lab):
    pass
@pytest.mark.needs("ipv6", "estimator_threads")
def test_cannot(lab):
    raise AssertionError("must not be run")
@pytest.mark.needs("ipv6")
def test_of_its_own(fresh_lab):
    pass
""",
        "-rs",
    )
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*kernel 6.1.0 has no*"])


BUG = Bug("nq-weight-0", "nq gives too much", "gave .* too much", ("6.1",), ("6.2",), until="6.2")


@pytest.mark.parametrize(
    ("test", "outcome", "said"),
    [
        (
            "raise errors.CheckFailed('nq gave rs1 too much')",
            {"xfailed": 1},
            "known bug nq-weight-0: nq gives",
        ),
        ("assert False, 'nq gave rs1 too much'", {"xfailed": 1}, "known bug nq-weight-0: nq gives"),
        ("raise errors.CheckFailed('rs1 never answered')", {"failed": 1}, "rs1 never answered"),
        ("raise errors.BootError('nq gave rs1 too much')", {"failed": 1}, "nq gave rs1 too much"),
        ("pass", {"failed": 1}, "known bug nq-weight-0: nq gives"),
    ],
)
def test_a_known_bug_must_be_shown_in_its_own_way(
    pytester: pytest.Pytester,
    log: list[str],
    monkeypatch: pytest.MonkeyPatch,
    test: str,
    outcome: dict[str, int],
    said: str,
) -> None:
    monkeypatch.setattr(catalogue, "bugs", lambda: {BUG.name: BUG})
    module = f"@pytest.mark.known_bug('nq-weight-0')\ndef test_a(lab):\n    {test}\n"
    result = run(pytester, module, "-rxX")
    result.assert_outcomes(**outcome)
    assert said in result.stdout.str()
    (case,) = map(cell.judged, pytest_run.from_junit("a", pytester.path / "junit.xml", 0).cases)
    if "xfailed" in outcome:
        assert (case.verdict, case.bug) == ("expected failure", "nq-weight-0")
        assert case.message.startswith("known bug nq-weight-0: nq gives too much\nnq gave rs1 too much")
    elif test == "pass":
        assert (case.verdict, case.bug) == ("unexpectedly passed", "nq-weight-0")
    else:
        assert (case.verdict, case.bug) == ("failed", "")


def test_a_reason_that_only_reads_like_a_known_bug(pytester: pytest.Pytester) -> None:
    test = "@pytest.mark.xfail(reason='known bug my-own: it is slow')\ndef test_a():\n    assert False\n"
    run(pytester, test).assert_outcomes(xfailed=1)
    (case,) = pytest_run.from_junit("a", pytester.path / "junit.xml", 0).cases
    assert (case.outcome, case.bug) == ("skipped", "")


def test_a_bug_that_the_kernel_does_not_have_changes_nothing(
    pytester: pytest.Pytester, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "bugs", lambda: {BUG.name: replace(BUG, until="6.0")})
    module = "@pytest.mark.known_bug('nq-weight-0')\ndef test_a(lab): pass\n"
    run(pytester, module).assert_outcomes(passed=1)


def test_a_lab_that_is_up_says_what_it_can(pytester: pytest.Pytester, log: list[str]) -> None:
    test = '@pytest.mark.needs("ipv6")\ndef test_can(bare_lab):\n    pass\n'
    run(pytester, test, "--lab=mine").assert_outcomes(passed=1)
    assert log[0] == "attach mine"


def test_a_tests_own_lab_is_like_the_one_that_is_up(pytester: pytest.Pytester, log: list[str]) -> None:
    """Its folder may have been edited since that one was booted."""
    test = "def test_own(bare_lab): pass\n"
    run(pytester, test, "--lab=mine").assert_outcomes(passed=1)
    assert "steps ['ipvsadm -C']" in log
    log.clear()
    run(pytester, test).assert_outcomes(passed=1)
    assert not [line for line in log if line.startswith("steps")]


def test_who_needs_something_needs_a_lab(pytester: pytest.Pytester, log: list[str]) -> None:
    result = run(pytester, '@pytest.mark.needs("ipv6")\ndef test_alone():\n    pass\n')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*test_alone needs a feature of IPVS*"])


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_figures_are_shown_and_are_properties_of_the_test_cases(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        """
        def test_one(measured):
            measured("visits that fail", "6 of 18")

        def test_two(measured):
            measured("longest", "1.03 s")
        """
    )
    done = pytester.runpytest_subprocess("--junit-xml=junit.xml", *options)
    done.stdout.fnmatch_lines(["*= measured =*", "visits that fail: 6 of 18", "longest: 1.03 s"])
    found = ElementTree.parse(pytester.path / "junit.xml").iter("property")
    assert [(each.get("name"), each.get("value")) for each in found] == [
        ("measured: visits that fail", "6 of 18"),
        ("measured: longest", "1.03 s"),
    ]

    measured = pytest_run.from_junit("a", pytester.path / "junit.xml", 0).measured
    assert measured == {"visits that fail": "6 of 18", "longest": "1.03 s"}


# --- the packets of a test that failed --------------------------------------------------------------------


def test_the_packets_of_a_test_that_fails_are_kept(
    pytester: pytest.Pytester, log: list[str], wired: None
) -> None:
    tests = """
def test_passes(lab):
    lab.cluster.say("of one that passes")
@pytest.mark.parametrize("what", ["a/b c"])
def test_finds(lab, what):
    lab.cluster.say("of one that finds something")
    raise errors.CheckFailed("rs1 never answered")
def test_asserts(lab, director):
    lab.cluster.say("of one that asserts")
    assert director is None
"""
    result = run(pytester, tests, "--lab=mine")
    result.assert_outcomes(passed=1, failed=2)
    module = "test_the_packets_of_a_test_that_fails_are_kept"
    found = captures(pytester, ".")
    assert set(found) == {f"{module}.test_finds-a-b-c.pcapng", f"{module}.test_asserts.pcapng"}
    for test, words in (
        ("finds-a-b-c", b"of one that finds something"),
        ("asserts", b"of one that asserts"),
    ):
        content = found[f"{module}.test_{test}.pcapng"]
        assert words in content
        assert b"director lo" in content
        assert sum(content.count(other) for other in (b"of one that",)) == content.count(words)
    # What a person reads, and what a program does.
    cases = [*ElementTree.parse(pytester.path / "junit.xml").iter("testcase")]
    for case in cases[1:]:
        (failure,) = case.iter("failure")
        (written,) = (
            each.get("value", "") for each in case.iter("property") if each.get("name") == "capture"
        )
        assert Path(written).read_bytes() in found.values()
        assert f"{written}\n" in (failure.text or "")
        assert "2 packets at director lo" in (failure.text or "")
    assert not list(cases[0].iter("property"))


def test_without_junit_they_are_with_the_evidence_of_the_lab(
    pytester: pytest.Pytester, log: list[str], wired: None
) -> None:
    pytester.makepyfile("def test_a(fresh_lab):\n    assert 0\n")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(failed=1)
    assert len(captures(pytester, "evidence")) == 1


@pytest.mark.parametrize("fixture", ["lab", "fresh_lab"])
def test_when_the_test_passes_again_they_are_gone(
    pytester: pytest.Pytester, log: list[str], wired: None, fixture: str
) -> None:
    test = f"import os\ndef test_a({fixture}): assert os.path.exists('mended')\ndef test_b(lab): assert 0\n"
    run(pytester, test).assert_outcomes(failed=2)
    assert len(captures(pytester, ".")) == 2
    (pytester.path / "mended").touch()
    run(pytester, test).assert_outcomes(passed=1, failed=1)
    assert [name.split(".")[1] for name in captures(pytester, ".")] == ["test_b"]


def test_a_fixture_that_fails(pytester: pytest.Pytester, log: list[str], wired: None) -> None:
    tests = (
        "@pytest.fixture\ndef it(lab):\n    lab.cluster.say('set up')\n    assert 0\ndef test_a(it): pass\n"
    )
    run(pytester, tests).assert_outcomes(errors=1)
    (content,) = captures(pytester, ".").values()
    assert b"set up" in content


def test_a_folder_that_cannot_be_written_is_no_other_failure(
    pytester: pytest.Pytester, log: list[str], wired: None
) -> None:
    (pytester.path / "captures").write_text("in the way")
    result = run(pytester, "def test_a(lab): raise errors.CheckFailed('found')\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["found", "packets: not written: *"])
