from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lvslab.cache import folders
from lvslab.errors import UsageError
from lvslab.kernel import store
from lvslab.kernel.store import Manifest
from lvslab.paths import PROJECT

OLD = Manifest(
    row="2.6.18.8",
    version="2.6.18.8",
    release="2.6.18.8",
    arch="i386",
    family="2.6",
    image="initramfs",
    userland="musl-i386",
    nic="e1000",
    memory=48,
    compiler="gcc-3.4.6",
    flags=("ARCH=i386",),
    source="kernel.org",
    source_sha256="5" * 64,
    config_sha256="c" * 64,
    image_sha256="1" * 64,
    built=1000,
    modules=("kernel/net/ipv4/ipvs/ip_vs_rr.ko",),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return store.folder()


def put(name: str, **changed: object) -> store.Built:
    with folders.making(store.folder(), name) as made:
        (made / "bzImage").write_bytes(name.encode())
        return store.install(made, name, replace(OLD, **changed))  # type: ignore[arg-type]


def test_the_name_has_version_and_configuration() -> None:
    assert store.name_of("2.6.18.8", "0123456789abcdef") == "2.6.18.8-0123456789ab"


def test_an_empty_store() -> None:
    assert store.installed() == ()
    assert store.find("6.1") is None
    with pytest.raises(UsageError, match=r"no kernel '6\.1' in the store: it is empty"):
        store.remove("6.1")


def test_what_was_installed_is_found_by_name_version_and_series(folder: Path) -> None:
    built = put("2.6.18.8-cccccccccccc")
    assert built.manifest == OLD
    assert built.image.read_text() == "2.6.18.8-cccccccccccc"
    assert built.modules == built.folder / "lib/modules/2.6.18.8"
    assert store.installed() == (built,)
    for name in ("2.6.18.8-cccccccccccc", "2.6.18.8", "2.6.18"):
        assert store.find(name) == built
    for name in ("2.6", "2.6.1", "bzImage", "", ".."):
        assert store.find(name) is None
    assert [place.name for place in folder.iterdir()] == ["2.6.18.8-cccccccccccc"]


def test_of_one_version_the_one_asked_for_last_is_found() -> None:
    first = put("2.6.18.8-bbbbbbbbbbbb")
    second = put("2.6.18.8-aaaaaaaaaaaa")
    other = put("2.6.18-dddddddddddd", version="2.6.18")
    for number, built in enumerate((first, second, other), start=1):
        os.utime(built.folder, (number, number))
    assert [store.find(name) for name in ("2.6.18.8", "2.6.18")] == [second, other]
    assert store.again(first) == first
    assert store.find("2.6.18.8") == first


def test_no_name_is_no_kernel() -> None:
    put("6.1.9-0", version="6.1.9", row="")
    assert store.matching("") == ()
    with pytest.raises(UsageError):
        store.remove("")


def test_a_tree_does_not_answer_to_the_release_that_it_is_built_as() -> None:
    tree = put("2.6.25.20-0", version="2.6.25.20", source="tree")
    assert store.find("2.6.18.8") is None
    assert store.find("2.6.25") == tree
    packaged = put("6.1.176-0", version="6.1.176", row="linux-source-6.1", source="debian-package")
    assert store.find("linux-source-6.1") == packaged


def test_versions_are_ordered_as_numbers() -> None:
    for version in ("6.12.1", "6.1.9", "6.6.10"):
        put(f"{version}-0", version=version)
    assert [built.manifest.version for built in store.installed()] == ["6.1.9", "6.6.10", "6.12.1"]


def test_the_same_name_again_takes_the_place_of_the_old(folder: Path) -> None:
    put("6.1.9-0", built=1)
    put("6.1.9-0", built=2)
    assert [built.manifest.built for built in store.installed()] == [2]
    assert [place.name for place in folder.iterdir()] == ["6.1.9-0"]


def test_a_build_that_fails_leaves_nothing(folder: Path) -> None:
    with pytest.raises(RuntimeError), folders.making(store.folder(), "6.1.9-0") as made:
        (made / "bzImage").write_bytes(b"half")
        assert store.installed() == ()
        raise RuntimeError
    assert list(folder.iterdir()) == []


KILLED = """
import os, signal
from lvslab.cache import folders
from lvslab.kernel import store as kernel_store
with folders.making(kernel_store.folder(), "6.1.9-0") as made:
    (made / "bzImage").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_build_has_left_is_cleared_by_the_next(folder: Path) -> None:
    subprocess.run([sys.executable, "-P", "-c", KILLED], cwd=PROJECT, env=_python(), check=False)
    (left,) = folder.iterdir()
    with (
        folders.making(store.folder(), "6.6.10-0") as first,
        folders.making(store.folder(), "6.6.10-0") as second,
    ):
        assert not left.exists()
        assert first.exists() and second.exists() and first != second


def _python() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(PROJECT)}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": "6.1.9"}', "\x00"])
def test_a_folder_without_a_whole_manifest_is_no_kernel(content: str) -> None:
    built = put("6.1.9-0")
    (built.folder / "manifest.json").write_text(content)
    assert store.installed() == ()


def test_remove(folder: Path) -> None:
    put("6.1.9-0", version="6.1.9")
    put("6.1.9-1", version="6.1.9")
    with pytest.raises(UsageError, match=r"6\.1 is more than one kernel") as caught:
        store.remove("6.1")
    assert caught.value.hint == "say which: 6.1.9-0, 6.1.9-1"
    with pytest.raises(UsageError, match=r"no kernel in the store '6\.1\.9-2'"):
        store.remove("6.1.9-2")
    assert store.remove("6.1.9-0").name == "6.1.9-0"
    assert store.remove("6.1").name == "6.1.9-1"
    assert list(folder.iterdir()) == []


def test_one_is_found_by_what_it_was_built_of() -> None:
    built = put("6.1.176-cccccccccccc", version="6.1.176", row="linux-source-6.1")
    put("6.1.192-cccccccccccc", version="6.1.192", row="6.1.192")
    assert store.find("linux-source-6.1") == built
    assert [found.name for found in store.matching("6.1")] == [
        "6.1.176-cccccccccccc",
        "6.1.192-cccccccccccc",
    ]
