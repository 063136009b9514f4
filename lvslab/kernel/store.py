"""Kernels that were built or imported: one folder each, with a manifest, whole or not at all.

``kernels/built/VERSION-CONFIGHASH/`` in the cache holds ``bzImage``, ``config`` and ``build.log`` (where
there are any), ``manifest.json``, and ``lib/modules/RELEASE/kernel/``.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from operator import attrgetter
from pathlib import Path

from lvslab import paths
from lvslab.cache import folders, store
from lvslab.errors import UsageError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Arch, ImageKind, Userland

MANIFEST = "manifest.json"
HASH_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Properties of a kernel of the store; the defaults are an imported kernel's.

    ``row`` is the catalogue's row that it was built by; ``release`` what ``uname -r`` says; ``memory`` the
    MiB that a director gets; ``built`` seconds since 1970; ``source`` what it was built from ("kernel.org",
    "debian-package", "tree", "unverified"); ``flags`` what make was given beside the targets; ``modules``
    paths below ``lib/modules/RELEASE``. The sums are SHA-256 in hexadecimal, or "".
    """

    row: str = ""
    version: str
    release: str
    arch: Arch
    family: str
    image: ImageKind
    userland: Userland
    nic: str
    memory: int
    compiler: str = ""
    flags: tuple[str, ...] = ()
    source: str = ""
    source_sha256: str = ""
    config_sha256: str
    image_sha256: str
    built: int
    modules: tuple[str, ...]

    @property
    def release_of_catalogue(self) -> str:
        """The row of the release it was built from; "" for trees and imports."""
        return "" if self.source == "tree" else self.row


@dataclass(frozen=True)
class Built:
    """A kernel of the store."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """``VERSION-CONFIGHASH``."""
        return self.folder.name

    @property
    def asked_for(self) -> int:
        """Nanoseconds since 1970 when it was last built, imported or asked for."""
        try:
            return self.folder.stat().st_mtime_ns
        except FileNotFoundError:  # deleted since it was read
            return 0

    @property
    def image(self) -> Path:
        return self.folder / "bzImage"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def log(self) -> Path:
        return self.folder / "build.log"

    @property
    def modules(self) -> Path:
        """The modules folder, which holds ``kernel/``. It may be missing: a kernel needs no modules."""
        return self.folder / "lib/modules" / self.manifest.release


def folder() -> Path:
    """Return the store's folder."""
    return paths.cache() / "kernels" / "built"


def name_of(version: str, config_sha256: str) -> str:
    """Return the name of a kernel's folder."""
    return f"{version}-{config_sha256[:HASH_DIGITS]}"


def read(place: Path) -> Built | None:
    """Return the kernel in the folder ``place``; None where it has no valid manifest."""
    try:
        row = json.loads((place / MANIFEST).read_bytes())
        row = {field.name: row[field.name] for field in fields(Manifest)}
        row.update(flags=tuple(row["flags"]), modules=tuple(row["modules"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Built(place, Manifest(**row))


def installed() -> tuple[Built, ...]:
    """Return all kernels by version, those of one version by `asked_for`."""
    found = filter(None, (read(place) for place in folder().glob("[!.]*")))
    order = attrgetter("asked_for", "name")
    return tuple(sorted(found, key=lambda built: (catalogue.numbers(built.manifest.version), order(built))))


def find(name: str) -> Built | None:
    """Return the last kernel of a folder name, a version or a series (``2.6.18``)."""
    return next(reversed(matching(name)), None)


def matching(name: str) -> tuple[Built, ...]:
    """Return the kernels of a folder name, else of a version, catalogue row or series.

    The order is that of `installed`.
    """
    there = installed()
    for called in (
        lambda built: built.name,
        lambda built: built.manifest.version,
        lambda built: built.manifest.release_of_catalogue,
        lambda built: catalogue.series(built.manifest.version),
    ):
        if name and (found := tuple(built for built in there if called(built) == name)):
            return found
    return ()


def again(built: Built) -> Built:
    """Mark a kernel as the last one asked for of its version, and return it."""
    with suppress(OSError):  # a store that may only be read, or it was deleted meanwhile
        os.utime(built.folder)
    return built


def install(made: Path, name: str, manifest: Manifest) -> Built:
    """Give the filled folder ``made`` its manifest, and let it replace the kernel ``name``."""
    store.write(made / MANIFEST, json.dumps(asdict(manifest), indent=1).encode() + b"\n")
    with store.locked("kernels"):
        place = folder() / name
        if place.exists():
            folders.discard(place)
        made.rename(place)
    return Built(place, manifest)


def remove(name: str) -> Built:
    """Delete the kernel of a folder name or the only one of a version.

    Raises UsageError where there is none, or more than one.
    """
    with store.locked("kernels"):
        found = matching(name)
        if not found:
            names = [built.name for built in installed()]
            if not names:
                raise UsageError(f"no kernel '{name}' in the store: it is empty")
            raise catalogue.unknown("kernel in the store", name, names)
        if len(found) > 1:
            names = [built.name for built in found]
            raise UsageError(f"{name} is more than one kernel", f"say which: {', '.join(names)}")
        folders.discard(found[0].folder)
    return found[0]
