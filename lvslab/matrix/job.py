"""A cell as it travels to the process that tries it: data, with checksums of the files that it boots from.

Files travel only where they are lacking. Whoever tries a cell looks in its own cache, by a file's place
there and among what it was sent before, and believes nothing but the checksum.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lvslab import paths
from lvslab.cache import pinned, store
from lvslab.cluster import folder as lab_folder
from lvslab.cluster import prepare
from lvslab.cluster.prepare import Prepared
from lvslab.debian import packages
from lvslab.errors import LvsLabError, UsageError
from lvslab.guest import debian, keys
from lvslab.kernel import find as kernel
from lvslab.kernel import store as kernel_store
from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build
from lvslab.kernel.toolchain import musl_programs
from lvslab.lab import files as lab_files
from lvslab.matrix.results import Cell
from lvslab.report import checksums


class Order(BaseModel):
    """A cell to be tried. ``seed`` is that of the run, and ``checksums`` are those of the result.

    ``files`` are those that it boots from: the SHA-256 of each, and its place in a cache that has made it
    itself ("" for none). ``prepared`` has their checksums for paths. ``keys`` are the SSH keys that the
    images were made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: Cell
    seed: int
    prepared: Prepared
    files: dict[str, str]
    keys: dict[str, str]
    checksums: dict[str, str]


def order(cell: Cell, seed: int) -> tuple[Order, dict[str, Path]]:
    """Prepare the order to try ``cell``, and return it with the paths of its files by checksum.

    Raises UsageError, MachineError, BuildError.
    """
    folder = lab_files.find(cell.lab, paths.labs())
    lab = lab_folder.lab(folder)
    found = prepare.prepared(lab, cell.spec)
    places, paths_of = dict[str, str](), dict[str, Path]()

    def checksum_of(path: Path) -> Path:
        checksum, cache = store.checksum(path), paths.cache()
        paths_of[checksum] = path
        places[checksum] = str(path.relative_to(cache)) if path.is_relative_to(cache) else ""
        return Path(checksum)

    travelling = found.moved(checksum_of)
    director = next(name for name in found.boots if name in lab.directors)
    sums = {
        "kernel": str(travelling.boots[director].kernel),
        "image": str(travelling.boots[director].initrd),
        "ipvsadm": _ipvsadm(cell.kernel or lab.nodes[director].kernel or "", cell.ipvsadm),
        "lab": checksums.of_folder(folder),
        "lvslab": checksums.of_lvslab(),
    }
    built = kernel_store.read(found.boots[director].kernel.parent)
    if built is not None:
        # Modules may differ where the kernel's image does not: what was compiled tells.
        about = {"config": built.manifest.config_sha256, "source": built.manifest.source_sha256}
        sums |= {name: checksum for name, checksum in about.items() if checksum}
    made = Order(cell=cell, seed=seed, prepared=travelling, files=places, keys=keys.pair(), checksums=sums)
    return made, paths_of


def _ipvsadm(kernel_name: str, ipvsadm: str) -> str:
    """Return the checksum of an image's ipvsadm: of the program, or of the distribution's package."""
    if kernel.find(kernel_name).userland == "musl-i386":
        programs = musl_programs.programs(ipvsadm or musl_programs.IPVSADM)
        return store.checksum(programs.folder / "ipvsadm")
    if ipvsadm:
        return ipvsadm_build.today(ipvsadm).sha256
    found = packages.fetch(debian.PACKAGES)
    return next(package.sha256 for package in found if package.name == "ipvsadm")


def difference(wanted: Order, lvslab: str) -> str:
    """Describe a difference between this machine and the one that ``wanted`` comes from; "" without one.

    ``lvslab`` is the checksum of the code that runs here.
    """
    if lvslab != wanted.checksums["lvslab"]:
        return "it has another version of lvslab's code"
    try:
        folder = lab_files.find(wanted.cell.lab, paths.labs())
    except LvsLabError as lacking:
        return lacking.message
    if checksums.of_folder(folder) != wanted.checksums["lab"]:
        return f"its lab {wanted.cell.lab} is another one"
    return ""


def find(sha256: str, place: str = "") -> Path | None:
    """Find a file in this machine's cache, at ``place`` or among those that were sent. None where there is
    none with this content."""
    for known in filter(None, (place, f"received/{sha256}")):
        path = (paths.cache() / known).resolve()
        if path.is_relative_to(paths.cache()) and path.is_file() and store.checksum(path) == sha256:
            return path
    return None


def receive(sha256: str, content: bytes) -> None:
    """Keep a file that was sent. Raises UsageError where it is not what it is said to be."""
    path = store.write(paths.cache() / "received" / sha256, content)
    if store.sha256(path) != sha256:
        path.unlink()
        raise UsageError(f"a file that was sent is not the one with the SHA-256 {sha256}")


def lay_out(wanted: Order, folder: Path) -> None:
    """Pin the files of ``wanted`` in ``folder``, which is there (`lvslab.cache.pinned`). All of them are in
    this machine's cache."""

    def found(checksum: Path) -> Path:
        path = find(checksum.name, wanted.files[checksum.name])
        assert path is not None
        return path

    cell = wanted.cell
    lab = lab_files.find(cell.lab, paths.labs())
    (folder / pinned.FILE).write_bytes(wanted.prepared.moved(found).pinned(lab, cell.spec))
    for name, text in wanted.keys.items():
        store.write(folder / pinned.KEYS / name, text.encode(), mode=0o600)
