from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lvslab.debian import libraries
from lvslab.debian.packages import Member, Package
from lvslab.errors import BuildError

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def mapped(name: str) -> Path:
    """The file that this very process has loaded as ``name``."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split(maxsplit=5)[-1])
        if path.name.startswith(name):
            return path
    pytest.skip(f"this Python runs without {name}")


@pytest.fixture
def true() -> bytes:
    content = Path("/bin/true").read_bytes()
    if content[:5] != b"\x7fELF\x02" or content[18:20] != b"\x3e\0":
        pytest.skip("this machine is not x86-64")
    return content


@pytest.fixture
def files(true: bytes) -> dict[str, Member]:
    """What a package has, with the machine's own ``true``, C library and loader as content."""
    library, loader = mapped("libc.so.6").read_bytes(), mapped("ld-linux-x86-64.so.2").read_bytes()
    return {
        "usr/bin/true": Member("usr/bin/true", 0o755, true),
        "usr/bin/script": Member("usr/bin/script", 0o755, b"#!/bin/sh\n"),
        "usr/bin/wahr": Member("bin/wahr", 0o777, b"", "true"),
        f"{LIBRARIES}/libc.so.6": Member(f"lib/{LIBRARIES}/libc.so.6", 0o755, library),
        f"{LIBRARIES}/ld-linux-x86-64.so.2": Member("ld", 0o755, loader),
        libraries.LOADER: Member(libraries.LOADER, 0o777, b"", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
        f"{LIBRARIES}/libother.so.1": Member("other", 0o644, b""),
    }


LOADED = {libraries.LOADER, f"{LIBRARIES}/ld-linux-x86-64.so.2"}


def test_a_program_brings_its_libraries_and_nothing_else(files: dict[str, Member]) -> None:
    found = libraries.closure(files, ["usr/bin/true"])
    assert found.keys() == {"usr/bin/true", f"{LIBRARIES}/libc.so.6", *LOADED}
    assert all(found[path] is files[path] for path in found)


def test_a_script_brings_the_loader_alone(files: dict[str, Member]) -> None:
    assert libraries.closure(files, ["usr/bin/script"]).keys() == {"usr/bin/script", *LOADED}


def test_a_link_brings_what_it_links_to(files: dict[str, Member]) -> None:
    assert "usr/bin/true" in libraries.closure(files, ["usr/bin/wahr"])
    files["usr/bin/weit"] = Member("usr/bin/weit", 0o777, b"", "../../bin/./wahr")
    assert libraries.closure(files, ["usr/bin/weit"]).keys() >= {"usr/bin/wahr", "usr/bin/true"}


def test_links_in_a_circle_end(files: dict[str, Member]) -> None:
    files["usr/bin/a"] = Member("usr/bin/a", 0o777, b"", "b")
    files["usr/bin/b"] = Member("usr/bin/b", 0o777, b"", "a")
    assert libraries.closure(files, ["usr/bin/a"]).keys() == {"usr/bin/a", "usr/bin/b", *LOADED}


def test_a_library_that_is_missing(files: dict[str, Member]) -> None:
    del files[f"{LIBRARIES}/libc.so.6"]
    with pytest.raises(BuildError, match=r"/usr/bin/true needs libc\.so\.6, which is in none"):
        libraries.closure(files, ["usr/bin/true"])


@pytest.mark.parametrize("missing", ["usr/bin/true", libraries.LOADER])
def test_a_program_that_is_missing(files: dict[str, Member], missing: str) -> None:
    del files[missing]
    with pytest.raises(BuildError, match=f"^/{missing} is in none of the packages"):
        libraries.closure(files, ["usr/bin/true"])


def test_needed_libraries(true: bytes) -> None:
    assert "libc.so.6" in libraries.needed_libraries(true)
    for other in (b"", b"#!/bin/sh\n", b"\x7fELF", true[:100], bytes(1000)):
        assert libraries.needed_libraries(other) == ()


@pytest.mark.parametrize(
    ("path", "today"),
    [
        ("bin/dash", "usr/bin/dash"),
        ("sbin/ipvsadm", "usr/sbin/ipvsadm"),
        ("lib/x/libc.so.6", "usr/lib/x/libc.so.6"),
        ("lib64/ld.so", "usr/lib64/ld.so"),
        ("usr/bin/dash", "usr/bin/dash"),
        ("libexec/x", "libexec/x"),
        ("etc/bin/x", "etc/bin/x"),
        ("init", "init"),
    ],
)
def test_merged(path: str, today: str) -> None:
    assert libraries.merged(path) == today


def test_files_of_packages(
    make_deb: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    (tmp_path / "packages").mkdir()
    made = [
        make_deb({"bin/dash": b"dash", "usr/share/doc/dash": b""}, name="dash"),
        make_deb({"usr/sbin/ip": b"ip"}, name="ip"),
    ]
    sources = [Package(package.rename(tmp_path / "packages" / package.name).name, "") for package in made]
    found = libraries.files_of(sources, lambda path: "bin/" in path)
    assert {path: member.content for path, member in found.items()} == {
        "usr/bin/dash": b"dash",
        "usr/sbin/ip": b"ip",
    }
    assert found["usr/bin/dash"].path == "bin/dash"
