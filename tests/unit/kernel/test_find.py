from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab.cache import store
from lvslab.debian import kernels as releases
from lvslab.debian.kernels import KernelPackages
from lvslab.errors import BuildError, LvsLabError, UsageError
from lvslab.kernel import find, imports
from tests.unit.kernel.images import RELEASE, bzimage


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_bzimage(tmp_path: Path) -> None:
    file = tmp_path / "bzImage"
    file.write_bytes(bzimage())
    found = find.find(str(file))
    assert (found.name, found.release, found.image) == (str(file), RELEASE, file)
    assert found.sha256 == hashlib.sha256(bzimage()).hexdigest()
    assert found.module_source is None
    assert found.needed_modules() == ()


def test_a_kernel_is_read_again_only_where_it_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = tmp_path / "bzImage", list[Path]()
    really = store.sha256

    def reads(path: Path) -> str:
        read.append(path)
        return really(path)

    def checksum() -> str:
        return find.find(str(file)).sha256

    monkeypatch.setattr(store, "sha256", reads)
    file.write_bytes(bzimage())
    now = time.time_ns()
    # One that was written just now may be written once more before its times change.
    monkeypatch.setattr(time, "time_ns", lambda: now)
    assert checksum() == checksum() == hashlib.sha256(bzimage()).hexdigest()
    assert len(read) == 2
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**10)
    assert checksum() == checksum() == hashlib.sha256(bzimage()).hexdigest()
    assert len(read) == 3
    other = bzimage(code=b"CODE")
    about = file.stat()
    file.unlink()
    file.write_bytes(other)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert checksum() == checksum() == hashlib.sha256(other).hexdigest()
    assert len(read) == 4


def test_a_path_from_here_is_one_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bzImage").write_bytes(bzimage())
    monkeypatch.chdir(tmp_path)
    assert find.find("bzImage").image == tmp_path / "bzImage"


def test_a_kernel_of_the_store_comes_before_what_is_called_so_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "made/bzImage").write_bytes(bzimage())
    built = imports.take(tmp_path / "made/bzImage")
    (tmp_path / "6.1.9").mkdir()
    assert find.find("6.1.9").image == built.image
    with pytest.raises(UsageError):
        find.find("./6.1.9")


def test_modules_beside_a_bzimage(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(bzimage())
    modules = tmp_path / "lib/modules" / RELEASE
    (modules / "kernel/net/netfilter").mkdir(parents=True)
    module = modules / "kernel/net/netfilter/nf_nat.ko"
    module.write_bytes(b"\0depends=\0")
    found = find.find(str(tmp_path / "bzImage"))
    assert found.module_source == modules
    assert [needed.name for needed in found.needed_modules()] == ["nf_nat"]


def test_a_new_module_beside_an_old_kernel_makes_another_image(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(bzimage())
    module = tmp_path / "lib/modules" / RELEASE / "kernel/net/netfilter/ip_vs.ko"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\0depends=\0")
    before = find.find(str(tmp_path / "bzImage")).modules_key
    assert find.find(str(tmp_path / "bzImage")).modules_key == before
    module.write_bytes(b"\0depends=\0 with a change")
    assert find.find(str(tmp_path / "bzImage")).modules_key != before


def test_a_package(tmp_path: Path, cache: Path, make_deb: Callable[..., Path]) -> None:
    package = make_deb(
        {
            f"boot/vmlinuz-{RELEASE}": bzimage(),
            f"boot/config-{RELEASE}": b"",
            f"lib/modules/{RELEASE}/kernel/net/netfilter/nf_nat.ko": b"\0depends=\0",
        },
        name=f"linux-image-{RELEASE}",
    )
    found = find.find(str(package))
    assert (found.name, found.release, found.module_source) == (str(package), RELEASE, package)
    assert found.image.read_bytes() == bzimage()
    assert found.image.is_relative_to(cache)
    assert [needed.name for needed in found.needed_modules()] == ["nf_nat"]
    assert find.find(str(package)) == found


def test_a_package_that_was_built_anew_under_its_old_name(make_deb: Callable[..., Path]) -> None:
    find.find(str(make_deb({"boot/vmlinuz-6.1": bzimage("6.1 #1", b"old")})))
    new = find.find(str(make_deb({"boot/vmlinuz-6.1": bzimage("6.1 #2", b"new one")})))
    assert new.image.read_bytes().endswith(b"new one")


def test_a_package_in_which_only_a_module_is_new(make_deb: Callable[..., Path]) -> None:
    module = f"lib/modules/{RELEASE}/kernel/net/netfilter/ip_vs.ko"
    boot = {f"boot/vmlinuz-{RELEASE}": bzimage()}
    before = find.find(str(make_deb({**boot, module: b"\0depends=\0"}))).modules_key
    after = find.find(str(make_deb({**boot, module: b"\0depends=\0 with a change"}))).modules_key
    assert after != before


@pytest.mark.parametrize("kernels", [0, 2])
def test_a_package_that_does_not_hold_one_kernel(make_deb: Callable[..., Path], kernels: int) -> None:
    files = {f"boot/vmlinuz-{number}": bzimage() for number in range(kernels)}
    package = make_deb({"boot/config": b"", **files})
    with pytest.raises(LvsLabError, match=rf"holds {kernels} kernels where there should be one"):
        find.find(str(package))


def test_a_damaged_package(make_deb: Callable[..., Path]) -> None:
    package = make_deb({"boot/vmlinuz-6.1": bzimage()})
    package.write_bytes(package.read_bytes()[:5000])
    with pytest.raises(BuildError, match=r"\.deb is not a whole Debian package"):
        find.find(str(package))


def test_a_package_whose_kernel_is_none(make_deb: Callable[..., Path]) -> None:
    package = make_deb({"boot/vmlinuz-6.1": b"text"})
    for _ in range(2):
        with pytest.raises(UsageError, match="is not a kernel: it has no Linux boot header"):
            find.find(str(package))


@pytest.mark.parametrize(
    "content", [b"", b"no kernel\n", bytes(0x4000), b"\x7fELF" + bytes(0x4000), bzimage()[:0x204]]
)
def test_a_file_that_is_no_kernel(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        find.find(str(tmp_path / "file"))
    assert str(caught.value) == (
        f"{tmp_path / 'file'} is not a kernel: it has no Linux boot header\n"
        "  give a bzImage (vmlinuz) for x86"
    )


@pytest.mark.parametrize(
    "content", [bzimage(""), bzimage()[:0x2E00], bzimage("6.1/../../etc"), bzimage("x")]
)
def test_a_kernel_without_a_version(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bzImage").write_bytes(content)
    with pytest.raises(UsageError, match="bzImage is a damaged kernel: it does not name its version"):
        find.find(str(tmp_path / "bzImage"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("debian-clod", "did you mean debian-cloud?"),
        ("debain", "did you mean debian?"),
        ("debian-trixy", "did you mean debian-"),
        (
            "xyzzy",
            "known names: debian-cloud, debian, debian-5.10, debian-6.1, debian-6.12, debian-sid; or give",
        ),
        ("", "known names: "),
    ],
)
def test_an_unknown_name(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find.find(name)
    assert caught.value.message == f"no kernel '{name}': it is neither a file nor a known name"
    assert (caught.value.hint or "").startswith(hint)
    assert caught.value.exit_code == 2


def test_a_folder_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor a known name"):
        find.find(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("debian-cloud", None),
        ("debian-5.10", "bullseye"),
        ("debian-trixie", "trixie"),
        ("debian-sid", "sid"),
    ],
)
def test_a_ready_made_kernel(
    make_deb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str, release: str | None
) -> None:
    package = make_deb({f"boot/vmlinuz-{RELEASE}": bzimage()}, name=f"linux-image-{RELEASE}")
    asked: list[object] = []

    def kernel_packages(release: str | None, meta: str) -> KernelPackages:
        asked.append((release, meta))
        return KernelPackages(package, package)

    monkeypatch.setattr(releases, "kernel_packages", kernel_packages)
    found = find.find(name)
    assert (found.name, found.release, found.module_source) == (name, RELEASE, package)
    assert asked == [(release, "linux-image-cloud-amd64")]


def test_a_ready_made_kernel_in_parts(
    make_deb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"usr/lib/modules/{RELEASE}"
    binary = make_deb({f"{folder}/vmlinuz": bzimage()}, name="binary")
    module_package = make_deb({f"{folder}/kernel/net/netfilter/nf_nat.ko": b"\0depends=\0"}, name="modules")
    parts = KernelPackages(binary, module_package)
    monkeypatch.setattr(releases, "kernel_packages", lambda release, meta: parts)
    found = find.find("debian-sid")
    assert found.image.read_bytes() == bzimage()
    assert [needed.name for needed in found.needed_modules()] == ["nf_nat"]
