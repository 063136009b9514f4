"""Whole builds, of a tree so small that it takes a moment: what is around a kernel's make is the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lvslab.errors import BuildError, CommandFailed, MachineError
from lvslab.kernel import build, store
from lvslab.kernel import tree as kernel_tree
from lvslab.kernel.store import Built
from tests.unit.kernel.images import bzimage

RELEASE = "6.1.9"
MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 9
allnoconfig:
	cp $(KCONFIG_ALLCONFIG) .config
bzImage:
	@echo '  CC      net/netfilter/ipvs/ip_vs_core.o'
	cat image note >arch/x86/boot/bzImage
	pwd >>arch/x86/boot/bzImage
	echo $(KBUILD_BUILD_USER) $(KBUILD_BUILD_TIMESTAMP) $(CFLAGS) >>arch/x86/boot/bzImage
modules:
	touch module
modules_install:
	mkdir -p $(INSTALL_MOD_PATH)/lib/modules/6.1.9/kernel/net
	cp module $(INSTALL_MOD_PATH)/lib/modules/6.1.9/kernel/net/ip_vs_rr.ko
mrproper:
	rm -f .config vmlinux
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def a_tree(folder: Path) -> Path:
    for name in ("arch/x86/boot", "scripts/kconfig", "init"):
        (folder / name).mkdir(parents=True)
    (folder / "init/main.c").touch()
    (folder / "scripts/kconfig/conf.c").write_text("KCONFIG_ALLCONFIG")
    (folder / "image").write_bytes(bzimage(f"{RELEASE} (lvslab@lvslab) #1"))
    (folder / "note").write_text("as it was\n")
    (folder / "Makefile").write_text(MAKEFILE)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return a_tree(tmp_path / "tree")


def built(tree: Path) -> Built:
    try:
        return build.build(RELEASE, tree=tree, jobs=1)
    except MachineError as lacking:
        pytest.skip(str(lacking))


def listing(tree: Path) -> list[tuple[str, int, int]]:
    return sorted(
        (str(path.relative_to(tree)), path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in tree.rglob("*")
    )


def test_nothing_is_written_into_a_tree(tree: Path) -> None:
    before = listing(tree)
    found = built(tree)
    assert listing(tree) == before
    assert found.image.read_bytes().startswith((tree / "image").read_bytes())
    assert (found.manifest.release, found.manifest.source, found.manifest.row) == (
        RELEASE,
        "tree",
        "6.1.192",
    )
    assert found.manifest.modules == ("kernel/net/ip_vs_rr.ko",)
    assert "CONFIG_IP_VS=y\n" in found.config.read_text()
    assert found.log.read_text().startswith("# configuring: make ARCH=x86_64 ")
    assert [path.name for path in store.folder().iterdir()] == [found.name]


def test_where_no_layer_can_be_put_over_a_tree_it_is_copied(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lvslab.kernel.job import Job

    layered = built(tree).image.read_bytes()
    store.remove(RELEASE)
    monkeypatch.setattr(Job, "_takes_layers", lambda self, tree: False)
    before = listing(tree)
    assert built(tree).image.read_bytes() == layered
    assert listing(tree) == before


def test_the_same_inputs_give_the_same_bytes_wherever_they_are(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = built(tree)
    other_place = a_tree(tmp_path / "some/other place")
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "another cache"))
    monkeypatch.setenv("CFLAGS", "-O9")
    monkeypatch.setenv("KBUILD_BUILD_USER", "somebody")
    other = built(other_place)
    assert one.folder != other.folder
    assert one.image.read_bytes() == other.image.read_bytes()
    assert one.image.read_bytes().endswith(b"/usr/src/linux\nlvslab Sat Jan 1 00:00:00 UTC 2000\n")
    assert one.config.read_bytes() == other.config.read_bytes()


def test_an_unchanged_tree_is_built_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = built(tree)
    assert built(tree) == first
    (tree / "note").write_text("changed\n")
    second = built(tree)
    assert second.name != first.name and b"changed" in second.image.read_bytes()
    assert set(store.installed()) == {first, second}
    assert store.find(RELEASE) == second


def test_going_back_to_what_was_built_makes_it_the_one_that_is_meant(tree: Path, tmp_path: Path) -> None:
    first = built(tree)
    other = a_tree(tmp_path / "other")
    (other / "note").write_text("changed\n")
    second = built(other)
    assert store.find(RELEASE) == second
    assert built(tree) == first and store.find(RELEASE) == first


def test_what_somebody_has_built_in_the_tree_does_not_count(tree: Path) -> None:
    (tree / ".config").write_text("CONFIG_OLD=y\n")
    (tree / "vmlinux").touch()
    found = built(tree)
    assert "cleaning the copy of the tree: make" in found.log.read_text()
    assert "CONFIG_OLD" not in found.config.read_text()
    assert (tree / ".config").read_text() == "CONFIG_OLD=y\n" and (tree / "vmlinux").exists()


def test_a_build_that_fails_leaves_its_log_and_nothing_else(tree: Path, cache: Path) -> None:
    built(tree)
    store.remove(RELEASE)
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(makefile.replace("\tpwd ", "\t@echo 'a.c:1: error: x'; exit 1; pwd "))
    with pytest.raises(
        CommandFailed, match=r"Linux 6\.1\.9 does not build: compiling: make ended with status 2"
    ):
        build.build(RELEASE, tree=tree)
    assert list(store.folder().iterdir()) == []
    assert "a.c:1: error: x" in (cache / "kernels/failed/6.1.9.log").read_text()


def test_a_build_without_an_image_leaves_its_log(tree: Path, cache: Path) -> None:
    built(tree)
    store.remove(RELEASE)
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(
        makefile.replace(">arch", ">/dev/null # ").replace(">>/dev/null #", "# >>")
    )
    with pytest.raises(BuildError, match="there is no bzImage") as failed:
        build.build(RELEASE, tree=tree)
    kept = cache / "kernels/failed/6.1.9.log"
    assert failed.value.hint == f"all that it said: {kept}"
    assert "net/netfilter/ipvs/ip_vs_core.o" in kept.read_text()


def test_a_setting_that_kconfig_drops_ends_the_build(tree: Path, cache: Path) -> None:
    built(tree)
    store.remove(RELEASE)
    makefile = (tree / "Makefile").read_text()
    (tree / "Makefile").write_text(
        makefile.replace("cp $(KCONFIG_ALLCONFIG)", "grep -v IP_VS_WLC $(KCONFIG_ALLCONFIG) >")
    )
    with pytest.raises(
        BuildError, match=r"Linux 6\.1\.9 does not take a setting that was asked for"
    ) as refused:
        build.build(RELEASE, tree=tree)
    assert "CONFIG_IP_VS_WLC=m (ipvs-today.config:" in (refused.value.hint or "")
    failed = cache / "kernels/failed"
    assert f"all that it said: {failed}/6.1.9.log" in (refused.value.hint or "")
    assert (failed / "6.1.9.log").read_text().startswith("# configuring: make ")
    assert "CONFIG_IP_VS=y\n" in (failed / "6.1.9.config").read_text()
    assert list(store.folder().iterdir()) == []


def test_a_tree_that_is_changed_meanwhile_is_not_kept(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(tree)
    shutil.rmtree(store.folder())
    really, seen = kernel_tree.fingerprint, list[str]()

    def fingerprint(folder: Path) -> str:
        seen.append(really(folder))
        (folder / "note").write_text(f"changed {len(seen)} times\n")
        return seen[-1]

    monkeypatch.setattr(kernel_tree, "fingerprint", fingerprint)
    with pytest.raises(BuildError, match="was changed while it was built"):
        build.build(RELEASE, tree=tree)
    assert list(store.folder().iterdir()) == []
