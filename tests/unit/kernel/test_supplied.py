from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lvslab.errors import BuildError, UsageError
from lvslab.kernel import build as kernel_build
from lvslab.kernel import store, supplied
from lvslab.kernel.sources import rpm
from tests.unit.kernel.images import RELEASE, image

MODULE = "net/netfilter/ipvs/ip_vs.ko"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree of Linux 6.1.9 that was built."""
    top = tmp_path / "linux"
    files = {
        "Makefile": b"VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 9\nEXTRAVERSION =\n",
        "init/main.c": b"int main;\n",
        "net/netfilter/ipvs/ip_vs_core.c": b"int x;\n",
        ".config": b"CONFIG_IP_VS=m\n",
        MODULE: b"\x7fELF ip_vs",
        "net/netfilter/ipvs/ip_vs.mod.c": b"/* of modpost */",
        "include/generated/utsrelease.h": b"#define",
        "arch/x86/boot/bzImage": image(),
    }
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
        os.utime(top / name, (1000, 1000))
    for product in (MODULE, "net/netfilter/ipvs/ip_vs.mod.c", "include/generated/utsrelease.h"):
        os.utime(top / product, (2000, 2000))  # modules are built after the image
    return top


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of kernel.build, which builds nothing here."""
    asked: list[Any] = []

    def build(version: str, **options: Any) -> Any:
        asked.append((version, options))
        raise BuildError("not here")

    monkeypatch.setattr(kernel_build, "build", build)
    return asked


@pytest.mark.parametrize("path", ["", "arch/x86/boot/bzImage"])
def test_what_was_built_in_a_tree_is_taken_with_its_modules(tree: Path, path: str) -> None:
    name, what = supplied.usable(tree / path)
    built = store.find(name)
    assert built is not None
    assert what == f"Linux {RELEASE}, {tree / path}"
    assert (built.modules / "kernel" / MODULE).read_bytes() == b"\x7fELF ip_vs"
    assert not (built.modules / "kernel" / MODULE).is_symlink()
    assert built.config.read_text() == "CONFIG_IP_VS=m\n"


def test_what_was_built_before_the_tree_changed_is_not_taken(tree: Path) -> None:
    changed = tree / "net/netfilter/ipvs/ip_vs_core.c"
    os.utime(changed, (3000, 3000))
    with pytest.raises(UsageError, match=f"{changed} is newer than .*bzImage\n  .*--build"):
        supplied.usable(tree)


def test_a_tree_is_built_where_nothing_was_or_where_that_is_asked_for(
    tree: Path, builds: list[Any], tmp_path: Path
) -> None:
    config = tmp_path / "more.config"
    for options in ({"build": True}, {"config": config}):
        with pytest.raises(BuildError):
            supplied.usable(tree, **options)  # type: ignore[arg-type]
    (tree / "arch/x86/boot/bzImage").unlink()
    with pytest.raises(BuildError):
        supplied.usable(tree, jobs=3)
    assert builds == [
        ("6.1.9", {"tree": tree, "config": None, "jobs": None}),
        ("6.1.9", {"tree": tree, "config": config, "jobs": None}),
        ("6.1.9", {"tree": tree, "config": None, "jobs": 3}),
    ]


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(image())
    path = str(tmp_path / "vmlinuz")
    assert supplied.usable(tmp_path / "vmlinuz") == (path, f"Linux {RELEASE}, {path}")


def test_a_folder_of_the_store_is_taken_as_it_is(tree: Path) -> None:
    name, _ = supplied.usable(tree)
    place = store.folder() / name
    assert supplied.usable(place) == (str(place), f"Linux {RELEASE}, {place}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no"),
        (lambda path: path.write_bytes(b"MZ"), "is not a kernel"),
        (lambda path: path.mkdir(), "is not a source tree of Linux"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "it")
    with pytest.raises(UsageError, match=said):
        supplied.usable(tmp_path / "it")


# --- RPM ---------------------------------------------------------------------------------------------------

needs_rpm = pytest.mark.skipif(
    not (shutil.which("rpmbuild") and shutil.which("rpm2cpio")), reason="there is no rpmbuild or no rpm2cpio"
)
SPEC = """\
%global __os_install_post %{nil}
Name: kernel
Version: 1
Release: 1
Summary: Some files
License: none
BuildArch: noarch
AutoReqProv: no
%description
%install
cp -r %{content}/. %{buildroot}
%files
/*
"""


def package(path: Path, files: dict[str, bytes]) -> Path:
    """An RPM package of ``files``."""
    work = path.with_name(f"making-{path.name}")
    for name, content in files.items():
        (work / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "files" / name).write_bytes(content)
    (work / "kernel.spec").write_text(SPEC)
    defined = {"_topdir": work, "_rpmdir": work, "_rpmfilename": path.name, "content": work / "files"}
    options = [word for name, value in defined.items() for word in ("--define", f"{name} {value}")]
    subprocess.run(["rpmbuild", "-bb", *options, work / "kernel.spec"], check=True, capture_output=True)
    return (work / path.name).rename(path)


@needs_rpm
@pytest.mark.parametrize("image_path", ["boot/vmlinuz-" + RELEASE, f"lib/modules/{RELEASE}/vmlinuz"])
def test_a_kernel_of_an_rpm(tmp_path: Path, image_path: str) -> None:
    files = {
        image_path: image(),
        f"lib/modules/{RELEASE}/kernel/{MODULE}": b"\x7fELF ip_vs",
        f"lib/modules/{RELEASE}/config": b"CONFIG_IP_VS=m\n",
    }
    name, what = supplied.usable(package(tmp_path / "kernel.rpm", files))
    built = store.find(name)
    assert built is not None
    assert what == f"Linux {RELEASE}, {tmp_path / 'kernel.rpm'}"
    assert (built.modules / "kernel" / MODULE).read_bytes() == b"\x7fELF ip_vs"
    assert built.config.read_text() == "CONFIG_IP_VS=m\n"


@needs_rpm
def test_an_rpm_without_a_kernel_or_without_its_modules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has no vmlinuz in it"):
        supplied.usable(package(tmp_path / "a.rpm", {"etc/motd": b"hello"}))
    with pytest.raises(UsageError, match="has a kernel, and no modules of it"):
        supplied.usable(package(tmp_path / "b.rpm", {f"boot/vmlinuz-{RELEASE}": image()}))


@needs_rpm
def test_an_rpm_that_is_damaged(tmp_path: Path) -> None:
    whole = package(tmp_path / "whole.rpm", {"etc/motd": os.urandom(5000)}).read_bytes()
    for content in (b"nothing of the kind", whole[:-2000]):
        (tmp_path / "kernel.rpm").write_bytes(content)
        with pytest.raises(BuildError, match=r"kernel\.rpm is not a whole RPM package"):
            rpm.unpack(tmp_path / "kernel.rpm", tmp_path)
