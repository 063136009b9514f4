from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

DebMaker = Callable[..., Path]


@pytest.fixture
def make_deb(tmp_path: Path) -> DebMaker:
    """Makes ``NAME_VERSION_amd64.deb`` of files (path to content, a symbolic link's target being text)."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")

    def make(files: Mapping[str, bytes | str], name: str = "example", version: str = "1.0-1") -> Path:
        tree = tmp_path / f"tree-of-{name}"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
            "Maintainer: Nobody <nobody@example.org>\nDescription: for a test\n"
        )
        for path, content in files.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.symlink_to(content)
            else:
                file.write_bytes(content)
                file.chmod(0o755 if "bin/" in path else 0o644)
        package = tmp_path / f"{name}_{version}_amd64.deb"
        build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, package]
        subprocess.run(build, stdout=subprocess.DEVNULL, check=True)
        return package

    return make


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a program of ours, a script with its ``#!`` line, before all others of its name."""
    folder = tmp_path / "programs"

    def put(name: str, script: str) -> Path:
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        (folder / name).write_text(script)
        (folder / name).chmod(stat.S_IRWXU)
        return folder / name

    return put
