from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lvslab.cache import store
from lvslab.debian import apt_lists, kernels, packages
from lvslab.errors import BuildError, UsageError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Source
from lvslab.kernel.sources import kernel_org
from lvslab.kernel.sources import tarballs as source


def tarball(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


CONTENT = tarball({"linux-6.1.9/Makefile": b"VERSION = 6\n", "linux-6.1.9/net/Kconfig": b"menu\n"})
SUM = hashlib.sha256(CONTENT).hexdigest()
PATH = "linux/kernel/v6.x/linux-6.1.9.tar.xz"
PINNED = Source("6.1.9", "kernel.org", PATH, SUM)
LISTED = Source("6.1.9", "kernel.org", PATH)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(source.MIRROR, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def mirror(web: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """kernel.org, as far as anybody can tell. See Web in conftest.py."""
    monkeypatch.setattr(kernel_org, "MIRRORS", (f"{web.url}/pub/",))
    web.files[f"/pub/{PATH}"] = CONTENT
    return web


def listing(mirror: Any, monkeypatch: pytest.MonkeyPatch, *files: str) -> None:
    """Have kernel.org list these files, signed as far as anybody can tell."""
    lines = "".join(f"{SUM}  {file}\n" for file in files)
    mirror.files["/pub/linux/kernel/v6.x/sha256sums.asc"] = lines.encode()
    monkeypatch.setattr(kernel_org, "_signed", lambda listed, extra: listed.decode())


def tarballs(mirror: Any) -> list[str]:
    """What was asked for beside lists."""
    return [path for path, _ in mirror.asked if not path.endswith(".asc")]


def test_a_tarball_is_downloaded_once(mirror: Any, cache: Path) -> None:
    assert not source.present(PINNED)
    path = source.fetch(PINNED)
    assert path == cache / "sources/linux-6.1.9.tar.xz"
    assert path.read_bytes() == CONTENT
    assert store.sha256(path) == SUM
    assert source.present(PINNED)
    assert source.fetch(PINNED) == path
    assert len(mirror.asked) == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_whoever_waits_for_the_same_tarball_finds_it(mirror: Any) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(source.fetch(PINNED))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(mirror.asked) == 1


def test_a_tarball_whose_checksum_is_only_listed(mirror: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(mirror, monkeypatch, "linux-6.1.9.tar.xz")
    assert source.fetch(LISTED).read_bytes() == CONTENT


def test_a_release_that_never_was_is_not_downloaded(mirror: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listing(mirror, monkeypatch, "linux-6.1.9.tar.xz", "linux-6.1.9.tar.gz", "patch-6.1.90.xz")
    never = Source("6.1.99", "kernel.org", "linux/kernel/v6.x/linux-6.1.99.tar.xz")
    with pytest.raises(BuildError, match=r"kernel\.org has no linux/kernel/v6\.x/linux-6\.1\.99") as caught:
        source.fetch(never)
    assert caught.value.hint == "it has linux-6.1.9.tar.xz"
    with pytest.raises(BuildError, match="has no linux"):
        source.fetch(never, insecure=True)  # it is known that there is none
    assert tarballs(mirror) == []


def test_a_tarball_that_is_not_what_it_should_be(mirror: Any, cache: Path) -> None:
    mirror.files[f"/pub/{PATH}"] = b"something else"
    for insecure in (False, True):
        with pytest.raises(BuildError, match=r"linux-6\.1\.9\.tar\.xz is not available") as caught:
            source.fetch(PINNED, insecure=insecure)
        assert f"its SHA-256 is {hashlib.sha256(b'something else').hexdigest()}, not {SUM}" in str(
            caught.value
        )
        assert caught.value.exit_code == 7
    assert len(mirror.asked) == 2
    assert list((cache / "sources").iterdir()) == []
    mirror.files[f"/pub/{PATH}"] = CONTENT
    assert source.fetch(PINNED).read_bytes() == CONTENT


def test_what_nothing_verifies_is_kept_apart(
    mirror: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source.fetch(LISTED, insecure=True)
    assert path == cache / "sources/unverified/linux-6.1.9.tar.xz"
    assert source.fetch(LISTED, insecure=True) == path and len(tarballs(mirror)) == 1
    assert source.is_unverified(path) and not source.present(LISTED)
    listing(mirror, monkeypatch, "linux-6.1.9.tar.xz")
    verified = source.fetch(LISTED, insecure=True)
    assert verified == cache / "sources/linux-6.1.9.tar.xz" and not source.is_unverified(verified)


def test_what_nothing_verifies_and_is_no_tarball_is_downloaded_again(mirror: Any, tmp_path: Path) -> None:
    mirror.files[f"/pub/{PATH}"] = b"<html>please log in</html>"
    with pytest.raises(BuildError, match="cannot be unpacked") as failed:
        source.unpack(source.fetch(LISTED, insecure=True), tmp_path / "linux")
    assert (failed.value.hint or "").endswith("it is deleted: the next try downloads it again")
    mirror.files[f"/pub/{PATH}"] = CONTENT
    assert source.unpack(source.fetch(LISTED, insecure=True), tmp_path / "linux").is_dir()


def test_a_caller_says_what_may_be_done_where_nothing_verifies_it(mirror: Any) -> None:
    with pytest.raises(BuildError) as failed:
        source.fetch(LISTED, instead="--tree takes a source tree")
    assert (failed.value.hint or "").endswith("\n  --tree takes a source tree")


def test_what_contradicts_the_list_is_refused_in_any_case(
    mirror: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing(mirror, monkeypatch, "linux-6.1.9.tar.xz")
    mirror.files[f"/pub/{PATH}"] = b"something else"
    with pytest.raises(BuildError, match="is not available"):
        source.fetch(LISTED, insecure=True)
    assert not (cache / "sources/unverified").exists()


def test_a_download_that_was_interrupted_goes_on(mirror: Any, cache: Path) -> None:
    mirror.cuts = [50, 0, 0, 0]
    with pytest.raises(BuildError, match="is not available") as caught:
        source.fetch(PINNED)
    assert "broke off after 50" in str(caught.value)
    assert (cache / "sources/linux-6.1.9.tar.xz.part").read_bytes() == CONTENT[:50]
    mirror.asked.clear()
    assert source.fetch(PINNED).read_bytes() == CONTENT
    assert mirror.asked == [(f"/pub/{PATH}", "bytes=50-")]


def test_a_part_of_something_else_is_downloaded_anew(mirror: Any, cache: Path) -> None:
    (cache / "sources").mkdir(parents=True)
    (cache / "sources/linux-6.1.9.tar.xz.part").write_bytes(b"something else")
    assert source.fetch(PINNED).read_bytes() == CONTENT
    assert [wanted for _, wanted in mirror.asked] == ["bytes=14-", ""]


def test_mirrors_of_ones_own_come_first(
    mirror: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = tmp_path / "flat folder"
    flat.mkdir()
    monkeypatch.setenv(source.MIRROR, f"{flat.as_uri()} {mirror.url}/empty/")
    assert source.mirrors() == (f"{flat.as_uri()}/", f"{mirror.url}/empty/")
    assert source.fetch(PINNED).read_bytes() == CONTENT
    assert [path for path, _ in mirror.asked] == [
        f"/empty/{PATH}",
        "/empty/linux-6.1.9.tar.xz",
        f"/pub/{PATH}",
    ]
    source.fetch(PINNED).unlink()
    mirror.asked.clear()
    (flat / "linux-6.1.9.tar.xz").write_bytes(CONTENT)
    assert source.fetch(PINNED).read_bytes() == CONTENT
    assert mirror.asked == []


@pytest.mark.parametrize("value", ["/srv/mirror", "ftp://example.org/", "http:///x", "file://host/x"])
def test_a_mirror_that_is_no_url(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(source.MIRROR, f"https://example.org {value}")
    with pytest.raises(UsageError, match=r"LVSLAB_MIRROR has '.*', which is not a URL"):
        source.mirrors()


def test_no_mirror_has_it(mirror: Any) -> None:
    mirror.files.clear()
    with pytest.raises(BuildError) as caught:
        source.fetch(PINNED)
    assert caught.value.message == "linux-6.1.9.tar.xz is not available"
    assert f"has no /pub/{PATH}" in str(caught.value)


# --- Debian -----------------------------------------------------------------------------------


def test_a_tarball_of_debians_pool(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_lists, "pools", lambda: (f"{web.url}/old/", f"{web.url}/debian/"))
    monkeypatch.setattr(source, "_APT_HELPER", Path("/nonexistent"))
    web.files["/debian/pool/main/p/popt/popt_1.19%2Bdfsg.orig.tar.xz"] = CONTENT
    row = Source("popt-1.19", "debian", "pool/main/p/popt/popt_1.19+dfsg.orig.tar.xz", SUM)
    assert source.fetch(row).read_bytes() == CONTENT


@pytest.mark.skipif(not source._APT_HELPER.exists(), reason="this machine has no apt")
def test_apt_gets_it_where_it_can(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_lists, "pools", lambda: (f"{web.url}/debian/",))
    web.files["/debian/pool/a_1.orig.tar.xz"] = b"something else"
    row = Source("a-1", "debian", "pool/a_1.orig.tar.xz", SUM)
    with pytest.raises(BuildError, match="is not available") as caught:
        source.fetch(row)
    assert "apt cannot get http" in str(caught.value)
    web.files["/debian/pool/a_1.orig.tar.xz"] = CONTENT
    assert source.fetch(row).read_bytes() == CONTENT


def test_a_tarball_in_a_package(
    make_deb: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = "usr/src/linux-source-6.1.tar.xz"
    made = make_deb({inside: CONTENT, "usr/share/doc/x": b"x"}, "linux-source-6.1", "6.1.9-1")
    packages.folder().mkdir(parents=True)
    made.rename(packages.folder() / made.name)
    package = packages.Package(made.name, "")
    monkeypatch.setattr(kernels, "package", lambda release, name: package)
    row = Source("linux-source-6.1", "debian-package", package="linux-source-6.1", inside=inside)
    path = source.fetch(row)
    assert path == cache / "sources/linux-source-6.1_6.1.9-1.tar.xz"
    assert path.read_bytes() == CONTENT
    assert source.present(row)
    path.unlink()
    with pytest.raises(BuildError, match="has no usr/src/other"):
        source.fetch(Source("x", "debian-package", package="x", inside="usr/src/other"))


# --- names and folders ------------------------------------------------------------------------


def test_an_unknown_source() -> None:
    with pytest.raises(UsageError, match="no source 'bosybux'"):
        source.get("bosybux")


def test_where_a_known_source_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_lists, "mirrors", lambda: (apt_lists.MAIN, apt_lists.SECURITY))
    assert list(source.urls(catalogue.source("gcc-3.4.6"))) == [
        f"{pool}pool/main/g/gcc-h8300-hms/gcc-h8300-hms_3.4.6%2Bdfsg2.orig.tar.gz"
        for pool in (apt_lists.MAIN, apt_lists.ARCHIVE_MAIN)
    ]
    first, *_ = source.urls(catalogue.source("2.4.37.11"))
    assert first == "https://cdn.kernel.org/pub/linux/kernel/v2.4/linux-2.4.37.11.tar.xz"


@pytest.mark.parametrize("there", [False, True])
def test_unpack(tmp_path: Path, there: bool) -> None:
    (tmp_path / "a.tar.xz").write_bytes(CONTENT)
    folder = tmp_path / "trees/6.1.9"
    if there:
        (folder / "old").mkdir(parents=True)
    assert source.unpack(tmp_path / "a.tar.xz", folder) == folder
    assert (folder / "Makefile").read_text() == "VERSION = 6\n"
    assert not (folder / "old").exists()
    assert list(folder.parent.iterdir()) == [folder]


def test_unpack_without_a_top_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tar.xz").write_bytes(tarball({"Makefile": b"a", "README": b"b"}))
    assert sorted(file.name for file in source.unpack(tmp_path / "a.tar.xz", tmp_path / "x").iterdir()) == [
        "Makefile",
        "README",
    ]


@pytest.mark.parametrize("kept", [0, 40, 100])
def test_unpack_what_is_damaged(tmp_path: Path, kept: int) -> None:
    (tmp_path / "a.tar.xz").write_bytes(CONTENT[:kept] + b"x" * (100 - kept))
    with pytest.raises(BuildError, match=r"a\.tar\.xz cannot be unpacked"):
        source.unpack(tmp_path / "a.tar.xz", tmp_path / "x")
    assert [file.name for file in tmp_path.iterdir() if file.name != "a.tar.xz"] == []


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("linux-source-6.1_6.1.176-1.tar.xz", "6.1.176"),
        ("linux-source-6.12_6.12.118-1~bpo12+1.tar.xz", "6.12.118"),
    ],
)
def test_the_version_of_a_packaged_source(file: str, version: str) -> None:
    assert source.packaged_version(Path("cache", file)) == version
