"""Guest images: programs, a kernel's modules and a small init, in the file that the kernel starts from.

An image is a list of entries put together in memory and written as an archive. Equal inputs give equal
bytes, and its name is a checksum of the inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.cache import store
from lvslab.debian import packages
from lvslab.guest import additions, debian, files, formats, keys
from lvslab.guest.additions import NONE, Additions
from lvslab.guest.formats import Entry
from lvslab.kernel.find import Kernel

log = logging.getLogger("lvslab.progress.image")

_FORMAT = 4
"""Version of the code that makes images: raise it when the same inputs come to other bytes."""
_USUAL = 56
"""Maximum size, in MiB, of an image for which a kernel's usual memory is enough."""
_SUFFIX = {"initramfs": "cpio", "ext2": "ext2"}


@dataclass(frozen=True)
class Image:
    """An image in the cache. ``versions`` maps the programs that how-tos name to their versions.

    ``more_memory`` is what it needs beyond its kernel's usual memory, in MiB.
    """

    path: Path
    key: str
    versions: Mapping[str, str]
    more_memory: int = 0


def build(kernel: Kernel, ipvsadm: str = "", more: Additions = NONE, *, python: bool = False) -> Image:
    """Return the guest image for ``kernel``, from the cache or made now.

    ``ipvsadm`` is the version or source tree of that program, "" for the usual one. ``more`` is what a lab
    adds; with ``python`` there is a small Python too. Guests with old kernels have neither Python nor
    packages. Raises MachineError, BuildError, UsageError, and PathTaken for one of the lab's files.
    """
    if kernel.userland == "musl-i386":
        # Only where it is needed, as below: it brings the builder of these programs with it.
        from lvslab.guest import musl
        from lvslab.kernel.toolchain import musl_programs

        programs = musl_programs.programs(ipvsadm or musl_programs.IPVSADM)
        netbase = packages.fetch(("netbase",), dependencies=False)
        inputs = [programs.key, *(package.sha256 for package in netbase)]
        return _made(
            kernel,
            [*inputs, *more.inputs(())],
            programs.versions,
            lambda: _with(more, (), musl.entries(kernel, programs, files.names(netbase))),
        )
    found = packages.fetch((*debian.PACKAGES, *(debian.PYTHON if python else ())))
    inputs = sorted(package.sha256 for package in found)
    versions, own = debian.versions(found), None
    if ipvsadm:
        from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build

        built = ipvsadm_build.today(ipvsadm)
        inputs.append(built.sha256)
        versions, own = {**versions, "ipvsadm": built.version}, built.path
    added = packages.fetch(more.packages) if more.packages else ()
    inputs += more.inputs(added)
    made = _made(
        kernel, inputs, versions, lambda: debian.entries(kernel, found, own, partial(_with, more, added))
    )
    # The kernel has the archive and what it unpacks of it in memory at the same time.
    larger = 2 * max(0, (made.path.stat().st_size >> 20) - _USUAL) if more else 0
    return replace(made, more_memory=larger + (debian.PYTHON_MEMORY if python else 0))


def _with(more: Additions, added: Sequence[packages.Package], entries: list[Entry]) -> list[Entry]:
    return entries + additions.entries(more, added, entries)


def _made(
    kernel: Kernel, inputs: list[str], versions: Mapping[str, str], entries: Callable[[], list[Entry]]
) -> Image:
    """Return the image of ``entries``, which depend on nothing but ``kernel`` and ``inputs``."""
    about = [kernel.release, kernel.sha256, kernel.modules_key, kernel.image_kind, kernel.userland]
    parts = [str(_FORMAT), *about, keys.client_public_key(), *inputs, *files.scripts().values()]
    key = sha256("\0".join(parts).encode()).hexdigest()[:16]
    path = paths.cache() / "images" / f"{key}.{_SUFFIX[kernel.image_kind]}"
    if not path.exists():
        with store.locked("image"):
            if not path.exists():
                log.info("making the guest image for kernel %s", kernel.release)
                store.write(path, formats.pack(entries(), kernel.image_kind))
    named = {name: versions[name] for name in ("iptables", "ipvsadm")}
    return Image(path, key, {"kernel": kernel.release, **named})
