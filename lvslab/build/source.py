"""Source tarballs in the cache: downloaded once, verified, unpacked."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from lvslab import paths
from lvslab.build import catalogue, store
from lvslab.build.catalogue import Source
from lvslab.errors import BuildError, CommandFailed, LvsLabError
from lvslab.run import run

log = logging.getLogger("lvslab.build.source")

DEBIAN = ("http://deb.debian.org/debian/", "http://archive.debian.org/debian/")


def folder() -> Path:
    """Where verified tarballs are kept."""
    return paths.cache() / "sources"


def get(name: str, *, insecure: bool = False) -> Path:
    """The verified tarball for a name of the catalogue's sources or kernels, in the cache.

    Raises UsageError for an unknown name, BuildError where it cannot be had or is not what it should be.
    """
    source = catalogue.source(name)
    path = folder() / source.file
    if not path.exists():
        with store.locked(f"source-{source.file}"):
            if not path.exists():
                _fetch(source, path)
    return path


def checksum(tarball: Path) -> str:
    """The SHA-256 of a tarball that ``get`` returned, in hexadecimal."""
    return store.sha256(tarball)


def unpack(tarball: Path, folder: Path) -> Path:
    """Make ``folder`` the top folder of ``tarball``: at once, or not at all. Raises BuildError."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        place = Path(made) / "unpacked"
        place.mkdir()
        try:
            run(["tar", "--extract", "--no-same-owner", "--file", tarball, "--directory", place])
        except CommandFailed as failed:
            raise BuildError(f"{tarball} cannot be unpacked: {failed.message}", failed.hint) from None
        inside = list(place.iterdir())
        top = inside[0] if len(inside) == 1 and inside[0].is_dir() else place
        if folder.exists():
            shutil.rmtree(folder)
        top.rename(folder)
    return folder


def _fetch(source: Source, path: Path) -> None:
    if source.place != "debian":
        raise BuildError(f"{source.file} cannot be downloaded yet", "put it there: " + str(path))
    folder().mkdir(parents=True, exist_ok=True)
    log.info("downloading %s", source.file)
    problem: LvsLabError | None = None
    for mirror in DEBIAN:
        with tempfile.TemporaryDirectory(dir=folder(), prefix=".apt-") as made:
            part = Path(made) / source.file
            uri = mirror + source.path.replace("+", "%2b")
            try:
                run(["/usr/lib/apt/apt-helper", *_AS_ROOT, "download-file", uri, part,
                     f"SHA256:{source.sha256}"])  # fmt: skip
            except CommandFailed as failed:
                problem = failed
                continue
            os.chmod(part, 0o644)
            part.rename(path)
            return
    assert problem is not None
    raise BuildError(f"{source.file} cannot be had: {problem.message}", problem.hint)


_AS_ROOT = ("-o", "APT::Sandbox::User=root")
