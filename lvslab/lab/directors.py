"""The directors that a command asks for, in place of those that ``lab.yaml`` describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lvslab.errors import UsageError
from lvslab.lab.files import suggest

DirectorKind = Literal["qemu", "mininet"]
KINDS: Mapping[DirectorKind, str] = {
    "qemu": "virtual machines",
    "mininet": "hosts on this machine's kernel",
}
"""Kinds of directors, with what they are; the first has a kernel and an ipvsadm of its own."""


@dataclass(frozen=True)
class DirectorSpec:
    """Kernel, kind and ipvsadm of a lab's directors.

    ``kernel`` is a name, a version or the absolute path of an image, "" for the one in ``lab.yaml``;
    ``ipvsadm`` is a version or the absolute path of a source tree, "" for the usual one.
    """

    kernel: str = ""
    kind: DirectorKind = "qemu"
    ipvsadm: str = ""

    @classmethod
    def chosen(cls, kernel: str = "", kind: str = "qemu", ipvsadm: str = "") -> DirectorSpec:
        """Make the spec of a command's options; paths become absolute. Raises UsageError."""
        if kernel and Path(kernel).is_file():
            kernel = str(Path(kernel).resolve())
        if "/" in ipvsadm:
            ipvsadm = str(Path(ipvsadm).resolve())
        found = next((known for known in KINDS if known == kind), None)
        if found is None:
            raise UsageError(f"there are no directors of the kind '{kind}'", suggest(kind, KINDS))
        if found == "qemu":
            return cls(kernel, found, ipvsadm)
        for option, value, verb in (("kernel", kernel, "runs on"), ("ipvsadm", ipvsadm, "uses")):
            if value:
                raise UsageError(
                    f"a Mininet director {verb} this machine's {option}, and takes no other",
                    f"leave out --{option}, or --director {kind}",
                )
        return cls("", found, "")

    @property
    def notes(self) -> dict[str, str | None]:
        """The spec as it stands in the document of ``lab.status``."""
        return {
            "kernel_name": self.kernel or None,
            "director_kind": self.kind,
            "ipvsadm": self.ipvsadm or None,
        }


USUAL = DirectorSpec()
"""Directors as in ``lab.yaml``."""
