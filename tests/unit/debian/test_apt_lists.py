from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab import requirements
from lvslab.debian import apt_lists
from lvslab.errors import MachineError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(apt_lists, "KEYRING", keyring)
    return tmp_path / "cache"


# An apt-get whose mirrors have nothing but what is named in $SERVED.
APT_GET = """#!/bin/sh
for word; do case "$word" in Dir::Etc::sourcelist=*) list=${word#*=} ;; esac; done
echo "$*" >> "$APT_CALLS"
grep -q "$SERVED" "$list" || { echo "E: no Release file" >&2; exit 100; }
"""


@pytest.fixture
def served(
    tmp_path: Path, program: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Says which mirror has something."""
    program("apt-get", APT_GET)
    monkeypatch.setenv("APT_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(apt_lists, "mirrors", lambda: ("http://mirror/debian/", "http://mirror/security/"))
    return lambda uri: monkeypatch.setenv("SERVED", uri)


TARGETS = """\
Debian|Debian|http://ftp.example.org/debian
Debian|Debian|http://second.example.org/debian/
nodesource|nodesource|https://deb.example.org/node/
Debian|Debian-Security|https://sec.example.org/debian-security/
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TARGETS, ("http://ftp.example.org/debian/", "https://sec.example.org/debian-security/")),
        ("Ubuntu|Ubuntu|http://archive.ubuntu.com/ubuntu/\n", (apt_lists.MAIN, apt_lists.SECURITY)),
        ("Debian|Debian|cdrom:[Debian 12]/\n", (apt_lists.MAIN, apt_lists.SECURITY)),
        ("Debian|Debian|file:/srv/debian\n", ("file:/srv/debian/", apt_lists.SECURITY)),
        ("", (apt_lists.MAIN, apt_lists.SECURITY)),
    ],
)
def test_the_machines_mirrors(text: str, found: tuple[str, str]) -> None:
    assert apt_lists.mirrors_of(text) == found


def test_a_sources_list() -> None:
    key = apt_lists.KEYRING
    assert apt_lists.sources_list("trixie", "http://m/debian/", "http://m/security/") == (
        f"deb [arch=amd64 signed-by={key}] http://m/debian/ trixie main\n"
        f"deb [arch=amd64 signed-by={key}] http://m/security/ trixie-security main\n"
    )
    sid = apt_lists.sources_list("sid", "http://m/debian/", "http://m/security/")
    assert sid == f"deb [arch=amd64 signed-by={key}] http://m/debian/ sid main\n"


def test_the_archives_lists_never_expire() -> None:
    for uri in (apt_lists.ARCHIVE_MAIN, "https://snapshot.debian.org/archive/debian/20240101T000000Z/"):
        assert "check-valid-until=no" in apt_lists.sources_list("sid", uri, uri)


def test_apt_sees_the_release_alone(cache: Path) -> None:
    words = apt_lists.options("trixie")
    assert set(words[::2]) == {"-o"}
    place = cache / "apt/trixie"
    assert f"Dir::Etc::sourcelist={place}/sources.list" in words
    assert f"Dir::State::lists={place}/lists" in words
    assert "Dir::Etc::sourceparts=/dev/null" in words
    assert "Dir::State::status=/dev/null" in words


def test_without_debians_keys(tmp_path: Path) -> None:
    apt_lists.KEYRING.unlink()
    with pytest.raises(MachineError, match="nothing verifies packages of Debian sid") as caught:
        apt_lists.options("sid")
    assert caught.value.hint == "apt-get install --no-install-recommends debian-archive-keyring"


@pytest.mark.parametrize("release", ["", "../x", "a b", "Sid", "12"])
def test_a_release_that_is_none(release: str) -> None:
    with pytest.raises(UsageError, match="is not a release of Debian"):
        apt_lists.options(release)


@pytest.mark.parametrize(
    ("has_it", "asked"), [("http://mirror/", 1), ("deb.debian.org", 2), ("archive.debian.org", 3)]
)
def test_an_old_release_is_looked_for_in_the_archive(
    served: Callable[[str], None], cache: Path, tmp_path: Path, has_it: str, asked: int
) -> None:
    served(has_it)
    apt_lists.update("bullseye")
    assert has_it in (cache / "apt/bullseye/sources.list").read_text()
    assert len((tmp_path / "calls").read_text().splitlines()) == asked


def test_a_release_that_no_mirror_has(served: Callable[[str], None], cache: Path) -> None:
    served("nowhere")
    with pytest.raises(MachineError, match="cannot get the package lists of Debian nosuch") as caught:
        apt_lists.update("nosuch")
    assert caught.value.hint == "E: no Release file"
    assert not (cache / "apt/nosuch/sources.list").exists()


def test_this_machines_own_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    assert apt_lists.is_own("bookworm") and not apt_lists.is_own("trixie")
    monkeypatch.setattr(requirements, "os_release", lambda: {"ID": "other", "VERSION_CODENAME": "bookworm"})
    assert not apt_lists.is_own("bookworm")
