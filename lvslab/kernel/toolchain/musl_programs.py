"""Programs of guests with old kernels: static, for i386, with musl.

The distribution's programs need Linux 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.cache import store
from lvslab.kernel.toolchain import component
from lvslab.kernel.toolchain import ipvsadm as ipvsadm_build
from lvslab.kernel.toolchain.component import Component

IPVSADM = "1.31"
_PROGRAMS = {
    "busybox-1.35.0": ("busybox", "clock", "linked", "reseed"),
    "dropbear-2022.83": ("dropbear",),
    "iptables-1.8.9": ("xtables-legacy-multi",),
}


@dataclass(frozen=True)
class OldUserland:
    """A folder of programs, a checksum of their bytes, and their versions."""

    folder: Path
    key: str
    versions: Mapping[str, str]


def components(ipvsadm: str = IPVSADM) -> Mapping[Component, tuple[str, ...]]:
    """Return the components to build, with the files that each brings.

    ``ipvsadm`` is a version, or the path of a source tree. Raises UsageError where it is neither.
    """
    fixed = {Component(name): files for name, files in _PROGRAMS.items()}
    return {**fixed, ipvsadm_build.chosen(ipvsadm): ("ipvsadm",)}


def programs(ipvsadm: str = IPVSADM) -> OldUserland:
    """Build the programs that the cache does not have, and put all into one folder.

    Raises UsageError, MachineError, BuildError.
    """
    wanted = components(ipvsadm)
    built = {part: component.build(part) for part in wanted}
    found = {file: built[part] for part, files in wanted.items() for file in files}
    key = sha256("".join(of.files[file] for file, of in found.items()).encode()).hexdigest()
    folder = paths.cache() / "userland" / key[:16]
    for file, of in found.items():
        if not (folder / file).exists():
            store.write(folder / file, (of.folder / file).read_bytes(), mode=0o755)
    return OldUserland(folder, key, {part.program: part.version for part in built})
