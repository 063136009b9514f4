"""Job of a worker: a cell to try as data, with the checksums of the files that it boots from.

Only files that a worker lacks are sent to it. A worker looks for a file in its own cache, at the usual place
and among those that it was sent before, and checks the checksum.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lvslab import paths
from lvslab.cache import pinned, store
from lvslab.cluster import folder as lab_folder
from lvslab.cluster import prepare
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


class Job(BaseModel):
    """A cell to try. ``seed`` is that of the run, and ``checksums`` are for the result.

    ``files`` has the SHA-256 of each file that it boots from, and the place of that file in a cache that has
    made it itself ("" if there is none). ``prepared`` has checksums in place of paths. ``keys`` are the SSH
    keys that the images were made with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: Cell
    seed: int
    prepared: prepare.Prepared
    files: dict[str, str]
    keys: dict[str, str]
    checksums: dict[str, str]


def make(cell: Cell, seed: int) -> tuple[Job, dict[str, Path]]:
    """Make the job for ``cell``, and return it with its files by checksum.

    Files that are missing are fetched or built. Raises UsageError, MachineError, BuildError.
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
    made = Job(cell=cell, seed=seed, prepared=travelling, files=places, keys=keys.pair(), checksums=sums)
    return made, paths_of


def _ipvsadm(kernel_name: str, ipvsadm: str) -> str:
    """Checksum of the ipvsadm in an image: of the built program, or of the distribution's package."""
    if kernel.find(kernel_name).userland == "musl-i386":
        programs = musl_programs.programs(ipvsadm or musl_programs.IPVSADM)
        return store.checksum(programs.folder / "ipvsadm")
    if ipvsadm:
        return ipvsadm_build.today(ipvsadm).sha256
    found = packages.fetch(debian.PACKAGES)
    return next(package.sha256 for package in found if package.name == "ipvsadm")


def difference(wanted: Job, lvslab: str) -> str:
    """Describe how this machine differs from that of the job, "" if it does not.

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
    """Find a file of this content in the cache, at ``place`` or among those received."""
    for known in filter(None, (place, f"received/{sha256}")):
        path = (paths.cache() / known).resolve()
        if path.is_relative_to(paths.cache()) and path.is_file() and store.checksum(path) == sha256:
            return path
    return None


def receive(sha256: str, content: bytes) -> None:
    """Keep a file that was sent. Raises UsageError if it does not have that checksum."""
    path = store.write(paths.cache() / "received" / sha256, content)
    if store.sha256(path) != sha256:
        path.unlink()
        raise UsageError(f"a file that was sent is not the one with the SHA-256 {sha256}")


def lay_out(wanted: Job, folder: Path) -> None:
    """Pin the files of ``wanted`` in the existing ``folder`` (see `lvslab.cache.pinned`).

    All of them must be in this machine's cache.
    """

    def found(checksum: Path) -> Path:
        path = find(checksum.name, wanted.files[checksum.name])
        assert path is not None
        return path

    cell = wanted.cell
    lab = lab_files.find(cell.lab, paths.labs())
    (folder / pinned.FILE).write_bytes(wanted.prepared.moved(found).pinned(lab, cell.spec))
    for name, text in wanted.keys.items():
        store.write(folder / pinned.KEYS / name, text.encode(), mode=0o600)
