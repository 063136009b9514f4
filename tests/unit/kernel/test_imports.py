from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lvslab.debian import packages
from lvslab.errors import UsageError
from lvslab.kernel import imports, store
from tests.unit.kernel.images import RELEASE, image

MODULE = f"lib/modules/{RELEASE}/kernel/net/netfilter/ipvs/ip_vs.ko"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A bzImage with its modules and configuration beside it."""
    path = tmp_path / "made/vmlinuz"
    (path.parent / MODULE).parent.mkdir(parents=True)
    path.write_bytes(image())
    (path.parent / MODULE).write_bytes(b"\x7fELF ip_vs")
    (path.parent / f"config-{RELEASE}").write_text("CONFIG_IP_VS=m\n")
    (path.parent / f"lib/modules/{RELEASE}/build").symlink_to("/usr/src/linux")
    return path


def test_a_file_with_all_that_is_beside_it(built: Path) -> None:
    taken = imports.take(built)
    about = taken.manifest
    assert taken.image.read_bytes() == image()
    assert taken.config.read_text() == "CONFIG_IP_VS=m\n"
    assert (taken.folder / MODULE).read_bytes() == b"\x7fELF ip_vs"
    assert not (taken.modules / "build").is_symlink()
    assert (about.version, about.release, about.family, about.compiler) == ("6.1.9", RELEASE, "today", "")
    assert (about.arch, about.userland, about.image) == ("x86_64", "debian", "initramfs")
    assert about.modules == ("kernel/net/netfilter/ipvs/ip_vs.ko",)
    assert store.installed() == (taken,)
    assert store.find("6.1.9") == taken


def test_the_same_again_changes_nothing(built: Path) -> None:
    first = imports.take(built)
    assert imports.take(built) == first
    (built.parent / MODULE).write_bytes(b"\x7fELF changed")
    assert imports.take(built).name != first.name
    assert len(store.installed()) == 2


@pytest.mark.parametrize("place", ["lib", "usr/lib"])
def test_a_package(make_deb: Callable[..., Path], place: str) -> None:
    package = make_deb(
        {
            f"boot/vmlinuz-{RELEASE}": image(),
            f"boot/config-{RELEASE}": b"CONFIG_IP_VS=m\n",
            f"{place}/{MODULE.removeprefix('lib/')}": b"\x7fELF ip_vs",
            f"{place}/modules/{RELEASE}/modules.builtin": b"",
        }
    )
    taken = imports.take(package)
    assert taken.config.read_text() == "CONFIG_IP_VS=m\n"
    assert (taken.folder / MODULE).read_bytes() == b"\x7fELF ip_vs"
    assert taken.manifest.modules == ("kernel/net/netfilter/ipvs/ip_vs.ko",)


def test_modules_and_configuration_from_elsewhere(built: Path, tmp_path: Path) -> None:
    modules, config = tmp_path / "modules", tmp_path / "my.config"
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "kernel/fs/ext2.ko").write_bytes(b"\x7fELF")
    config.write_text("CONFIG_EXT2_FS=m\n")
    taken = imports.take(built, modules, config)
    assert taken.manifest.modules == ("kernel/fs/ext2.ko",)
    assert taken.config.read_text() == "CONFIG_EXT2_FS=m\n"


def test_a_kernel_of_old(tmp_path: Path) -> None:
    head = bytearray(image("2.4.37.11"))
    struct.pack_into("<H", head, 0x206, 0x203)
    (tmp_path / "bzImage").write_bytes(head)
    about = imports.take(tmp_path / "bzImage").manifest
    assert (about.family, about.arch, about.userland) == ("2.4", "i386", "musl-i386")
    assert (about.image, about.nic, about.config_sha256, about.modules) == ("ext2", "e1000", "", ())


def test_what_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        imports.take(tmp_path / "missing")
    with pytest.raises(UsageError, match="there is no file"):
        imports.take(tmp_path)
    (tmp_path / "text").write_text("no kernel")
    with pytest.raises(UsageError, match="is not a kernel: it has no Linux boot header"):
        imports.take(tmp_path / "text")
    assert store.installed() == ()


def test_modules_of_another_kernel(built: Path, make_deb: Callable[..., Path], tmp_path: Path) -> None:
    others = tmp_path / "others"
    (others / "kernel").mkdir(parents=True)
    (others / "kernel/ext2.ko").write_bytes(b"\x7fELF\0vermagic=6.1.0-other SMP mod_unload \0")
    with pytest.raises(
        UsageError, match=r"the modules are of 6\.1\.0-other, and the kernel is 6\.1\.9-test"
    ):
        imports.take(built, others)
    # One of an earlier build may lie in a tree beside those of this one.
    (others / "kernel/ext3.ko").write_bytes(f"\x7fELF\0vermagic={RELEASE} SMP mod_unload \0".encode())
    assert len(imports.take(built, others).manifest.modules) == 2
    package = make_deb({"lib/modules/6.1.0-other/kernel/fs/ext2.ko": b"\x7fELF"})
    with pytest.raises(UsageError, match=rf"has no modules of {RELEASE}"):
        imports.take(built, package)


def test_what_goes_with_a_kernel_and_is_not_there(built: Path, tmp_path: Path) -> None:
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="there is no file"):
            imports.take(built, config=missing)
    link = built.parent / "lib/modules" / RELEASE / "kernel/dangling.ko"
    link.symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"dangling\.ko cannot be copied"):
        imports.take(built)
    assert store.installed() == ()


def test_a_file_that_is_called_like_a_kernel_of_the_store(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imports.take(built)
    monkeypatch.chdir(tmp_path)
    Path("6.1.9").write_bytes(image("6.2.0-other"))
    assert imports.take(Path("6.1.9")).manifest.release == "6.2.0-other"


def test_modules_that_are_none(built: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, built):
        with pytest.raises(UsageError, match="is not a folder of modules"):
            imports.take(built, path)


@pytest.mark.parametrize(
    ("version", "family"), [((2, 4, 37), "2.4"), ((2, 6, 39), "2.6"), ((3, 0), "today"), ((6, 1), "today")]
)
def test_families(version: tuple[int, ...], family: str) -> None:
    assert imports.family(version) == family


def test_a_package_that_reaches_out_of_its_folder(
    tmp_path: Path, make_deb: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_deb({f"boot/vmlinuz-{RELEASE}": image(), MODULE: b"module"})
    really = packages.members

    def members(package: Path, wanted: Callable[[str], bool]) -> Iterator[packages.Member]:
        """What tar would read of a package that dpkg-deb would never make."""
        yield from (
            replace(found, path=found.path.replace("/net/", "/../")) for found in really(package, wanted)
        )

    monkeypatch.setattr(packages, "members", members)
    with pytest.raises(UsageError, match=r"is not a kernel's package: it has a file .*/\.\./"):
        imports.take(package)
    assert store.installed() == ()
