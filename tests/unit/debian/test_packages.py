from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab.debian import packages
from lvslab.debian.packages import Member, Package
from lvslab.errors import BuildError, MachineError

CONTENT = b"a package file"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "distribution", lambda: "debian-12")


# An apt-get that has one package, and notes how it was called. $DELIVERS is what it delivers.
APT_GET = """#!/bin/sh
echo "$*" >> "$APT_CALLS"
case "$*" in
*update*) exit 0 ;;
*nowhere-to-be-found*) echo "E: Unable to locate package nowhere-to-be-found" >&2; exit 100 ;;
*--print-uris*download*) [ -e ipvsadm_1%3a1.31-1_amd64.deb ] && exit 0 ;;
esac
case "$*" in
*update* | *nowhere-to-be-found*) ;;
*--print-uris*)
    echo "NOTE: this line is no package"
    echo "'http://mirror/pool/e/ipvsadm_1%3a1.31-1_amd64.deb' ipvsadm_1%3a1.31-1_amd64.deb 14 SHA256:$SUM" ;;
*)
    for word; do case "$word" in Dir::Cache::archives=*) archives=${word#*=} ;; esac; done
    [ -z "$DELIVERS" ] || printf %s "$DELIVERS" > "$archives/ipvsadm_1%3a1.31-1_amd64.deb" ;;
esac
"""


@pytest.fixture
def apt(
    tmp_path: Path,
    debian: None,
    program: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], list[str]]:
    """What our apt-get was asked for."""
    calls = tmp_path / "calls"
    calls.write_text("")
    program("apt-get", APT_GET)
    monkeypatch.setenv("APT_CALLS", str(calls))
    monkeypatch.setenv("SUM", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setenv("DELIVERS", CONTENT.decode())
    return lambda: calls.read_text().splitlines()


# --- members ----------------------------------------------------------------------------------


def test_members_of_a_package(make_deb: Callable[..., Path]) -> None:
    package = make_deb(
        {
            "usr/sbin/ipvsadm": b"\x7fELF",
            "usr/share/doc/empty": b"",
            "usr/lib/libnl.so.3": "libnl.so.3.2",
            "etc/unwanted": b"x",
        }
    )
    asked: list[str] = []

    def wanted(path: str) -> bool:
        asked.append(path)
        return path.startswith("usr/")

    found = {member.path: member for member in packages.members(package, wanted)}
    assert found == {
        "usr/sbin/ipvsadm": Member("usr/sbin/ipvsadm", 0o755, b"\x7fELF"),
        "usr/share/doc/empty": Member("usr/share/doc/empty", 0o644, b""),
        "usr/lib/libnl.so.3": Member("usr/lib/libnl.so.3", 0o777, b"", "libnl.so.3.2"),
    }
    assert "etc/unwanted" in asked
    assert not any(path.startswith("./") for path in asked)


def test_whoever_has_found_enough_may_leave(make_deb: Callable[..., Path]) -> None:
    package = make_deb({f"usr/{number}": bytes(100_000) for number in range(20)})
    assert next(packages.members(package, lambda path: path == "usr/0")).path == "usr/0"


@pytest.mark.parametrize("kept", [0, 20, 100, 3000, 11_000])
def test_a_damaged_package(make_deb: Callable[..., Path], kept: int) -> None:
    package = make_deb({"usr/bin/program": bytes(10_000)})
    package.write_bytes(package.read_bytes()[:kept])
    with pytest.raises(BuildError, match="is not a whole Debian package") as caught:
        list(packages.members(package, lambda path: True))
    assert str(package) in caught.value.message


def test_a_file_that_is_no_package(tmp_path: Path, make_deb: Callable[..., Path]) -> None:
    (tmp_path / "text.deb").write_text("no package at all\n" * 1000)
    with pytest.raises(BuildError, match=r"text\.deb is not a whole Debian package"):
        list(packages.members(tmp_path / "text.deb", lambda path: True))


# --- what apt delivers ------------------------------------------------------------------------


def test_name_and_version_are_in_the_files_name(cache: Path) -> None:
    package = Package("iptables_1%3a1.8.9-2_amd64.deb", "00")
    assert (package.name, package.version) == ("iptables", "1:1.8.9-2")
    assert package.path == cache / "packages" / "iptables_1%3a1.8.9-2_amd64.deb"


def test_fetch_resolves_once_and_remembers(apt: Callable[[], list[str]]) -> None:
    (package,) = packages.fetch(["ipvsadm"])
    assert (package.name, package.version) == ("ipvsadm", "1:1.31-1")
    assert package.path.read_bytes() == CONTENT
    listed, downloaded = apt()
    for call in (listed, downloaded):
        assert call.endswith("install -y ipvsadm")
        # The machine's own packages play no part, and its caches are not written.
        assert "Dir::State::status=/dev/null" in call
        assert "Dir::Cache::pkgcache= " in call
        assert "APT::Install-Recommends=false" in call
    assert "--download-only" in downloaded
    assert "--print-uris" in listed
    assert packages.fetch(["ipvsadm"]) == (package,)
    assert len(apt()) == 2


def test_fetch_without_dependencies_installs_nothing(apt: Callable[[], list[str]]) -> None:
    packages.fetch(["ipvsadm"], dependencies=False)
    assert [call.split()[-2:] for call in apt()] == [["download", "ipvsadm"]] * 2


def test_what_was_deleted_from_the_cache_comes_back(apt: Callable[[], list[str]]) -> None:
    (package,) = packages.fetch(["ipvsadm"])
    package.path.unlink()
    assert packages.fetch(["ipvsadm"]) == (package,)
    assert package.path.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [b"", b"{", b'[{"file": "a"}]', b"[1]", b"[]"])
def test_a_memory_that_cannot_be_read_is_made_anew(apt: Callable[[], list[str]], content: bytes) -> None:
    packages.fetch(["ipvsadm"])
    (memory,) = packages.folder().glob("resolved-*.json")
    memory.write_bytes(content)
    assert packages.fetch(["ipvsadm"])[0].name == "ipvsadm"
    assert json.loads(memory.read_text())[0]["file"] == "ipvsadm_1%3a1.31-1_amd64.deb"


def test_a_package_present_already_is_not_downloaded_again(apt: Callable[[], list[str]]) -> None:
    packages.fetch(["ipvsadm"])
    assert packages.fetch(["ipvsadm"], dependencies=False) == packages.fetch(["ipvsadm"])
    assert len(apt()) == 3


def test_a_wrong_checksum(apt: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERS", "something else")
    for _ in range(2):
        with pytest.raises(BuildError, match="does not have the checksum that its archive names"):
            packages.fetch(["ipvsadm"])
    monkeypatch.setenv("DELIVERS", CONTENT.decode())
    assert packages.fetch(["ipvsadm"])[0].path.read_bytes() == CONTENT


def test_nothing_delivered(apt: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERS", "")
    with pytest.raises(BuildError, match=r"apt did not deliver ipvsadm_1%3a1\.31-1_amd64\.deb"):
        packages.fetch(["ipvsadm"])


def test_what_apt_does_not_have_is_looked_for_in_new_lists(apt: Callable[[], list[str]]) -> None:
    with pytest.raises(MachineError, match="apt cannot get what a guest is made of: apt-get") as caught:
        packages.fetch(["nowhere-to-be-found"])
    assert caught.value.hint == "E: Unable to locate package nowhere-to-be-found"
    first, update, second = apt()
    assert first == second
    assert update == "-qq update"


APT_CACHE = """#!/bin/sh
case "$*" in
*" show linux-image-cloud-amd64")
    echo "Package: linux-image-cloud-amd64"
    echo "Suggests: linux-doc, linux-image-0-suggested"
    echo "Depends: linux-base, linux-image-6.1.0-40-cloud-amd64 (= 6.1.153-1), linux-image-7" ;;
*) echo "Package: other" ;;
esac
"""


def test_the_package_behind_a_meta_package(
    debian: None, program: Callable[[str, str], Path], cache: Path
) -> None:
    put = program("apt-cache", APT_CACHE)
    wanted = re.compile(r"linux-image-\d")
    found = packages.depends_on("linux-image-cloud-amd64", wanted)
    assert found == "linux-image-6.1.0-40-cloud-amd64"
    put.write_text("#!/bin/sh\nexit 1\n")
    assert packages.depends_on("linux-image-cloud-amd64", wanted) == found


def test_a_meta_package_without_what_is_wanted(debian: None, program: Callable[[str, str], Path]) -> None:
    program("apt-cache", APT_CACHE)
    with pytest.raises(MachineError, match="debian-12 has no package other that brings"):
        packages.depends_on("other", re.compile(r"linux-image-\d"))


def test_which_distribution_this_is() -> None:
    try:
        assert re.fullmatch(r"[a-z]+-[a-z0-9.]+", packages.distribution())
    except MachineError as lacking:
        assert "has no apt" in lacking.message
