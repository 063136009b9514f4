from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from invoke import Collection

from lvslab import paths
from lvslab.apply.shell import ShellResult
from lvslab.apply.verdicts import StepVerdict
from lvslab.cli.command_line import names_in
from lvslab.cli.program import LabProgram
from lvslab.cli.tasks import howto as tasks
from lvslab.cli.text import howto
from lvslab.cluster import cluster
from lvslab.errors import BootError, LabFileError, MachineError, UsageError
from lvslab.howto import verify as howto_verify
from lvslab.howto.results import OnKernel, Verified
from lvslab.howto.verify import Listeners, verify
from lvslab.lab.directors import DirectorSpec
from lvslab.outcome import STEPS, Outcome
from tests.unit.fake_cluster import FakeCluster

LAB = """
title: for a test
networks: {lan: {subnet: 10.0.0.0/24}}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
"""
HOWTO = """
```sh
apt install ipvsadm
```
```sh node=director known-failure="refused" known-failure-on="kernel>=6"
drop
```
```sh node=director
add
list
```
"""
RELEASES = {"": "6.1.0-50-cloud-amd64", "2.4.37.11": "2.4.37.11", "debian-6.12": "6.12.9"}


def results(release: str) -> dict[str, ShellResult | BaseException]:
    """Return how the steps end: ``drop`` is refused since 6.0, ``add`` fails on 2.4."""
    fails = {"drop": release.startswith("6"), "add": release.startswith("2.4"), "list": False}
    return {
        command: ShellResult(f"{command} says \x1b[1m<so>\n", int(failed), 0.25)
        for command, failed in fails.items()
    }


@dataclass
class Labs:
    """Stands in for ``cluster.booted``; a kernel called "dead" does not come up."""

    state: Path
    booted: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def __call__(
        self, folder: Path, *, spec: DirectorSpec, **more: Any
    ) -> AbstractContextManager[FakeCluster]:
        @contextmanager
        def boot() -> Iterator[FakeCluster]:
            kernel = spec.kernel
            # One lab at a time.
            assert self.booted == self.ended
            self.booted.append(kernel)
            try:
                if kernel == "dead":
                    raise BootError("director did not come up\n  Kernel panic", "look at its console")
                evidence = self.state / (kernel or "default")
                evidence.mkdir()
                versions = {"kernel": RELEASES[kernel], "iptables": "1.8.9", "ipvsadm": "1.31"}
                yield FakeCluster(
                    steps=more["steps"],
                    evidence=evidence,
                    versions=versions,
                    results=results(versions["kernel"]),
                )
            finally:
                self.ended.append(kernel)

        return boot()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "mine.md").write_text(HOWTO)
    return tmp_path / "mine.md"


@pytest.fixture(autouse=True)
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "state").mkdir()
    labs = Labs(tmp_path / "state")
    monkeypatch.setattr(cluster, "booted", labs)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("lvslab.kernel.find.find", known)
    return labs


def known(name: str) -> None:
    if name not in (*RELEASES, "dead"):
        raise UsageError(f"no kernel '{name}'")


def verdicts(run: OnKernel) -> list[str]:
    return [STEPS.word(step.verdict) + ("?" if step.doubtful else "") for step in run.steps]


def test_a_how_to_on_the_kernel_of_its_lab(own: Path, labs: Labs) -> None:
    result = verify(str(own))
    assert (result.file, result.untyped, result.exit_code) == (str(own), (2,), 0)
    (run,) = result.runs
    assert verdicts(run) == ["expected failure", "ok", "ok"]
    assert (run.label, run.accelerator, run.error) == ("6.1.0-50-cloud-amd64", "tcg", "")
    assert labs.ended == [""]
    evidence = Path(run.evidence)
    assert (evidence / "howto.md").read_text() == HOWTO
    assert json.loads((evidence / "verdicts.json").read_text()) == json.loads(json.dumps(run.as_json()))
    assert len((evidence / "transcript.jsonl").read_text().splitlines()) == 3
    assert len(list(ElementTree.parse(evidence / "junit.xml").iter("testcase"))) == 4


def test_kernels_come_one_after_the_other_and_all_are_heard_of(own: Path, labs: Labs) -> None:
    heard: list[Any] = []
    listeners = Listeners(kernel=heard.append, step=lambda step: heard.append(STEPS.word(step.verdict)))
    result = verify(str(own), kernels=["debian-6.12", "2.4.37.11"], listeners=listeners)
    assert labs.ended == ["debian-6.12", "2.4.37.11"]
    assert heard == ["debian-6.12", "expected failure", "ok", "ok", "2.4.37.11", "ok", "failed", "ok"]
    assert [verdicts(run) for run in result.runs][1] == ["ok", "failed", "ok?"]
    assert result.exit_code == 5


def test_a_lab_that_does_not_come_up_keeps_no_other_kernel_from_being_tried(own: Path, labs: Labs) -> None:
    result = verify(str(own), kernels=["dead", "debian-6.12"])
    assert labs.ended == ["dead", "debian-6.12"]
    dead, alive = result.runs
    assert verdicts(dead) == ["not run"] * 3
    assert dead.steps[0].reason == "the lab did not come up: director did not come up"
    assert "look at its console" in dead.error
    assert (dead.exit_code, alive.exit_code, result.exit_code) == (4, 0, 4)
    text = howto.verified(result)
    assert "dead: the lab did not come up\n  director did not come up" in text
    # A failed step is what a how-to's author asks for, whatever else there was.
    assert verify_all(own, labs, "dead", "2.4.37.11").exit_code == 5


def verify_all(own: Path, labs: Labs, *kernels: str) -> Verified:
    labs.state = labs.state / "again"
    labs.state.mkdir()
    return verify(str(own), kernels=kernels)


def test_a_step_that_was_not_run_is_no_success() -> None:
    lost = StepVerdict(1, "director", 3, "a", Outcome.NOT_RUN, "no login on director: it hangs")
    assert OnKernel("", {}, "tcg", "", 0.0, (lost,)).exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernels": ["2.4.37.11", "nope"]}, "no kernel 'nope'"),
        ({"kernels": ["2.4.37.11", "2.4.37.11"]}, "the kernel 2.4.37.11 is given twice"),
        ({"lab": "nope"}, "there is no lab 'nope'"),
        ({"reports": {"junit": Path("/no/such/folder/junit.xml")}}, "there is no folder /no/such/folder"),
        ({"reports": {"junit": Path("/")}}, "/ cannot be written: it is a folder"),
    ],
)
def test_wrong_usage_is_found_before_anything_is_booted(
    own: Path, labs: Labs, arguments: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        verify(str(own), **arguments)
    assert labs.booted == []


def test_a_text_without_a_step(own: Path, labs: Labs) -> None:
    own.write_text("# Mine\n\n```sh\nls\n```\n")
    with pytest.raises(LabFileError, match=r"mine\.md: no block of it is typed") as caught:
        verify(str(own))
    assert "node=NAME; the nodes of the lab" in str(caught.value.hint)
    assert "director" in str(caught.value.hint)


def test_a_node_that_the_lab_has_not(own: Path, labs: Labs) -> None:
    own.write_text("```sh node=directr\nls\n```\n")
    with pytest.raises(LabFileError, match=r"mine\.md:1: no node 'directr'"):
        verify(str(own))


def test_labs_need_root(own: Path, labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="labs need root"):
        verify(str(own))
    assert labs.booted == []


def test_kernels_may_be_given_together_and_apart(tmp_path: Path) -> None:
    odd, folder = tmp_path / "my, own bzImage", tmp_path / "my labs"
    odd.touch()
    folder.mkdir()
    given = ["2.4.37.11,2.6.18", "debian-cloud", str(odd), "a b", str(folder)]
    assert names_in(given) == ["2.4.37.11", "2.6.18", "debian-cloud", str(odd), "a", "b", str(folder)]
    assert names_in(None) == []


def test_the_command_line_takes_kernels_more_than_once() -> None:
    program = LabProgram(Collection(tasks.group))
    program.create_config()
    program.normalize_argv(
        ["run", "howto.verify", "mine.md", "--kernel", "2.4.37.11,2.6.18", "--kernel", "6.1"]
    )
    program.parse_core_args()
    program.parse_collection()
    program.parse_tasks()
    (command,) = program.tasks
    assert command.args["path"].value == "mine.md"
    assert names_in(command.args["kernel"].value) == ["2.4.37.11", "2.6.18", "6.1"]


# --- what comes of it -------------------------------------------------------------------------------------


def test_junit(own: Path, labs: Labs, tmp_path: Path) -> None:
    file = tmp_path / "all.xml"
    verify(str(own), kernels=["debian-6.12", "2.4.37.11", "dead"], reports={"junit": file})
    new, old, dead = ElementTree.parse(file).getroot()
    assert [suite.get("name") for suite in (new, old, dead)] == [
        f"{own} on {kernel}" for kernel in ("debian-6.12", "2.4.37.11", "dead")
    ]
    keys = ("tests", "failures", "errors", "skipped")
    assert [[suite.get(key) for key in keys] for suite in (new, old, dead)] == [
        ["4", "0", "0", "1"],
        ["4", "1", "0", "0"],
        ["4", "0", "1", "3"],
    ]
    known_failure = new.findall("testcase")[1]
    skipped = known_failure.find("skipped")
    assert skipped is not None
    assert (skipped.get("type"), skipped.get("message")) == ("expected failure", "refused")
    assert known_failure.get("name") == "step 1, line 6, on director: drop"
    # Control characters are no XML.
    assert known_failure.findtext("system-out") == "director# drop\ndrop says \\x1b[1m<so>\n"
    failed, doubtful = old.findall("testcase")[2:]
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message") == "ended with status 1, and status 0 was expected"
    assert "doubtful: step 2 went wrong before it" in str(doubtful.findtext("system-out"))
    error = dead.findall("testcase")[0].find("error")
    assert error is not None
    assert "Kernel panic" in str(error.text)
    properties = {one.get("name"): one.get("value") for one in old.iter("property")}
    assert properties["kernel-version"] == "2.4.37.11"
    assert properties["howto"] == str(own)


def test_what_is_printed_of_one_kernel(own: Path, labs: Labs) -> None:
    text = howto.verified(verify(str(own), kernels=["2.4.37.11"]))
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == f"{own}: 3 steps, in the lab {own.parent.name}"
    rows = [line.split() for line in lines]
    assert ["1", "6", "director", "ok", "0.25", "drop"] in rows
    assert ["2", "9", "director", "FAILED", "0.25", "add"] in rows
    assert ["3", "10", "director", "ok?", "0.25", "list"] in rows
    assert "step 2, failed on 2.4.37.11: ended with status 1, and status 0 was expected" in lines
    assert "    add says \\x1b[1m<so>" in lines
    assert any(line.startswith("?: ") for line in lines)
    assert not any(line.startswith("expected: ") for line in lines)
    assert "lines 2" in text
    assert f"evidence: {labs.state}/2.4.37.11" in lines


def test_several_kernels_are_columns(own: Path, labs: Labs) -> None:
    text = howto.verified(verify(str(own), kernels=["debian-6.12", "2.4.37.11", "dead"]))
    rows = [line.split() for line in text.splitlines()]
    assert ["step", "debian-6.12", "2.4.37.11", "dead"] in rows
    assert ["1", "expected", "ok", "not", "run"] in rows
    assert ["2", "ok", "FAILED", "not", "run"] in rows
    assert "step 1, expected failure on debian-6.12: refused" in text
    assert "expected: failed as the how-to says" in text


def test_the_document(own: Path, labs: Labs) -> None:
    document = json.loads(json.dumps(verify(str(own)).as_json()))
    assert list(document) == ["howto", "lab", "untyped", "kernels"]
    (run,) = document["kernels"]
    assert list(run["counts"].items()) == [("ok", 2), ("failed", 0), ("expected failure", 1), ("not run", 0)]
    usage = (paths.PROJECT / "docs/usage.md").read_text()
    section = usage[usage.index("### howto.verify") : usage.index("## Kernels\n")]
    assert not [key for key in run if f"| `{key}` |" not in section]
    assert not [key for key in run["steps"][0] if f"`{key}`" not in section]


def test_what_it_reads(own: Path) -> None:
    found = howto_verify.load("web-nat")
    assert found.source.file == paths.labs() / "web-nat/howto.md"
    assert (found.lab.name, len(found.steps) > 5, found.untyped) == ("web-nat", True, ())
    listener: Callable[[str], None] = Listeners().kernel
    listener("nobody hears")
