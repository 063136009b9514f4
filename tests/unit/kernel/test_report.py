from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvslab.cache import folders
from lvslab.cli.text import kernel as text_of
from lvslab.debian import kernels
from lvslab.debian.kernels import KernelPackages
from lvslab.errors import UsageError
from lvslab.kernel import catalogue, report, store
from lvslab.kernel.sources import tarballs
from lvslab.kernel.store import Manifest

MANIFEST = Manifest(
    row="2.6.18.8", version="2.6.18.8", release="2.6.18.8", arch="i386", family="2.6", image="initramfs",
    userland="musl-i386", nic="e1000", memory=48, compiler="gcc-3.4.6", flags=("ARCH=i386",),
    source="kernel.org", source_sha256="5" * 64, config_sha256="c" * 64, image_sha256="1" * 64, built=86400,
    modules=("kernel/net/ipv4/ipvs/ip_vs_rr.ko",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path / "cache"


def put() -> None:
    with folders.making(store.folder(), "x") as made:
        (made / "bzImage").write_bytes(bytes(1 << 20))
        store.install(made, "2.6.18.8-cccccccccccc", MANIFEST)


def test_the_list_with_an_empty_store() -> None:
    found = report.listed()
    assert [row["name"] for row in found["catalogue"]] == [*catalogue.kernels(), *catalogue.prebuilt()]
    assert not any(row["downloaded"] for row in found["catalogue"])
    assert found["store"] == []
    json.dumps(found)
    text = text_of.listed(found)
    assert "  2.4.37.11          from source                  gcc-3.4.6  i386    -\n" in text
    assert text.endswith("the store is empty: ./run kernel.build VERSION fills it")


def test_the_list_of_what_is_there(cache: Path) -> None:
    put()
    tarballs.folder().mkdir(parents=True)
    (tarballs.folder() / "linux-2.4.37.11.tar.xz").touch()
    found = report.listed()
    (row,) = found["store"]
    assert (row["name"], row["release"], row["modules"]) == ("2.6.18.8-cccccccccccc", "2.6.18.8", 1)
    assert 1 << 20 <= row["disk"] < 2 << 20
    lines = text_of.listed(found).splitlines()
    here = {line.split()[0]: line.split()[-1] for line in lines if line.startswith("  ")}
    assert (here["2.4.37.11"], here["2.6.18.8"], here["2.6.11.12"]) == ("downloaded", "built", "-")
    assert "2.6.18.8-cccccccccccc  2.6.18.8  gcc-3.4.6  1        1.0 MiB  1970-01-02 00:00" in lines[-1]


def test_all_about_one_that_was_built() -> None:
    put()
    found = report.shown("2.6.18")
    json.dumps(found)
    assert found["row"]["version"] == "2.6.18.8" and found["row"]["fixes"]
    assert found["store"][0]["manifest"]["config_sha256"] == "c" * 64
    assert {"feature": "ipv6", "what": "IPv6 in IPVS", "since": "2.6.28"} in found["lacks"]
    text = text_of.shown(found)
    assert "  source path: linux/kernel/v2.6/linux-2.6.18.8.tar.xz\n" in text
    assert "2.6.18.8-cccccccccccc, in the store\n" in text
    assert "  IPv6 in IPVS " in text


def test_all_about_others() -> None:
    ready = report.shown("debian-trixie")
    assert ready["row"]["release"] == "trixie"
    assert [row["feature"] for row in ready["lacks"]] == ["resizable_tables", "ip_vs_status", "conn_max"]
    assert report.shown("debian-sid")["lacks"] == []
    never = report.shown("6.1")
    assert never["store"] == []
    assert "the store does not have it" in text_of.shown(never)
    with pytest.raises(UsageError, match="no kernel 'debian-6'") as caught:
        report.shown("debian-6")
    assert "debian-6.1" in str(caught.value)


def test_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def fetch(row: catalogue.Source, *, insecure: bool, instead: str) -> Path:
        assert "--insecure" in instead
        asked.append((row.file, insecure))
        return Path(row.file)

    monkeypatch.setattr(tarballs, "fetch", fetch)
    assert report.fetched("2.6.18", insecure=True) == (Path("linux-2.6.18.8.tar.xz"),)
    assert asked == [("linux-2.6.18.8.tar.xz", True)]
    both = KernelPackages(Path("binary.deb"), Path("modules.deb"))
    monkeypatch.setattr(kernels, "kernel_packages", lambda release, package: both)
    assert report.fetched("debian-sid") == (Path("binary.deb"), Path("modules.deb"))
    with pytest.raises(UsageError, match="no kernel 'busybox'"):
        report.fetched("busybox")
