from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from lvslab.boot.services import bundles
from lvslab.cache import store
from lvslab.debian import libraries, packages
from lvslab.debian.packages import Member, Package

LIBRARIES = "usr/lib/x86_64-linux-gnu"
FILES = {
    "usr/sbin/nginx": Member("usr/sbin/nginx", 0o755, b"nginx"),
    "usr/sbin/nginx-debug": Member("usr/sbin/nginx-debug", 0o755, b"not wanted"),
    libraries.LOADER: Member(libraries.LOADER, 0o777, b"", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    f"{LIBRARIES}/ld-linux-x86-64.so.2": Member("ld", 0o755, b"loader"),
}


@pytest.fixture(autouse=True)
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "fetch", lambda names: (Package("nginx_1_amd64.deb", "aa"),))
    monkeypatch.setattr(libraries, "files_of", lambda sources, wanted: FILES)


def test_the_archive_holds_the_servers_and_what_they_load() -> None:
    with tarfile.open(bundles.bundles(["http"])["http"]) as archive:
        found = {entry.name: entry for entry in archive}
        assert found.keys() == FILES.keys() - {"usr/sbin/nginx-debug"}
        assert found["usr/sbin/nginx"].mode == 0o755
        content = archive.extractfile(found["usr/sbin/nginx"])
        assert content is not None
        assert content.read() == b"nginx"
        assert {(entry.uid, entry.gid, entry.mtime) for entry in archive} == {(0, 0, 0)}


def test_absolute_links_stay_inside(tmp_path: Path) -> None:
    subprocess.run(
        ["tar", "--extract", "--file", bundles.bundles(["http"])["http"], "--directory", tmp_path],
        check=True,
    )
    assert not (tmp_path / libraries.LOADER).readlink().is_absolute()
    assert (tmp_path / libraries.LOADER).read_bytes() == b"loader"


def test_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = bundles.bundles(["http"])["http"]
    before, content = path.stat().st_ino, path.read_bytes()
    assert bundles.bundles(["http"])["http"] == path
    assert path.stat().st_ino == before
    path.unlink()
    assert bundles.bundles(["http"])["http"].read_bytes() == content
    monkeypatch.setattr(packages, "fetch", lambda names: (Package("nginx_2_amd64.deb", "bb"),))
    assert bundles.bundles(["http"])["http"] != path


def test_the_same_packages_come_to_the_same_bytes_until_the_format_is_raised() -> None:
    made = (bundles._FORMAT, store.sha256(bundles.bundles(["http"])["http"])[:16])
    assert made == (1, "d4aed059a26966bb"), (
        "raise _FORMAT in lvslab/boot/services/bundles.py and pin the new checksum"
    )


def test_each_kind_has_an_archive_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ftp = {**FILES, "usr/sbin/vsftpd": Member("usr/sbin/vsftpd", 0o755, b"vsftpd")}
    monkeypatch.setattr(libraries, "files_of", lambda sources, wanted: ftp)
    assert bundles.bundles([]) == {}
    made = bundles.bundles(["http", "ftp", "http"])
    assert made.keys() == {"http", "ftp"}
    with tarfile.open(made["ftp"]) as archive:
        names = archive.getnames()
    assert "usr/sbin/vsftpd" in names
    assert "usr/sbin/nginx" not in names
