"""The report of a real run, and what is said of two of them between which a lab was broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from lvslab import paths

if TYPE_CHECKING:
    from tests.lab.conftest import Runner

KERNEL = "debian-cloud"
TEST = """
import pytest
from lvslab.check import verdict


def test_sequence(lab):
    taken = lab.round(count=6)
    verdict.sequence_matches(taken.forecast, taken.observed)


def test_table(lab):
    verdict.table_matches(lab.table_of_steps(), lab.reading().rules)


def test_of_the_future(lab):
    pytest.skip("no kernel has it yet")
"""
FORWARDS = 'prints="net.ipv4.ip_forward = 1"\nsysctl -p\n'
DOES_NOT = "\nsysctl -w net.ipv4.ip_forward=0\n"


@pytest.mark.slow
def test_a_lab_that_was_broken_is_what_changed(run: Runner, tmp_path: Path) -> None:
    lab, old, new = tmp_path / "lab", str(tmp_path / "old"), str(tmp_path / "new")
    shutil.copytree(paths.labs() / "web-nat", lab, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (lab / "test_it.py").write_text(TEST)
    words = ("matrix.run", "--kernels", KERNEL, "--labs", str(lab), "--seed", "7", "--workers", "1")
    run(*words, "--output", old)
    howto = (lab / "howto.md").read_text()
    assert FORWARDS in howto
    (lab / "howto.md").write_text(howto.replace(FORWARDS, DOES_NOT))
    run(*words, "--output", new, status=1)

    # The change is seen, with its reason, and is of the lab: nothing else differs.
    found = json.loads(run("matrix.compare", old, new, "--json", status=1).stdout)
    assert (found["cells"], found["counts"]["worse"]) == (1, 1)
    (worse,) = [change for change in found["changes"] if change["kind"] == "worse"]
    assert (worse["check"], worse["old"], worse["new"]) == ("test_sequence", "passed", "failed")
    assert "ip_forward is 0 on the director" in worse["message"]
    assert worse["cause"]["of"] == ["lab"]
    assert json.loads(run("matrix.compare", old, old, "--json").stdout)["changes"] == []

    # The page has it all, and the links of the page lead to files.
    junit = tmp_path / "junit.xml"
    run("matrix.report", new, "--junit", str(junit))
    page = (Path(new) / "report.html").read_text()
    for text in (
        "no answer from 66.199.240.50:80",
        "ip_forward is 0 on the director",
        "no kernel has it yet",
        "ipvsadm -A -t 66.199.240.50:80 -s wlc",
        "the end of console-director.log",
        "--seed 7",
    ):
        assert text in page, text
    (suite,) = ElementTree.parse(junit).getroot()
    assert [suite.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]
    about = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert {"kernel-version", "ipvsadm-version", "kernel-sha256", "lab-sha256", "seed"} <= about.keys()
