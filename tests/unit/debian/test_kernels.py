from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lvslab.debian import kernels, packages
from lvslab.debian.packages import Package
from lvslab.errors import BuildError, MachineError

META = "linux-image-cloud-amd64"
OLD = "linux-image-5.10.0-46-cloud-amd64"
SPLIT = "linux-image-7.2.13+deb14-cloud-amd64"


@pytest.fixture(autouse=True)
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """What Debian has: name to package. In META's place is what it depends on."""
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path / "cache"))
    packages.folder().mkdir(parents=True)
    has: dict[str, Path] = {}

    def fetch(names: list[str], *, dependencies: bool, release: str | None) -> tuple[Package, ...]:
        assert not dependencies and release == "sid"
        if names[0] not in has:
            raise MachineError(f"no {names[0]}")
        return (Package(has[names[0]].name, ""),)

    def depends_on(name: str, wanted: re.Pattern[str], *, release: str | None) -> str:
        assert name == META and release == "sid"
        return has[META].name

    monkeypatch.setattr(packages, "fetch", fetch)
    monkeypatch.setattr(packages, "depends_on", depends_on)
    return has


def put(archive: dict[str, Path], name: str, fields: Mapping[str, str], size: int = 0) -> Path:
    tree = packages.folder().parent / name
    (tree / "DEBIAN").mkdir(parents=True)
    fixed = {"Package": name, "Version": "1", "Architecture": "amd64", "Maintainer": "x", "Description": "x"}
    lines = "".join(f"{key}: {value}\n" for key, value in {**fixed, **fields}.items())
    (tree / "DEBIAN/control").write_text(lines)
    (tree / "content").write_bytes(bytes(size))
    archive[name] = packages.folder() / f"{name}_1_amd64.deb"
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, archive[name]]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return archive[name]


def test_a_package_with_kernel_and_modules(archive: dict[str, Path]) -> None:
    archive[META] = Path(OLD)
    path = put(archive, OLD, {"Depends": "kmod, linux-base"}, 2 << 20)
    assert kernels.kernel_packages("sid", META) == kernels.KernelPackages(path, path)


def test_a_kernel_that_comes_in_parts(archive: dict[str, Path]) -> None:
    archive[META] = Path(SPLIT)
    names = [SPLIT.replace("image", part) for part in ("base", "binary", "modules")]
    put(archive, SPLIT, {"Depends": f"dracut | x, {', '.join(f'{name} (= 7.2.13-1)' for name in names)}"})
    binary, modules = (put(archive, name, {}) for name in names[1:])
    assert kernels.kernel_packages("sid", META) == kernels.KernelPackages(binary, modules)


def test_a_package_without_a_kernel(archive: dict[str, Path]) -> None:
    archive[META] = Path(SPLIT)
    put(archive, SPLIT, {"Depends": "linux-base"})
    with pytest.raises(BuildError, match="neither holds a kernel nor depends on packages that do"):
        kernels.kernel_packages("sid", META)


def test_what_the_archive_has_no_more_is_looked_up_again(
    archive: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive[META] = Path("linux-image-5.10.0-45-cloud-amd64")
    path = put(archive, OLD, {}, 2 << 20)
    with pytest.raises(MachineError, match="no linux-image-5"):
        kernels.kernel_packages("sid", META)

    def forget(name: str, *, release: str | None) -> None:
        archive[META] = Path(OLD)

    monkeypatch.setattr(packages, "forget", forget)
    assert kernels.kernel_packages("sid", META).image == path


def test_whether_it_is_there_already(archive: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernels.present("sid", META)
    (packages.folder() / f"meta-debian-sid-{META}").write_text(OLD)
    assert not kernels.present("sid", META)
    put(archive, OLD, {})
    assert kernels.present("sid", META)
