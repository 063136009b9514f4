"""Tables of kernels and sources beside this file, read when first asked for.

``kernels.toml`` has a row for each kernel that can be built or had ready-made, ``families.toml`` what those
of a family have in common, ``sources.toml`` a row for each tarball of compilers and guest programs,
``features.toml`` what IPVS can do since when, ``bugs.toml`` what it does wrong and checks of the labs show,
``fixes.toml`` why a stock tree does not build as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lvslab.errors import UsageError

Arch = Literal["i386", "x86_64"]
Userland = Literal["debian", "musl-i386"]

ImageKind = Literal["initramfs", "ext2"]
"""A cpio archive, as kernels take it since 2.6, or a file system for a RAM disk, as 2.4 does."""


@dataclass(frozen=True)
class Source:
    """A tarball of a kernel, a compiler or a program.

    It is at ``path`` below a mirror of its ``place``, or ``inside`` a Debian ``package`` of a ``release``.
    ``sha256`` is "" where we do not know it.
    """

    name: str
    place: Literal["kernel.org", "debian", "debian-package"]
    path: str = ""
    sha256: str = ""
    package: str = ""
    release: str = ""
    inside: str = ""

    @property
    def file(self) -> str:
        return PurePosixPath(self.path or self.inside).name


@dataclass(frozen=True)
class KernelRow:
    """A kernel that can be built, and what a guest with it needs. ``memory`` is in MiB."""

    name: str
    version: str
    source: Source
    compiler: Literal["gcc-3.4.6", "system"]
    arch: Arch
    family: Literal["2.4", "2.6", "today"]
    fragments: tuple[str, ...]
    image: ImageKind
    userland: Userland
    nic: str
    memory: int
    fixes: tuple[str, ...]

    @property
    def is_own_series(self) -> bool:
        """True if ``version``, which may be a tree's, is of the row's own series.

        Between the catalogue's series some of what a row needs may be mended, or be in another place.
        """
        return series(self.name) == series(self.version)


@dataclass(frozen=True)
class Prebuilt:
    """A ready-made kernel of a Debian release: the newest that the meta package depends on."""

    name: str
    release: str
    package: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Feature:
    """A feature of IPVS (of ipvsadm where ``kind`` is "ipvsadm"), present ``since`` a version.

    ``what`` follows "has no"; ``commit`` is the kernel's, "" where we do not know it.
    """

    name: str
    what: str
    since: str
    kind: str
    commit: str = ""


@dataclass(frozen=True)
class Bug:
    """A fault of IPVS or ipvsadm (its ``program``), from version ``since`` to before ``until``.

    "" is the first version, or none yet. ``what`` follows a colon. ``introduced`` and ``fixed`` are commits,
    "" where we do not know them.
    ``shows`` is found (`re.search`) in what a check says that shows it. ``seen`` and ``not_seen`` are the
    versions that a check was run on, and showed it or not.
    """

    name: str
    what: str
    shows: str
    seen: tuple[str, ...]
    not_seen: tuple[str, ...]
    program: Literal["kernel", "ipvsadm"] = "kernel"
    since: str = ""
    until: str = ""
    introduced: str = ""
    fixed: str = ""

    def is_in(self, version: str) -> bool:
        """Return whether the program's ``version``, such as ``6.1.0-56-cloud-amd64``, has the fault."""
        found = numbers(version)
        return numbers(self.since) <= found and (not self.until or found < numbers(self.until))


@dataclass(frozen=True)
class Edit:
    """Replace every ``old`` in ``file``, a path below the tree's top folder, by ``new``.

    ``sometimes``: not every release of a series needs it. One that does and has other words will not
    compile.
    """

    file: str
    old: str
    new: str
    sometimes: bool = False


@dataclass(frozen=True)
class Fix:
    """A change that a stock tree needs to build, and the reason.

    It is edits of files, and flags for the compiler of the build's own programs.
    """

    name: str
    reason: str
    edits: tuple[Edit, ...] = ()
    host_flags: tuple[str, ...] = ()


@cache
def kernels() -> Mapping[str, KernelRow]:
    """Return the kernels that can be built, in the table's order."""
    return {name: _kernel(name, row) for name, row in _table("kernels").items() if "prebuilt" not in row}


@cache
def prebuilt() -> Mapping[str, Prebuilt]:
    """Return the ready-made kernels."""
    rows = {name: dict(row) for name, row in _table("kernels").items()}
    return {name: Prebuilt(name, **row) for name, row in rows.items() if row.pop("prebuilt", False)}


@cache
def sources() -> Mapping[str, Source]:
    """Return the tarballs of compilers and guest programs."""
    return {name: Source(name, **row) for name, row in _table("sources").items()}


@cache
def features() -> Mapping[str, Feature]:
    """Return the features of IPVS and ipvsadm with their first versions."""
    return {name: Feature(name, **row) for name, row in _table("features").items()}


@cache
def bugs() -> Mapping[str, Bug]:
    """Return the faults of some versions that checks of the labs are known to show."""
    return {name: Bug(name, **row) for name, row in _table("bugs").items()}


@cache
def fixes() -> Mapping[str, Fix]:
    """Return the changes that stock trees need."""
    rows = {name: {"edits": (), **row} for name, row in _table("fixes").items()}
    return {
        name: Fix(name, **{**row, "edits": tuple(Edit(**edit) for edit in row["edits"])})
        for name, row in rows.items()
    }


def kernel(name: str) -> KernelRow:
    """Return the row for a version, a series (``6.1``, ``2.6.18``) or another of its releases.

    Raises UsageError, with the nearest names, where there is none.
    """
    if name in kernels():
        return kernels()[name]
    for row in kernels().values():
        if row.source.place != "kernel.org":
            continue
        if name == series(row.version):
            return row
        if re.fullmatch(r"\d+(\.\d+){1,3}", name) and series(name) == series(row.version):
            path = row.source.path.replace(f"linux-{row.version}.", f"linux-{name}.")
            source = replace(row.source, name=name, path=path, sha256="")
            return replace(row, name=name, version=name, source=source)
    if ready(name) is not None:
        raise UsageError(f"the kernel {name} is ready-made, and not built", f"./run lab.up --kernel {name}")
    raise unknown("kernel", name, kernels())


def ready(name: str) -> Prebuilt | None:
    """Return the ready-made kernel of that name or alias, or None."""
    return next((row for row in prebuilt().values() if name in (row.name, *row.aliases)), None)


def source(name: str) -> Source:
    """Return the tarball for a name of ``sources``, a kernel, or a program (its newest).

    Raises UsageError for an unknown name.
    """
    if name in sources():
        return sources()[name]
    of_program = [key for key in sources() if key.rpartition("-")[0] == name]
    if of_program:
        return sources()[max(of_program, key=numbers)]
    if re.match(r"\d", name) or name in kernels():
        return kernel(name).source
    raise unknown("source", name, [*sources(), *kernels()])


def lacking(version: str, feature: str) -> str | None:
    """Return why a kernel (or ipvsadm) of ``version`` lacks ``feature``, or None.

    ``version`` may be longer than its numbers, as ``6.1.0-56-cloud-amd64``. Raises UsageError for an unknown
    feature.
    """
    if feature not in features():
        raise unknown("feature", feature, features())
    row = features()[feature]
    if numbers(version) >= numbers(row.since):
        return None
    return f"{program_of(feature)} {version} has no {row.what}: it came with {row.since}"


def first_lacking(versions: Mapping[str, str], names: Iterable[str]) -> str | None:
    """Return why ``versions`` of kernel and ipvsadm lack one of the features ``names``.

    It is None if they have all. Raises UsageError for an unknown feature.
    """
    reasons = (lacking(versions.get(program_of(name), ""), name) for name in names)
    return next((reason for reason in reasons if reason is not None), None)


def program_of(feature: str) -> str:
    """Return the program that ``feature`` is one of, "kernel" for an unknown feature."""
    row = features().get(feature)
    return "ipvsadm" if row is not None and row.kind == "ipvsadm" else "kernel"


def series(version: str) -> str:
    """Return a release's series: ``2.4``, ``2.6.18``, ``6.1``; of ``2.6.18-rc7`` and the like too."""
    parts = numbers(version)
    return ".".join(map(str, parts[: 3 if parts[:2] == (2, 6) else 2]))


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's first run of numbers, to compare: ``(6, 1, 0)`` of ``6.1.0-56-cloud-amd64``."""
    found = re.search(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def unknown(what: str, name: str, known: Collection[str]) -> UsageError:
    """Return the error for an unknown ``name``; its hint has similar ``known`` ones."""
    from difflib import get_close_matches  # only a mistake has to wait for this import

    near = get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return UsageError(f"no {what} '{name}'", hint)


def _kernel(name: str, row: Mapping[str, Any]) -> KernelRow:
    rest = {"fixes": (), **_table("families")[row["family"]], **row}
    place: Literal["kernel.org", "debian-package"] = "debian-package" if "package" in rest else "kernel.org"
    of_source = {key: rest.pop(key, "") for key in ("path", "sha256", "package", "release", "inside")}
    return KernelRow(name=name, **{"version": name, **rest}, source=Source(name, place, **of_source))


def _table(name: str) -> Mapping[str, Mapping[str, Any]]:
    return table(Path(__file__).parent / f"{name}.toml")


@cache
def table(file: Path) -> Mapping[str, Mapping[str, Any]]:
    """Read a TOML file's rows by name; the lists in a row become tuples."""
    import tomllib  # most commands ask nothing of the tables

    rows: Mapping[str, Mapping[str, Any]] = tomllib.loads(file.read_text())
    return {
        name: {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        for name, row in rows.items()
    }
