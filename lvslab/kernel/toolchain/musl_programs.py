"""The programs of guests with old kernels: static, for i386, with musl.

The distribution's need Linux 3.2.
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
from lvslab.kernel.toolchain.component import Built, Component

IPVSADM = "1.31"
_PROGRAMS = {
    "busybox-1.35.0": "busybox",
    "dropbear-2022.83": "dropbear",
    "iptables-1.8.9": "xtables-legacy-multi",
}


@dataclass(frozen=True)
class OldUserland:
    """A folder of programs, a checksum of their bytes, and their versions."""

    folder: Path
    key: str
    versions: Mapping[str, str]


def components(ipvsadm: str = IPVSADM) -> Mapping[Component, str]:
    """What the programs are built from, and the file that each brings.

    ``ipvsadm`` is a version, or the path of a source tree. Raises UsageError where it is neither.
    """
    fixed = {Component(name): file for name, file in _PROGRAMS.items()}
    return {**fixed, ipvsadm_build.chosen(ipvsadm): "ipvsadm"}


def programs(ipvsadm: str = IPVSADM) -> OldUserland:
    """The programs, built where they are not there: busybox, dropbear, xtables-legacy-multi, ipvsadm.

    Raises UsageError, MachineError, BuildError.
    """
    wanted = components(ipvsadm)
    found: dict[str, tuple[Component, Built]] = {
        file: (part, component.build(part)) for part, file in wanted.items()
    }
    key = sha256("".join(built.files[file] for file, (_, built) in found.items()).encode()).hexdigest()
    folder = paths.cache() / "userland" / key[:16]
    for file, (_, built) in found.items():
        if not (folder / file).exists():
            store.write(folder / file, (built.folder / file).read_bytes(), mode=0o755)
    return OldUserland(folder, key, {part.program: part.version for part, _ in found.values()})
