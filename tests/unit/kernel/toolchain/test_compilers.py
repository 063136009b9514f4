from __future__ import annotations

import json
from pathlib import Path

import pytest

from lvslab.cli.text import toolchain
from lvslab.errors import UsageError
from lvslab.kernel.toolchain import compilers, component, musl_programs
from lvslab.kernel.toolchain.component import Built, Component


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is built, in that order. Nothing is."""
    names: list[str] = []

    def build(part: Component) -> Built:
        names.append(part.name)
        folder = tmp_path / part.name
        folder.mkdir(exist_ok=True)
        others = {"iptables": ["xtables-legacy-multi"], "busybox": ["busybox", "clock", "linked", "reseed"]}
        files = others.get(part.program, [part.program])
        for file in files:
            (folder / file).write_text(part.name)
        sums = dict.fromkeys(files, part.name)
        return Built(folder, part.name, "key of " + part.name, "s", sums, "gcc 12", 61.4, 1)

    monkeypatch.setattr(component, "build", build)
    return names


def test_what_old_kernels_and_their_guests_need(asked: list[str]) -> None:
    usual = compilers.usual()
    assert usual[0] == "gcc-3.4.6"
    assert {Component(name).program for name in usual} == {
        "gcc",
        "busybox",
        "dropbear",
        "iptables",
        "ipvsadm",
    }
    assert set(usual) <= set(compilers.names())
    assert list(compilers.build(usual)) == usual == asked


def test_an_unknown_name_is_told_before_anything_is_built(asked: list[str]) -> None:
    with pytest.raises(UsageError, match=r"no toolchain 'gcc-3\.4'") as refused:
        compilers.build(["popt-1.19", "gcc-3.4"])
    assert "gcc-3.4.6" in (refused.value.hint or "")
    assert asked == []


def put(part: Component, key: str) -> Path:
    """A component in the cache that was built by whatever recipe has that key."""
    folder = component.folder() / f"{part.name}-{key[:12]}"
    folder.mkdir(parents=True)
    about = {"name": part.name, "key": key, "source_sha256": "s", "files": {}, "compiler": "gcc 12"}
    (folder / "manifest.json").write_text(json.dumps({**about, "seconds": 61.4, "built": 1}))
    return folder


def test_the_list_tells_what_is_there_and_what_is_of_another_recipe() -> None:
    gcc, popt = Component("gcc-3.4.6"), Component("popt-1.19")
    current = put(gcc, component.key(gcc))
    put(gcc, "f" * 64)
    old = put(popt, "0" * 64)
    rows = {row["name"]: row for row in compilers.listed()}
    assert list(rows) == compilers.names()
    states = {name: rows[name]["state"] for name in ("gcc-3.4.6", "popt-1.19", "musl-1.2.3")}
    assert states == {"gcc-3.4.6": "built", "popt-1.19": "outdated", "musl-1.2.3": "not built"}
    folders = [rows[name]["folder"] for name in ("gcc-3.4.6", "popt-1.19", "musl-1.2.3")]
    assert folders == [str(current), str(old), None]
    text = toolchain.listed(list(rows.values())).splitlines()
    assert text[1].startswith("  gcc-3.4.6 ") and "  the C compiler for Linux 2.4 and 2.6  " in text[1]
    assert text[1].split()[-3:] == ["built", "61", "s"]


def test_the_programs_are_put_together_in_one_folder(asked: list[str], cache: Path) -> None:
    found = musl_programs.programs("1.29")
    assert sorted(file.name for file in found.folder.iterdir()) == [
        "busybox", "clock", "dropbear", "ipvsadm", "linked", "reseed", "xtables-legacy-multi",
    ]  # fmt: skip
    assert all(file.stat().st_mode & 0o111 for file in found.folder.iterdir())
    assert found.versions["ipvsadm"] == "1.29" and found.versions["iptables"] == "1.8.9"
    assert found.folder.is_relative_to(cache)
    other = musl_programs.programs()
    assert other.versions["ipvsadm"] == "1.31"
    assert (other.key, other.folder) != (found.key, found.folder)
    assert musl_programs.programs("1.29") == found
