from __future__ import annotations

import re

import pytest

from lvslab.errors import UsageError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Source

# --- the tables themselves --------------------------------------------------------------------


def test_every_kernel_of_the_plan_is_there() -> None:
    wanted = (
        "2.4",
        "2.6.11",
        "2.6.18",
        "2.6.32",
        "2.6.39",
        "4.19",
        "5.4",
        "5.10",
        "5.15",
        "6.1",
        "6.6",
        "6.12",
    )
    assert [catalogue.series(catalogue.kernel(name).version) for name in wanted] == list(wanted)
    assert {row.release for row in catalogue.prebuilt().values()} == {
        "bullseye",
        "bookworm",
        "trixie",
        "sid",
    }


@pytest.mark.parametrize("row", catalogue.kernels().values(), ids=lambda row: row.name)
def test_a_kernels_row(row: catalogue.KernelRow) -> None:
    assert row.compiler in ("gcc-3.4.6", "system")
    assert row.arch in ("i386", "x86_64")
    assert row.family in ("2.4", "2.6", "today")
    assert row.image == ("ext2" if row.family == "2.4" else "initramfs")
    assert row.userland == ("debian" if row.family == "today" else "musl-i386")
    assert row.fragments == (f"ipvs-{row.family}", f"guest-{row.family}")
    assert 16 <= row.memory <= 512
    assert set(row.fixes) <= set(catalogue.fixes())
    assert row.version in row.source.file
    if row.source.place == "kernel.org":
        assert row.source.path.endswith(f"/linux-{row.version}.tar.xz")


@pytest.mark.parametrize(
    "source",
    [*catalogue.sources().values(), *(row.source for row in catalogue.kernels().values())],
    ids=lambda source: source.name,
)
def test_a_sources_row(source: Source) -> None:
    assert source.place in ("kernel.org", "debian", "debian-package")
    assert re.fullmatch(r"[0-9a-f]{64}|", source.sha256)
    assert source.sha256 or source.place != "debian", "nothing else verifies it"
    assert bool(source.package) == (source.place == "debian-package") == (not source.path)
    assert re.search(r"\.tar\.(gz|bz2|xz)$", source.file)


def test_the_files_of_sources_differ() -> None:
    files = [source.file for source in catalogue.sources().values()]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("feature", catalogue.features().values(), ids=lambda feature: feature.name)
def test_a_features_row(feature: catalogue.Feature) -> None:
    assert re.fullmatch(r"\d+(\.\d+)+", feature.since)
    assert re.fullmatch(r"[0-9a-f]{10,40}|", feature.commit)
    assert catalogue.lacking(feature.since, feature.name) is None
    assert catalogue.lacking("1.0", feature.name)


# --- looking up -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("2.4.37.11", "2.4.37.11"),
        ("2.4", "2.4.37.11"),
        ("2.6.18", "2.6.18.8"),
        ("linux-source-6.1", "6.1"),
    ],
)
def test_a_kernel_is_found_by_version_and_series(name: str, version: str) -> None:
    assert catalogue.kernel(name).version == version


def test_another_release_of_a_series_is_built_as_its_row_says() -> None:
    row, other = catalogue.kernel("2.6.32.71"), catalogue.kernel("2.6.32.69")
    assert other.name == other.version == other.source.name == "2.6.32.69"
    assert other.source.path == "linux/kernel/v2.6/linux-2.6.32.69.tar.xz"
    assert row.source.sha256 and not other.source.sha256
    assert (other.fragments, other.fixes, other.nic) == (row.fragments, row.fixes, row.nic)


@pytest.mark.parametrize("name", ["2.6", "2.6.19", "6.1.", "6.1.x", "6", "", "../6.1.1", "6.1.1/.."])
def test_an_unknown_kernel(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"no kernel '{name}'")):
        catalogue.kernel(name)


def test_near_names_are_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        catalogue.kernel("2.4.37.12.1")
    assert caught.value.hint is not None and "did you mean 2.4.37.11" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        catalogue.source("iptable-1.8.9")
    assert caught.value.hint is not None and "did you mean iptables-1.8.9" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ipvsadm-1.28", "ipvsadm-1.28.tar.gz"),
        ("ipvsadm", "ipvsadm_1.31.orig.tar.gz"),
        ("musl", "musl_1.2.3.orig.tar.gz"),
        ("6.1.192", "linux-6.1.192.tar.xz"),
        ("linux-source-6.1", "linux-source-6.1.tar.xz"),
    ],
)
def test_a_source_is_found(name: str, file: str) -> None:
    assert catalogue.source(name).file == file


def test_a_ready_made_kernel_has_aliases() -> None:
    row = catalogue.ready("debian-bullseye")
    assert row is not None and (row.name, row.release) == ("debian-5.10", "bullseye")
    assert catalogue.ready("debian-5.10") == row
    assert catalogue.ready("debian") is None


# --- what a version can do --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "feature", "reason"),
    [
        ("2.4.37.11", "ipv6", "kernel 2.4.37.11 has no IPv6 in IPVS: it came with 2.6.28"),
        ("2.6.28", "ipv6", None),
        ("6.1.0-56-cloud-amd64", "mh", None),
        ("4.9.0", "mh", "kernel 4.9.0 has no mh scheduler: it came with 4.18"),
        ("4.18.0-rc1", "mh", None),
        ("1.30", "ipvsadm_tunnel_types", "ipvsadm 1.30 has no --tun-type: it came with 1.31"),
    ],
)
def test_lacking(version: str, feature: str, reason: str | None) -> None:
    assert catalogue.lacking(version, feature) == reason


def test_an_unknown_feature() -> None:
    with pytest.raises(UsageError, match="no feature 'ipv5'") as caught:
        catalogue.lacking("6.1", "ipv5")
    assert caught.value.hint is not None and "ipv6" in caught.value.hint


OLD = {"kernel": "2.4.37.11", "ipvsadm": "1.31"}
NEW = {"kernel": "6.1.0-56-cloud-amd64", "ipvsadm": "1.31-1+b1"}


def test_a_kernel_that_is_too_old() -> None:
    reason = catalogue.first_lacking(OLD, ["ipv6"])
    assert reason is not None
    assert "2.4.37.11" in reason
    assert "2.6.28" in reason
    assert catalogue.first_lacking(NEW, ["ipv6"]) is None


def test_the_first_thing_that_is_lacking_is_told() -> None:
    assert catalogue.first_lacking(OLD, []) is None
    assert catalogue.first_lacking(OLD, ["sctp", "ipv6"]) == catalogue.first_lacking(OLD, ["sctp"])


def test_ipvsadm_has_versions_of_its_own() -> None:
    names = [name for name, row in catalogue.features().items() if row.kind == "ipvsadm"]
    assert names
    for name in names:
        since = catalogue.features()[name].since
        assert catalogue.first_lacking({"kernel": "2.4.1", "ipvsadm": since}, [name]) is None
        assert catalogue.first_lacking({"kernel": "9.0", "ipvsadm": "1.0"}, [name]) is not None


def test_a_feature_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="ipv7"):
        catalogue.first_lacking(NEW, ["ipv7"])


@pytest.mark.parametrize(
    ("version", "series"),
    [("2.4.37.11", "2.4"), ("2.6.18.8", "2.6.18"), ("2.6.18", "2.6.18"), ("6.1.9", "6.1")],
)
def test_series(version: str, series: str) -> None:
    assert catalogue.series(version) == series
