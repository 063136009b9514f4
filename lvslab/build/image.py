"""Guest images: programs, a kernel's modules and a small init, as the one file that the kernel starts from.

An image is a list of entries put together in memory and written as an archive. It is the same byte for byte
whenever its inputs are, and its name is a checksum of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.build import archive, debian_guest, guest_files, keys, packages, store
from lvslab.build.archive import Entry
from lvslab.build.kernel import Kernel

log = logging.getLogger("lvslab.build.image")

# Those that an image comes of: it is made anew when they change.
_ROOMS = (
    "archive",
    "debian_guest",
    "guest_files",
    "i386_programs",
    "image",
    "modules",
    "musl_guest",
    "reseed",
    "userland",
)
_SUFFIX = {"initramfs": "cpio", "ext2": "ext2"}


@dataclass(frozen=True)
class Image:
    """An image in the cache. ``versions`` maps the programs that how-tos name to their versions."""

    path: Path
    key: str
    versions: Mapping[str, str]


def build(kernel: Kernel, ipvsadm: str | None = None) -> Image:
    """The guest image for ``kernel``, from the cache or made now.

    ``ipvsadm`` is the version or source tree of that program, where it is not to be the usual one. Raises
    MachineError, BuildError, UsageError.
    """
    if kernel.userland == "musl-i386":
        # Only where it is needed, as below: it brings the builder of these programs with it.
        from lvslab.build import musl_guest, old_userland

        programs = old_userland.programs(ipvsadm) if ipvsadm else old_userland.programs()
        return _made(kernel, [programs.key], programs.versions, lambda: musl_guest.entries(kernel, programs))
    found = packages.fetch(debian_guest.PACKAGES)
    inputs = sorted(package.sha256 for package in found)
    versions, own = debian_guest.versions(found), None
    if ipvsadm:
        from lvslab.build import ipvsadm_build

        built = ipvsadm_build.today(ipvsadm)
        inputs.append(built.sha256)
        versions, own = {**versions, "ipvsadm": built.version}, built.path
    return _made(kernel, inputs, versions, lambda: debian_guest.entries(kernel, found, own))


def _made(
    kernel: Kernel, inputs: list[str], versions: Mapping[str, str], entries: Callable[[], list[Entry]]
) -> Image:
    """The image of ``entries``, which come of ``inputs``."""
    key = _key(kernel, inputs)
    path = paths.cache() / "images" / f"{key}.{_SUFFIX[kernel.image_kind]}"
    if not path.exists():
        with store.locked("image"):
            if not path.exists():
                log.info("making the guest image for kernel %s", kernel.release)
                store.write(path, archive.pack(entries(), kernel.image_kind))
    named = {name: versions[name] for name in ("iptables", "ipvsadm")}
    return Image(path, key, {"kernel": kernel.release, **named})


def _key(kernel: Kernel, inputs: list[str]) -> str:
    about = [kernel.release, kernel.sha256, kernel.modules_key, kernel.image_kind, kernel.userland]
    folder = Path(__file__).parent
    recipe = [(folder / f"{room}.py").read_text() for room in _ROOMS]
    parts = [*about, keys.client_public_key(), *inputs, *recipe, *guest_files.scripts().values()]
    return sha256("\0".join(parts).encode()).hexdigest()[:16]
