"""Kernels that a director can run: the distribution's own, taken out of its package, or a file of the
user's."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.build import modules, packages, store
from lvslab.errors import BuildError, LvsLabError, UsageError

# Name in lab.yaml and on the command line -> the distribution's package that depends on the newest one.
DISTRIBUTION = {"debian-cloud": "linux-image-cloud-amd64", "debian": "linux-image-amd64"}


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot. ``image`` is a bzImage, ``release`` what ``uname -r`` says in it.

    ``module_source`` is a Debian package or a modules folder; None where the kernel has none.
    """

    name: str
    release: str
    image: Path
    sha256: str
    module_source: Path | None

    @property
    def modules_key(self) -> str:
        """What tells this kernel's modules from another's: the package, or every file's path, size and
        time."""
        source = self.module_source
        if source is None:
            return "none"
        files = sorted((source / "kernel").rglob("*.ko*")) if source.is_dir() else [source]
        abouts = ((file.relative_to(source.parent), file.stat()) for file in files)
        return "\n".join(f"{file} {about.st_size} {about.st_mtime_ns}" for file, about in abouts)

    def needed_modules(self) -> tuple[modules.Module, ...]:
        """The modules that a guest needs."""
        if self.module_source is None:
            return ()
        if self.module_source.is_dir():
            return modules.of_folder(self.module_source)
        return modules.of_package(self.module_source, self.release)


def find(name: str) -> Kernel:
    """The kernel that ``name`` stands for: a name of DISTRIBUTION, or the path of a bzImage or a ``.deb``.

    Raises UsageError where there is no such kernel or the file is none, MachineError and BuildError
    where the distribution's package cannot be had.
    """
    if name in DISTRIBUTION:
        return _of_distribution(name)
    path = Path(name)
    if path.is_file():
        path = path.resolve()
        return _of_package(str(path), path) if path.suffix == ".deb" else _of_file(path)
    from difflib import get_close_matches  # only a mistake has to wait for this import

    near = get_close_matches(name, DISTRIBUTION, n=1)
    known = ", ".join(DISTRIBUTION)
    raise UsageError(
        f"no kernel '{name}': it is neither a file nor a known name",
        f"did you mean {near[0]}?"
        if near
        else f"known names: {known}; or give the path of a bzImage or a .deb",
    )


def release_of(path: Path) -> str:
    """What ``uname -r`` says in the bzImage at ``path``. Raises UsageError where the file is none.

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
    if not words:
        raise UsageError(f"{path} is a damaged kernel: it does not name its version")
    return words[0].decode(errors="replace")


def _of_distribution(name: str) -> Kernel:
    wanted = packages.depends_on(DISTRIBUTION[name], re.compile(r"linux-image-\d"))
    try:
        (package,) = packages.fetch([wanted], dependencies=False)
    except LvsLabError:
        packages.forget(DISTRIBUTION[name])
        raise
    return _of_package(name, package.path)


def _of_package(name: str, package: Path) -> Kernel:
    # By name, size and time: a package of the user's own may be built anew under its old name.
    about = package.stat()
    key = sha256(f"{package} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()[:12]
    image = paths.cache() / "kernels" / f"{package.stem}-{key}.vmlinuz"
    if not image.exists():
        found = [
            member for member in packages.members(package, lambda path: path.startswith("boot/vmlinuz-"))
        ]
        if len(found) != 1:
            raise BuildError(f"{package} holds {len(found)} kernels where there should be one")
        store.write(image, found[0].content)
    return Kernel(name, release_of(image), image, _checksum(image), package)


def _of_file(path: Path) -> Kernel:
    release = release_of(path)
    beside = (path.parent / "lib/modules" / release, Path("/lib/modules") / release)
    folder = next((folder for folder in beside if (folder / "kernel").is_dir()), None)
    return Kernel(str(path), release, path, _checksum(path), folder)


def _checksum(image: Path) -> str:
    """The SHA-256 of ``image``, read only where it is not the file that it was the last time."""
    about = image.stat()
    # A write changes the ctime, which no program can set back, if not twice within a moment.
    if time.time_ns() - about.st_ctime_ns < 1_000_000_000:
        return store.sha256(image)
    stamp = f"{image} {about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
    name = f"kernel-{sha256(str(image).encode()).hexdigest()[:16]}"
    return store.remembered(name, [stamp.encode()], lambda: store.sha256(image))
