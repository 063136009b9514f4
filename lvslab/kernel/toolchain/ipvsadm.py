"""Another ipvsadm than the distribution's: of a version, or from the developer's own tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lvslab.errors import UsageError
from lvslab.kernel import catalogue
from lvslab.kernel.toolchain import component
from lvslab.kernel.toolchain.component import Component


@dataclass(frozen=True)
class Ipvsadm:
    """The program (64-bit, with the distribution's libraries), its SHA-256 and its version."""

    path: Path
    sha256: str
    version: str


def chosen(asked: str, recipe: str = "ipvsadm") -> Component:
    """Return the component that ``--ipvsadm`` names, to be built as ``recipe`` says.

    It is a version or the path of a source tree, which holds a slash. Raises UsageError where it is neither.
    """
    tree = Path(asked)
    if "/" in asked:
        if not (tree / "ipvsadm.c").is_file():
            hint = "give a version, or the folder with ipvsadm.c"
            raise UsageError(f"{asked} is not ipvsadm's source", hint)
        return Component(f"{recipe}-tree", tree.resolve())
    known = [row.removeprefix("ipvsadm-") for row in catalogue.sources() if row.startswith("ipvsadm-")]
    if asked not in known:
        if tree.is_dir():
            raise UsageError(f"no ipvsadm '{asked}'", f"the path of a folder holds a slash: ./{asked}")
        raise catalogue.unknown("ipvsadm", asked, known)
    return Component(f"{recipe}-{asked}")


def today(asked: str) -> Ipvsadm:
    """Return the requested ipvsadm for guests with the distribution's programs, built if missing.

    Raises UsageError, MachineError, BuildError.
    """
    part = chosen(asked, "ipvsadm-today")
    built = component.build(part)
    return Ipvsadm(built.folder / "ipvsadm", built.files["ipvsadm"], part.version)
