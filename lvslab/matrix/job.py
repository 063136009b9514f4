"""A cell as it travels to the process that tries it: data, with checksums of the files that it boots from.

Files travel only where they are lacking. Whoever tries a cell looks in its own cache, by a file's place
there and among what it was sent before, and believes nothing but the checksum.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lvslab import paths
from lvslab.boot import plan
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
from lvslab.lab import model
from lvslab.matrix.results import Cell
from lvslab.report import checksums


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Data):
    """A file by its SHA-256. ``place`` is where it is in a cache that has made it itself, "" for nowhere."""

    sha256: str
    place: str = ""


class Boot(_Data):
    """What a virtual machine boots, as `plan.Bootable` has it."""

    kernel: File
    image: File
    release: str
    identity: str
    image_kind: str
    nic: str
    memory: int


class Order(_Data):
    """A cell to be tried. ``seed`` is that of the run; ``nodes`` are its virtual machines, ``servers`` the
    archives of servers by kind; ``keys`` are the SSH keys that the images were made with; ``checksums`` are
    those of the result."""

    cell: Cell
    seed: int
    nodes: dict[str, Boot]
    versions: dict[str, str]
    servers: dict[str, File]
    keys: dict[str, str]
    checksums: dict[str, str]

    @property
    def files(self) -> dict[str, File]:
        """All that it boots from, by checksum."""
        found = [file for boot in self.nodes.values() for file in (boot.kernel, boot.image)]
        return {file.sha256: file for file in (*found, *self.servers.values())}


def order(cell: Cell, seed: int) -> tuple[Order, dict[str, Path]]:
    """What it takes to try ``cell``, fetched and made where it is not there, and where its files are, by
    checksum. Raises UsageError, MachineError, BuildError."""
    folder = model.find(cell.lab, paths.labs())
    lab = lab_folder.lab(folder)
    bootables, versions = prepare.bootables(lab, cell.spec)
    archives = prepare.bundles(lab, plan.hosts_of(lab), cell.spec)
    found: dict[str, Path] = {}

    def file(path: Path) -> File:
        checksum = store.checksum(path)
        found[checksum] = path
        in_cache = path.is_relative_to(paths.cache())
        return File(sha256=checksum, place=str(path.relative_to(paths.cache())) if in_cache else "")

    nodes = {
        name: Boot(
            kernel=file(bootable.kernel),
            image=file(bootable.initrd),
            release=bootable.release,
            identity=bootable.identity,
            image_kind=bootable.image_kind,
            nic=bootable.nic,
            memory=bootable.memory,
        )
        for name, bootable in bootables.items()
    }
    director = next(name for name in nodes if name in lab.directors)
    sums = {
        "kernel": nodes[director].kernel.sha256,
        "image": nodes[director].image.sha256,
        "ipvsadm": _ipvsadm(cell.kernel or lab.nodes[director].kernel or "", cell.ipvsadm),
        "lab": checksums.of_folder(folder),
        "lvslab": checksums.of_lvslab(),
    }
    built = kernel_store.read(bootables[director].kernel.parent)
    if built is not None:
        # Modules may differ where the kernel's image does not: what was compiled tells.
        about = {"config": built.manifest.config_sha256, "source": built.manifest.source_sha256}
        sums |= {name: checksum for name, checksum in about.items() if checksum}
    made = Order(
        cell=cell,
        seed=seed,
        nodes=nodes,
        versions=dict(versions),
        servers={kind: file(path) for kind, path in archives.items()},
        keys=keys.pair(),
        checksums=sums,
    )
    return made, found


def _ipvsadm(kernel_name: str, ipvsadm: str) -> str:
    """The checksum of the ipvsadm in an image: of the program that was built, or of the distribution's
    package."""
    if kernel.find(kernel_name).userland == "musl-i386":
        programs = musl_programs.programs(ipvsadm or musl_programs.IPVSADM)
        return store.checksum(programs.folder / "ipvsadm")
    if ipvsadm:
        return ipvsadm_build.today(ipvsadm).sha256
    found = packages.fetch(debian.PACKAGES)
    return next(package.sha256 for package in found if package.name == "ipvsadm")


def difference(wanted: Order, lvslab: str) -> str:
    """What is not here as it is where ``wanted`` comes from, in words; "" for nothing. ``lvslab`` is the
    checksum of the code that runs here."""
    if lvslab != wanted.checksums["lvslab"]:
        return "it has another version of lvslab's code"
    try:
        folder = model.find(wanted.cell.lab, paths.labs())
    except LvsLabError as lacking:
        return lacking.message
    if checksums.of_folder(folder) != wanted.checksums["lab"]:
        return f"its lab {wanted.cell.lab} is another one"
    return ""


def find(file: File) -> Path | None:
    """Where ``file`` is in this machine's cache; None where it is not, or not with this content."""
    for place in filter(None, (file.place, f"received/{file.sha256}")):
        path = (paths.cache() / place).resolve()
        if path.is_relative_to(paths.cache()) and path.is_file() and store.checksum(path) == file.sha256:
            return path
    return None


def receive(sha256: str, content: bytes) -> None:
    """Keep a file that was sent. Raises UsageError where it is not what it is said to be."""
    path = store.write(paths.cache() / "received" / sha256, content)
    if store.sha256(path) != sha256:
        path.unlink()
        raise UsageError(f"a file that was sent is not the one with the SHA-256 {sha256}")


def lay_out(wanted: Order, folder: Path) -> None:
    """Put what ``wanted`` boots from into ``folder``, which is there, for `lvslab.cache.pinned`. All of its
    files are in this machine's cache."""

    def found(file: File) -> Path:
        path = find(file)
        assert path is not None
        return path

    nodes = {
        name: plan.Bootable(
            found(boot.kernel),
            boot.release,
            found(boot.image),
            boot.identity,
            boot.image_kind,
            boot.nic,
            boot.memory,
        )
        for name, boot in wanted.nodes.items()
    }
    cell = wanted.cell
    document = prepare.given_for(
        model.find(cell.lab, paths.labs()),
        cell.spec,
        nodes,
        wanted.versions,
        {kind: found(file) for kind, file in wanted.servers.items()},
    )
    (folder / pinned.FILE).write_bytes(document)
    for name, text in wanted.keys.items():
        store.write(folder / pinned.KEYS / name, text.encode(), mode=0o600)
