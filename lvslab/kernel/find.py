"""Find the kernel for a director: the distribution's, one from the store, or a file of the user's."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.cache import store
from lvslab.debian import kernels, packages
from lvslab.errors import BuildError, UsageError
from lvslab.kernel import catalogue, modules
from lvslab.kernel import store as kernel_store
from lvslab.kernel.catalogue import Arch, ImageKind, Userland
from lvslab.kernel.store import Built

# Name in lab.yaml and on the command line -> the distribution's package that depends on the newest one.
DISTRIBUTION = {"debian-cloud": "linux-image-cloud-amd64", "debian": "linux-image-amd64"}


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot: ``image`` is a bzImage, ``release`` is what ``uname -r`` prints.

    ``module_source`` is a Debian package or a modules folder; None where the kernel has none. ``image_kind``
    and ``userland`` say what the guest starts from, ``nic`` is the model of its network cards as QEMU calls
    it, and ``memory`` what it is given in MiB where lab.yaml does not say.
    """

    name: str
    release: str
    image: Path
    sha256: str
    module_source: Path | None
    arch: Arch = "x86_64"
    image_kind: ImageKind = "initramfs"
    userland: Userland = "debian"
    nic: str = "virtio-net-pci"
    memory: int = 192

    @property
    def version(self) -> tuple[int, ...]:
        """The numbers that ``release`` begins with: (2, 4, 37, 11), (6, 1, 0)."""
        return catalogue.numbers(self.release)

    @property
    def modules_key(self) -> str:
        """Key of the kernel's modules: the package, or every file's path, size and time."""
        source = self.module_source
        if source is None:
            return "none"
        files = modules.files_of(source) if source.is_dir() else [source]
        abouts = ((file.relative_to(source.parent), file.stat()) for file in files)
        return "\n".join(f"{file} {about.st_size} {about.st_mtime_ns}" for file, about in abouts)

    def needed_modules(self) -> tuple[modules.Module, ...]:
        """Return the modules that a guest needs; a small system gets all its few modules."""
        if self.module_source is None:
            return ()
        wanted = modules.ALL if self.userland == "musl-i386" else modules.WANTED
        if self.module_source.is_dir():
            return modules.of_folder(self.module_source, wanted)
        return modules.of_package(self.module_source, self.release, wanted)

    def builtin_modules(self) -> bytes:
        """Return the kernel's file of modules that are built in, empty where it has none."""
        if self.module_source is None:
            return b""
        if self.module_source.is_dir():
            return modules.builtin_of_folder(self.module_source)
        return modules.builtin_of_package(self.module_source, self.release)


def find(name: str) -> Kernel:
    """Return the kernel that ``name`` stands for.

    That is a name of DISTRIBUTION, a ready-made one of the catalogue, one of the store (as in
    `kernel_store.find`), or the path of a folder of the store, a bzImage or a ``.deb``; a kernel that is
    found by its path has the whole path as its name. Raises UsageError for an unknown name and a file that
    is not a kernel, MachineError and BuildError where the distribution's package is not available.
    """
    if name in DISTRIBUTION:
        return _of_release(name, None, DISTRIBUTION[name])
    if (ready := catalogue.ready(name)) is not None:
        return _of_release(name, ready.release, ready.package)
    if "/" not in name and (built := kernel_store.find(name)) is not None:
        return _of_store(name, built)
    path = Path(name).resolve()
    if path.is_file():
        return _of_package(str(path), path) if path.suffix == ".deb" else _of_file(path)
    if path.is_dir() and (built := kernel_store.read(path)) is not None:
        return _of_store(str(path), built)
    raise _unknown(name)


def _unknown(name: str) -> UsageError:
    from difflib import get_close_matches  # only a mistake has to wait for this import

    there = [built.manifest.version for built in kernel_store.installed()]
    with suppress(UsageError):
        row = catalogue.kernel(name)
        return UsageError(f"the kernel {name} has not been built", f"./run kernel.build {row.name} does it")
    names = list(dict.fromkeys([*DISTRIBUTION, *there, *catalogue.prebuilt()]))
    hint = f"known names: {', '.join(names)}; or give the path of a bzImage or a .deb"
    if near := get_close_matches(name, [*names, *catalogue.kernels()], n=1):
        hint = f"did you mean {near[0]}?"
    return UsageError(f"no kernel '{name}': it is neither a file nor a known name", hint)


def release_of(path: Path) -> str:
    """Return what ``uname -r`` prints for the bzImage at ``path``. Raises UsageError for another file.

    Offsets are those of the kernel's Documentation/arch/x86/boot.rst: the signature "HdrS" at 0x202, and at
    0x20e a pointer to the version string, counted from 0x200.
    """
    with path.open("rb") as stream:
        head = stream.read(0x10000)
    if head[0x1FE:0x200] != b"\x55\xaa" or head[0x202:0x206] != b"HdrS":
        raise UsageError(
            f"{path} is not a kernel: it has no Linux boot header", "give a bzImage (vmlinuz) for x86"
        )
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    words = head[start : start + 256].split(b"\0")[0].split()
    release = words[0].decode(errors="replace") if words else ""
    # It becomes the name of a folder.
    if not re.fullmatch(r"\d[\w.+~-]*", release):
        raise UsageError(f"{path} is a damaged kernel: it does not name its version")
    return release


def _of_store(name: str, built: Built) -> Kernel:
    about = built.manifest
    if not built.image.is_file():
        raise BuildError(f"{built.folder} holds no bzImage", "delete the folder, and build it again")
    modules_folder = built.modules if (built.modules / "kernel").is_dir() else None
    guest = (about.arch, about.image, about.userland, about.nic, about.memory)
    return Kernel(name, about.release, built.image, store.checksum(built.image), modules_folder, *guest)


def _of_release(name: str, release: str | None, meta: str) -> Kernel:
    found = kernels.kernel_packages(release, meta)
    return replace(_of_package(name, found.image), module_source=found.modules)


def _of_package(name: str, package: Path) -> Kernel:
    # By name, size and time: a package of the user's own may be built anew under its old name.
    about = package.stat()
    key = sha256(f"{package} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()[:12]
    image = paths.cache() / "kernels" / f"{package.stem}-{key}.vmlinuz"
    if not image.exists():
        found = [member for member in packages.members(package, _is_image) if member.target is None]
        if len(found) != 1:
            raise BuildError(f"{package} holds {len(found)} kernels where there should be one")
        store.write(image, found[0].content)
    return Kernel(name, release_of(image), image, store.checksum(image), package)


def _is_image(path: str) -> bool:
    """Return whether ``path`` is a kernel's place in a package: up to Debian 13, or after it."""
    return bool(re.fullmatch(r"boot/vmlinuz-.+|(?:usr/)?lib/modules/[^/]+/vmlinuz", path))


def _of_file(path: Path) -> Kernel:
    if path.name == "bzImage" and (built := kernel_store.read(path.parent)):
        return _of_store(str(path), built)
    release = release_of(path)
    beside = (path.parent / "lib/modules" / release, Path("/lib/modules") / release)
    folder = next((folder for folder in beside if (folder / "kernel").is_dir()), None)
    plain = Kernel(str(path), release, path, store.checksum(path), folder)
    if not _is_i386(path, plain.version):
        return plain
    old = replace(plain, arch="i386", userland="musl-i386", nic="e1000", memory=64)
    return replace(old, image_kind="ext2", memory=32) if plain.version < (2, 5) else old


def _is_i386(path: Path, version: tuple[int, ...]) -> bool:
    """Return whether a bzImage is for 32-bit processors, as far as it says so.

    Since Linux 3.8 (boot protocol 2.12) bit 0 of xloadflags, at 0x236, says that it is for 64 bits
    (Documentation/arch/x86/boot.rst). One before 3.0 is taken for i386, which this project builds them for.
    """
    with path.open("rb") as stream:
        head = stream.read(0x238)
    protocol, flags = (int.from_bytes(head[place : place + 2], "little") for place in (0x206, 0x236))
    return not flags & 1 if protocol >= 0x20C else version < (3,)
