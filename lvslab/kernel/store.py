"""The kernels that were built or imported: one folder each, with a manifest, there as a whole or not at all.

``kernels/built/VERSION-CONFIGHASH/`` in the cache holds ``bzImage``, ``config`` and ``build.log`` (where
there are any), ``manifest.json``, and ``lib/modules/RELEASE/kernel/``.
"""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lvslab import paths
from lvslab.cache import store
from lvslab.errors import UsageError
from lvslab.kernel import catalogue

MANIFEST = "manifest.json"
HASH_DIGITS = 12


@dataclass(frozen=True)
class Manifest:
    """What a kernel of the store is, and what it was made of.

    ``row`` is the catalogue's row that it was built by, "" where it was imported; ``release`` is what
    ``uname -r`` says; ``memory`` the MiB that a director gets; ``built`` seconds since
    1970; ``source`` what it was built from ("kernel.org", "debian-package", "tree", "unverified"; "" where
    it was imported); ``flags`` what make was given beside the targets; ``modules`` paths below
    ``lib/modules/RELEASE``.
    The sums are SHA-256 in hexadecimal; those of source and configuration are "" for what was imported.
    """

    row: str
    version: str
    release: str
    arch: str
    family: str
    image: str
    userland: str
    nic: str
    memory: int
    compiler: str
    flags: tuple[str, ...]
    source: str
    source_sha256: str
    config_sha256: str
    image_sha256: str
    built: int
    modules: tuple[str, ...]

    @property
    def release_of_catalogue(self) -> str:
        """The row whose source it was built from; "" for a tree, which is built as that row says, and is
        another version all the same, and for what was imported."""
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
        """When it was built or imported, or would have been if it had not been there; nanoseconds since
        1970."""
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
        """The modules folder, the one that holds ``kernel/``. May not exist: a kernel needs no modules."""
        return self.folder / "lib/modules" / self.manifest.release


def folder() -> Path:
    """Where the kernels are."""
    return paths.cache() / "kernels" / "built"


def name_of(version: str, config_sha256: str) -> str:
    """The folder's name for a kernel."""
    return f"{version}-{config_sha256[:HASH_DIGITS]}"


def read(place: Path) -> Built | None:
    """The kernel in the folder ``place``; None where it has no manifest that can be read."""
    try:
        row = json.loads((place / MANIFEST).read_bytes())
        row = {field.name: row[field.name] for field in fields(Manifest)}
        row.update(flags=tuple(row["flags"]), modules=tuple(row["modules"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Built(place, Manifest(**row))


def installed() -> tuple[Built, ...]:
    """The kernels that are there, by version, of one version the one that was asked for last at the end."""
    found = [read(place) for place in folder().glob("[!.]*")]
    return tuple(
        sorted(
            (built for built in found if built is not None),
            key=lambda built: (catalogue.numbers(built.manifest.version), built.asked_for, built.name),
        )
    )


def find(name: str) -> Built | None:
    """The kernel of the store for a folder's name, or of a version or a series (``2.6.18``) the last one: of
    one version that is the one that was built, imported or tried last."""
    return next(reversed(matching(name)), None)


def matching(name: str) -> tuple[Built, ...]:
    """Those of that folder name, else those of that version, else those whose source is that row's of the
    catalogue, else those of that series; in the order of ``installed``."""
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
    """The same kernel, which was asked for once more: of its version it is the last one now."""
    with suppress(OSError):  # a store that may only be read, or it was deleted meanwhile
        os.utime(built.folder)
    return built


def making(name: str) -> AbstractContextManager[Path]:
    """An empty folder to fill, on the store's own file system. What ``install`` has not taken is deleted."""
    from lvslab.cache import folders  # most commands only look

    return folders.making(folder(), name)


def install(made: Path, name: str, manifest: Manifest) -> Built:
    """Give the filled folder ``made`` its manifest and its name, in place of what has that name."""
    store.write(made / MANIFEST, json.dumps(asdict(manifest), indent=1).encode() + b"\n")
    with store.locked("kernels"):
        place = folder() / name
        if place.exists():
            _discard(place)
        made.rename(place)
    return Built(place, manifest)


def remove(name: str) -> Built:
    """Delete a kernel: the one of that folder name, or the only one of that version or series.

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
        _discard(found[0].folder)
    return found[0]


def _discard(place: Path) -> None:
    from lvslab.cache import folders

    folders.discard(place)
