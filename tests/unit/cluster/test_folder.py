"""A lab's folder is read anew whenever something in it, or in the rules for it, has changed."""

from __future__ import annotations

import sys
from dataclasses import make_dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from lvslab.apply import howto
from lvslab.cluster import folder as lab_folder
from lvslab.errors import LabFileError
from lvslab.lab import loader, model
from lvslab.lab.model import Lab

LAB = """
title: for a test
networks: {lan: {subnet: 10.0.0.0/24}}
nodes:
  director:
    role: director
    kernel: debian-cloud
    interfaces: {eth0: {network: lan, address: 10.0.0.1}}
  web:
    role: real-server
    interfaces: {eth0: {network: lan, address: 10.0.0.2, gateway: 10.0.0.1}}
    services: [{kind: http}]
"""
HOWTO = """
```sh node=director
true
```
```sh node=director known-failure="too new" known-failure-on="kernel>=2.6,<5.10"
false
```
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "my-lab"
    folder.mkdir()
    (folder / "lab.yaml").write_text(LAB)
    (folder / "howto.md").write_text(HOWTO)
    return folder


@pytest.fixture
def no_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a file after this is found out."""
    for module, name in ((loader, "load"), (howto, "load")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it was read again"))


def test_what_is_remembered_is_what_was_read(folder: Path, request: pytest.FixtureRequest) -> None:
    lab = lab_folder.lab(folder)
    steps = lab_folder.steps(folder, lab)
    assert lab_folder.title_and_size(folder) == ("for a test", 2)
    assert lab == loader.load(folder)
    assert steps == howto.load(folder / "howto.md", lab.nodes)
    request.getfixturevalue("no_readers")
    assert lab_folder.lab(folder) == lab
    assert lab_folder.steps(folder, lab) == steps
    assert lab_folder.title_and_size(folder) == ("for a test", 2)
    assert steps[1].expects_failure({"kernel": "2.6.32"})
    assert not steps[1].expects_failure({"kernel": "6.1.0-56-cloud-amd64"})


def test_a_change_is_seen(folder: Path) -> None:
    lab = lab_folder.lab(folder)
    lab_folder.title_and_size(folder)
    (folder / "lab.yaml").write_text(LAB.replace("10.0.0.2,", "10.0.0.3,").replace("web:", "www:"))
    changed = lab_folder.lab(folder)
    assert str(changed.nodes["www"].addresses[0]) == "10.0.0.3"
    assert len(lab_folder.steps(folder, changed)) == 2
    (folder / "lab.yaml").write_text(LAB.replace("for a test", "changed"))
    assert lab_folder.title_and_size(folder) == ("changed", 2)
    (folder / "howto.md").write_text(HOWTO.replace("true", "true\ntrue"))
    assert len(lab_folder.steps(folder, lab)) == 3


def test_a_mistake_is_told_every_time(folder: Path) -> None:
    lab = lab_folder.lab(folder)
    (folder / "lab.yaml").write_text(LAB.replace("director:\n    role", "director:\n    rule"))
    (folder / "howto.md").write_text(HOWTO.replace("node=director", "node=directer", 1))
    for _ in range(2):
        with pytest.raises(LabFileError, match=r"lab\.yaml:6: "):
            lab_folder.lab(folder)
        with pytest.raises(LabFileError, match=r"lab\.yaml:6: "):
            lab_folder.title_and_size(folder)
        with pytest.raises(LabFileError, match=r"howto\.md:2: "):
            lab_folder.steps(folder, lab)
    (folder / "lab.yaml").unlink()
    (folder / "howto.md").unlink()
    with pytest.raises(LabFileError, match=r"lab\.yaml: cannot be read: No such file"):
        lab_folder.lab(folder)
    with pytest.raises(LabFileError, match=r"howto\.md: cannot be read: No such file"):
        lab_folder.steps(folder, lab)


def test_steps_are_of_nodes_that_there_are(folder: Path) -> None:
    lab_folder.steps(folder, lab_folder.lab(folder))
    (folder / "lab.yaml").write_text(LAB.replace("  director:", "  balancer:"))
    with pytest.raises(LabFileError, match="no node 'director'"):
        lab_folder.steps(folder, lab_folder.lab(folder))


def test_a_lab_that_moves_or_shares_a_file_knows_where_it_is(folder: Path) -> None:
    lab_folder.lab(folder)
    other = folder.with_name("other")
    other.mkdir()
    (other / "lab.yaml").symlink_to(folder / "lab.yaml")
    assert (lab_folder.lab(other).name, lab_folder.lab(other).folder) == ("other", other)
    assert (lab_folder.lab(folder).name, lab_folder.lab(folder).folder) == ("my-lab", folder)
    moved = folder.rename(folder.with_name("moved"))
    assert lab_folder.lab(moved).folder == moved


def test_other_rules_or_another_python_read_for_themselves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_folder.lab(folder)
    lab_folder.steps(folder, lab)
    monkeypatch.setattr(howto, "load", lambda *_: "read again")
    monkeypatch.setattr(loader, "load", lambda _: "read again")
    assert lab_folder.lab(folder) == lab
    with monkeypatch.context() as other_rules:
        other_rules.setattr(lab_folder, "_FORMAT", lab_folder._FORMAT + 1)
        assert lab_folder.steps(folder, lab) == "read again"
    monkeypatch.setattr(sys, "version", "another")
    assert lab_folder.lab(folder) == "read again"


def test_what_is_read_is_the_same_until_the_format_is_raised(folder: Path) -> None:
    """What was remembered by other rules would be taken for what these rules come to."""
    lab = lab_folder.lab(folder)
    found = repr((replace(lab, folder=Path("somewhere")), lab_folder.steps(folder, lab)))
    pinned = (6, "cea06eb2d356b046")
    assert (lab_folder._FORMAT, sha256(found.encode()).hexdigest()[:16]) == pinned, (
        "raise _FORMAT in lvslab/cluster/folder.py, and pin both here"
    )


def test_a_field_more_is_another_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    before = lab_folder.shape_of(Lab)
    assert "real_servers" not in before and "subnet" in before
    monkeypatch.setattr(model, "Extra", make_dataclass("Extra", ["more"]), raising=False)
    assert lab_folder.shape_of(Lab) != before
