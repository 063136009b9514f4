"""A lab's packages and files that are not there: errors with file and line, before anything boots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lvslab.cluster import node_image, prepare
from lvslab.errors import LabFileError, MachineError
from lvslab.guest import image
from lvslab.guest.additions import Additions, PathTaken
from lvslab.guest.formats import FILE, PROGRAM
from lvslab.guest.image import Image
from lvslab.kernel.find import Kernel
from lvslab.lab import loader
from lvslab.lab.model import Lab

LAB = """\
title: One
networks:
  lan: {subnet: 10.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    packages: [socat, nosuch]
    files:
      /etc/plain: plain
      /usr/local/bin/program: program
    interfaces:
      eth0: {network: lan, address: 10.0.0.1}
"""
KERNEL = Kernel("debian-cloud", "6.1.0", Path("/k"), "sum", None)
REFUSAL = "apt cannot get what a guest is made of"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "lab.yaml").write_text(LAB)
    (tmp_path / "plain").write_text("text")
    (tmp_path / "program").write_text("#!/bin/sh\n")
    (tmp_path / "program").chmod(0o700)
    return loader.load(tmp_path)


def build(lab: Lab, kernel: Kernel = KERNEL) -> Image:
    return node_image.build(lab, "director", kernel, "")


def test_what_the_image_gets(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Additions]()

    def made(kernel: Kernel, ipvsadm: str, more: Additions, *, python: bool) -> Image:
        asked.append(more)
        return Image(Path("/image"), "key", {}, more_memory=20)

    monkeypatch.setattr(image, "build", made)
    assert prepare.boot_of(KERNEL, build(lab)).memory == 212
    assert asked[0].packages == ("socat", "nosuch")
    modes = {path: (entry.mode, entry.content) for path, entry in asked[0].files.items()}
    assert modes == {
        "/etc/plain": (FILE, b"text"),
        "/usr/local/bin/program": (PROGRAM, b"#!/bin/sh\n"),
    }


@pytest.mark.parametrize(
    "said",
    [
        "E: Unable to locate package nosuch",
        "E: Package 'nosuch' has no installation candidate",
        "E: Couldn't find any package by glob 'nosuch'",
    ],
)
def test_a_package_that_does_not_exist(lab: Lab, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def refused(*_: object, python: bool) -> Image:
        raise MachineError(REFUSAL, said)

    monkeypatch.setattr(image, "build", refused)
    with pytest.raises(
        LabFileError,
        match=r"lab\.yaml:8: nodes\.director\.packages\[1\]: the distribution has no package nosuch",
    ):
        build(lab)


def test_another_trouble_of_apt(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, python: bool) -> Image:
        raise MachineError(REFUSAL, "E: Unable to locate package dash")

    monkeypatch.setattr(image, "build", refused)
    with pytest.raises(MachineError, match=REFUSAL):
        build(lab)


def test_a_path_that_is_taken(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, python: bool) -> Image:
        raise PathTaken("/etc/plain")

    monkeypatch.setattr(image, "build", refused)
    with pytest.raises(
        LabFileError, match=r"lab\.yaml:10: nodes\.director\.files\./etc/plain: /etc/plain is lvslab's own"
    ):
        build(lab)


def test_a_file_that_is_not_there(lab: Lab) -> None:
    (lab.folder / "program").unlink()
    with pytest.raises(
        LabFileError, match=r"lab\.yaml:11: nodes\.director\.files\S+: .*program is not there"
    ):
        build(lab)
    (lab.folder / "program").mkdir()
    with pytest.raises(
        LabFileError, match=r"lab\.yaml:11: nodes\.director\.files\S+: .*program is not a file"
    ):
        build(lab)


def test_a_link_that_leads_to_itself(lab: Lab) -> None:
    (lab.folder / "plain").unlink()
    (lab.folder / "plain").symlink_to("plain")
    with pytest.raises(LabFileError, match=r"lab\.yaml:10: nodes\.director\.files\S+: .*plain"):
        build(lab)


def test_a_link_that_leads_out_of_the_folder(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "file"
    other.write_text("text")
    (lab.folder / "plain").unlink()
    (lab.folder / "plain").symlink_to(other)
    with pytest.raises(
        LabFileError, match=r"lab\.yaml:10: nodes\.director\.files\./etc/plain: the file plain is a link to"
    ):
        build(lab)


def test_an_old_kernel_runs_no_packages(lab: Lab) -> None:
    old = replace(KERNEL, release="2.6.18", userland="musl-i386")
    with pytest.raises(
        LabFileError, match=r"lab\.yaml:8: nodes\.director\.packages: director has Linux 2\.6\.18, on which"
    ):
        build(lab, old)
