"""What a lab adds to an image, and how it meets what every image has."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lvslab.debian import packages
from lvslab.debian.packages import Package
from lvslab.guest import additions
from lvslab.guest.additions import Additions, PathTaken
from lvslab.guest.formats import FILE, LINK, PROGRAM, Entry

USUAL = [
    Entry("bin", LINK, b"usr/bin"),
    Entry("usr/bin/ip", PROGRAM, b"usual"),
    Entry("etc/lvslab/agent", PROGRAM, b"agent"),
    Entry("etc/sysctl.conf", FILE, b"# usual"),
]


@pytest.fixture
def fetched(
    make_deb: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Package, ...]:
    """Packages in the cache: balancer, which depends on helper and libc6."""
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    packages.folder().mkdir(parents=True)
    files: Mapping[str, Mapping[str, bytes | str]] = {
        "balancer": {
            "usr/sbin/balancer": b"program",
            "usr/sbin/bal": "balancer",
            "bin/ip": b"another",
            "sbin/init": b"another",
            "etc/balancer/balancer.conf": b"usual",
            "usr/share/doc/balancer/copyright": b"text",
        },
        "helper": {"usr/bin/helper": b"program"},
        "libc6": {"lib64/ld-linux-x86-64.so.2": b"loader"},
    }
    made = []
    for name, content in files.items():
        file = make_deb(content, name=name)
        shutil.copy(file, packages.folder())
        made.append(Package(file.name, f"checksum of {name}"))
    return tuple(made)


def found(more: Additions, fetched: tuple[Package, ...] = ()) -> dict[str, Entry]:
    return {entry.path: entry for entry in additions.entries(more, fetched, USUAL)}


def test_a_package_comes_whole_but_for_texts_and_what_is_there_already(fetched: tuple[Package, ...]) -> None:
    entries = found(Additions(("balancer",)), fetched)
    assert (entries["usr/sbin/balancer"].mode, entries["usr/sbin/balancer"].content) == (PROGRAM, b"program")
    assert (entries["usr/sbin/bal"].mode, entries["usr/sbin/bal"].content) == (LINK, b"balancer")
    assert stat.S_ISDIR(entries["etc/balancer"].mode)
    assert not entries.keys() & {"usr/bin/ip", "bin/ip", "usr/sbin/init", "usr/bin/helper", "usr/bin"}
    assert not [path for path in entries if path.startswith("usr/share/doc")]


def test_a_file_of_the_lab_comes_before_that_of_a_package(fetched: tuple[Package, ...]) -> None:
    own = {"/etc/balancer/balancer.conf": Entry("own", FILE, b"own")}
    entries = found(Additions(("balancer",), own), fetched)
    assert entries["etc/balancer/balancer.conf"].content == b"own"


def test_files_alone() -> None:
    own = {"/bin/look": Entry("own", PROGRAM, b"look"), "/etc/sysctl.conf": Entry("own", FILE, b"own")}
    assert found(Additions((), own)) == {
        "usr/bin/look": Entry("usr/bin/look", PROGRAM, b"look"),
        "etc/sysctl.conf": Entry("etc/sysctl.conf", FILE, b"own"),
    }


@pytest.mark.parametrize(
    "path",
    ["/usr/bin/ip", "/bin/ip", "/etc/lvslab/agent", "/etc", "/usr/bin/ip/below", "/etc/sysctl.conf/below"],
)
def test_a_path_that_is_taken(path: str) -> None:
    with pytest.raises(PathTaken, match=f"^{path} is lvslab's own") as caught:
        found(Additions((), {path: Entry("own", FILE, b"own")}))
    assert caught.value.path == path


def test_nothing_changes_nothing() -> None:
    assert not additions.NONE
    assert additions.NONE.inputs(()) == []
    assert found(additions.NONE) == {}


def test_whatever_is_added_differently_makes_another_image(fetched: tuple[Package, ...]) -> None:
    def key(names: tuple[str, ...], path: str, mode: int, content: bytes) -> str:
        return str(Additions(names, {path: Entry("own", mode, content)}).inputs(fetched))

    keys = {
        key(("balancer",), "/a", FILE, b"1"),
        key(("helper",), "/a", FILE, b"1"),
        key(("balancer",), "/b", FILE, b"1"),
        key(("balancer",), "/a", PROGRAM, b"1"),
        key(("balancer",), "/a", FILE, b"2"),
    }
    assert len(keys) == 5
