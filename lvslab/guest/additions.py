"""Packages and files that ``lab.yaml`` adds to a node's guest image."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePosixPath

from lvslab.debian import libraries, packages
from lvslab.debian.packages import Member, Package
from lvslab.errors import UsageError
from lvslab.guest.formats import LINK, Entry

_USELESS = re.compile(r"usr/share/(?:bash-completion|bug|doc|doc-base|info|lintian|locale|man)(?:/|$)")
# Programs of lvslab's guests that those of a package cannot replace.
_KEPT = re.compile(r"usr/s?bin/(?:init|modprobe)$")
# A lab may have its own ones in their place.
_REPLACEABLE = ("etc/hosts", "etc/profile", "etc/protocols", "etc/services", "etc/sysctl.conf")


class PathTaken(UsageError):
    """A file of a lab has a path that every image needs."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is lvslab's own in a guest", "choose another path")
        self.path = path


@dataclass(frozen=True)
class Additions:
    """Names of packages, and files by their absolute path in the guest.

    The mode of a file includes its type.
    """

    packages: tuple[str, ...] = ()
    files: Mapping[str, Entry] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.packages or self.files)

    def inputs(self, fetched: Sequence[Package]) -> list[str]:
        """Return texts that change with what is added.

        ``fetched`` are the packages and all that they need.
        """
        files = (
            f"{path} {entry.mode:o} {sha256(entry.content).hexdigest()}"
            for path, entry in self.files.items()
        )
        named = (f"+{name}" for name in self.packages)
        return [*sorted(package.sha256 for package in fetched), *sorted(named), *sorted(files)]


NONE = Additions()


def entries(additions: Additions, fetched: Sequence[Package], present: Iterable[Entry]) -> list[Entry]:
    """Return the entries of ``additions`` beside those that are ``present`` in every image.

    ``fetched`` are the packages and all that they need. Raises PathTaken, BuildError.
    """
    taken = {entry.path: entry for entry in present}
    found = {
        path: _entry(path, member)
        for path, member in _unpacked(additions.packages, fetched).items()
        if path not in taken and path not in _parents(taken) and not _KEPT.match(path)
    }
    for path, entry in additions.files.items():
        place = libraries.merged(path.lstrip("/"))
        above = [str(parent) for parent in PurePosixPath(place).parents][:-1]
        if (
            (place in taken and place not in _REPLACEABLE)
            or place in _parents([*taken, *found])
            or any(not stat.S_ISDIR((taken | found)[each].mode) for each in above if each in taken | found)
        ):
            raise PathTaken(path)
        found[place] = Entry(place, entry.mode, entry.content)
    return list(found.values())


def _unpacked(names: Sequence[str], fetched: Sequence[Package]) -> dict[str, Member]:
    """Return the files of the packages ``names``, and the libraries that these load.

    They are by path in a merged ``/usr``.
    """
    if not names:
        return {}
    whole = [package for package in fetched if package.name in names]
    found = {
        libraries.merged(member.path).rstrip("/"): member
        for package in whole
        for member in packages.members(package.path, _useful, folders=True)
    }
    plain = [path for path, member in found.items() if member.target is None and not member.folder]
    shared = libraries.files_of(fetched, lambda path: "lib" in path)
    files = {path: member for path, member in found.items() if not member.folder}
    return found | libraries.closure(shared | files, plain, complete=False)


def _useful(path: str) -> bool:
    return bool(path.strip("./")) and not _USELESS.match(path)


def _entry(path: str, member: Member) -> Entry:
    if member.folder:
        return Entry(path, stat.S_IFDIR | member.mode)
    if member.target is not None:
        return Entry(path, LINK, member.target.encode())
    return Entry(path, stat.S_IFREG | member.mode, member.content)


def _parents(paths: Iterable[str]) -> set[str]:
    """Return all folders that ``paths`` are in."""
    return {str(parent) for path in paths for parent in PurePosixPath(path).parents}
