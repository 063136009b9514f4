"""Debian packages as a source of kernels and guest programs: downloaded and read, never installed.

The machine's own apt configuration says where packages come from and verifies their signatures. Packages
that would start a service on the user's machine (nginx, dropbear, ipvsadm) are read straight from their
archives.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lvslab import paths, requirements
from lvslab.cache import store
from lvslab.debian import apt_lists
from lvslab.errors import BuildError, CommandFailed, MachineError
from lvslab.run import PIPE, run, spawn

if TYPE_CHECKING:
    import tarfile

log = logging.getLogger("lvslab.progress.packages")


@dataclass(frozen=True)
class Package:
    """One package file in the cache: ``name_version_architecture.deb`` and its SHA-256."""

    file: str
    sha256: str

    @property
    def path(self) -> Path:
        return folder() / self.file

    @property
    def name(self) -> str:
        return self.file.split("_")[0]

    @property
    def version(self) -> str:
        """The Debian version, as dpkg prints it."""
        return self.file.split("_")[1].replace("%3a", ":")


@dataclass(frozen=True)
class Member:
    """A file or folder of a package: path without a leading slash, mode, content, and a link's target."""

    path: str
    mode: int
    content: bytes
    target: str | None = None
    folder: bool = False


def folder() -> Path:
    """Return the folder of package files."""
    return paths.cache() / "packages"


def fetch(
    names: Sequence[str], *, dependencies: bool = True, release: str | None = None
) -> tuple[Package, ...]:
    """Return the newest packages ``names`` with their dependencies, in the cache.

    They are of this machine's distribution, or of the Debian ``release``. What was resolved once stays so
    until the cache is cleared: a lab does not change because apt's lists did. Raises MachineError where apt
    cannot serve them, BuildError where a checksum is wrong.
    """
    release = _other(release)
    key = sha256(json.dumps([_whose(release), list(names), dependencies]).encode()).hexdigest()[:16]
    manifest = folder() / f"resolved-{key}.json"
    if (known := _read(manifest)) is not None:
        return known
    with store.locked("packages"):
        if (known := _read(manifest)) is not None:
            return known
        action = ["install", "-y", *names] if dependencies else ["download", *names]
        packages = _download(action, release)
        store.write(manifest, json.dumps([asdict(package) for package in packages], indent=1).encode())
    return packages


def depends_on(name: str, wanted: re.Pattern[str], *, release: str | None = None) -> str:
    """Return the first package matching ``wanted`` among the dependencies of the newest ``name``.

    Remembered like what ``fetch`` resolves. Raises MachineError where this distribution, or the Debian
    ``release``, has no such package.
    """
    if known := remembered(name, release=release):
        return known
    release = _other(release)
    command = ["apt-cache", *apt_lists.options(release), "--no-all-versions", "show", name]
    shown = _with_lists(command, release).decode()
    for part in ",".join(re.findall(r"^Depends:(.*)", shown, re.MULTILINE)).split(","):
        if wanted.match(part.strip()):
            store.write(_memory(name, release), part.split()[0].encode())
            return part.split()[0]
    raise MachineError(f"{_whose(release)} has no package {name} that brings {wanted.pattern}")


def remembered(name: str, *, release: str | None = None) -> str | None:
    """Return what `depends_on` remembers of ``name``, or None."""
    memory = _memory(name, _other(release))
    return memory.read_text() if memory.exists() else None


def forget(name: str, *, release: str | None = None) -> None:
    """Forget what `depends_on` remembers of ``name``: the archive may have moved on since."""
    _memory(name, _other(release)).unlink(missing_ok=True)


@contextlib.contextmanager
def _archive(package: Path) -> Iterator[tarfile.TarFile]:
    """Open the files of a package as a stream. Raises BuildError where it is not whole."""
    import tarfile  # only to make what most starts find in the cache

    with spawn(["dpkg-deb", "--fsys-tarfile", package], stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                yield archive
                process.stdout.read()
        except tarfile.TarError as broken:
            raise BuildError(f"{package} is not a whole Debian package: {broken}") from None
        if process.wait() != 0:
            said = process.stderr.read().decode(errors="replace").strip()
            raise BuildError(f"{package} is not a whole Debian package", said)


def members(package: Path, wanted: Callable[[str], bool], *, folders: bool = False) -> Iterator[Member]:
    """Yield the files and symbolic links of a package whose path (without ``./``) is ``wanted``.

    With ``folders``, its folders too.
    """
    with _archive(package) as archive:
        for entry in archive:
            path, mode = entry.name.removeprefix("./"), stat.S_IMODE(entry.mode)
            if not wanted(path):
                continue
            if entry.issym():
                yield Member(path, mode, b"", entry.linkname)
            elif entry.islnk():
                yield Member(path, mode, b"", "/" + entry.linkname.removeprefix("./"))
            elif entry.isdir():
                if folders:
                    yield Member(path, mode, b"", folder=True)
            elif content := archive.extractfile(entry):
                yield Member(path, mode, content.read())


def copy_member(package: Path, path: str, target: IO[bytes]) -> None:
    """Copy the file ``path`` (no leading ``./``) of a package, of any size, to ``target``.

    Raises BuildError where the package does not have it, or is not whole.
    """
    found = False
    with _archive(package) as archive:
        for entry in archive:
            if entry.name.removeprefix("./") == path and (content := archive.extractfile(entry)):
                shutil.copyfileobj(content, target, 1 << 20)
                found = True
    if not found:
        raise BuildError(f"{package} has no {path}")


def distribution() -> str:
    """Return whose packages guests are made of, such as ``debian-12``. Raises MachineError without apt."""
    fields = requirements.os_release()
    if not Path("/usr/bin/apt-get").exists():
        raise MachineError(
            f"{fields.get('PRETTY_NAME', 'this distribution')} has no apt",
            "guest images are made of Debian's packages: use Debian 12 or later",
        )
    if other := requirements.distribution().guests:
        return f"debian-{other}"
    return f"{fields.get('ID', 'unknown')}-{fields.get('VERSION_ID', 'unknown')}"


def _read(manifest: Path) -> tuple[Package, ...] | None:
    try:
        packages = tuple(Package(**row) for row in json.loads(manifest.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    place = folder()  # once: these are a hundred packages
    return packages if packages and all((place / package.file).exists() for package in packages) else None


def _other(release: str | None) -> str | None:
    """Return None for this machine's own release, which its own apt configuration serves."""
    release = release or requirements.distribution().guests
    return None if release is None or apt_lists.is_own(release) else release


def _whose(release: str | None) -> str:
    return distribution() if release is None else f"debian-{release}"


def _memory(name: str, release: str | None) -> Path:
    return folder() / f"meta-{_whose(release)}-{name}"


def _download(action: list[str], release: str | None) -> tuple[Package, ...]:
    folder().mkdir(parents=True, exist_ok=True)
    apt = ["apt-get", "-qq", *apt_lists.options(release), "-o"]
    # With archives nowhere: apt does not list what it finds in its archives already.
    listed = _with_lists([*apt, "Dir::Cache::archives=/nonexistent", "--print-uris", *action], release)
    packages = tuple(_listed(line) for line in listed.decode().splitlines() if line.startswith("'"))
    missing = [package for package in packages if not package.path.exists()]
    if missing:
        what = f"the package {missing[0].name} {missing[0].version}"
        if len(missing) > 1:
            what = f"{len(missing)} packages of {_whose(release)}, {missing[-1].name} among them"
        log.info("downloading %s", what)
        (folder() / "partial").mkdir(exist_ok=True)
        only = ["--download-only"] if action[0] == "install" else []
        _apt([*apt, f"Dir::Cache::archives={folder()}", *only, *action], folder())
    for package in missing:
        if not package.path.exists():
            raise BuildError(f"apt did not deliver {package.file}")
        if store.sha256(package.path) != package.sha256:
            package.path.unlink()
            raise BuildError(
                f"{package.file} does not have the checksum that its archive names", "try again"
            )
    return packages


def _listed(line: str) -> Package:
    """Parse a line of ``apt-get --print-uris``: ``'URI' FILE SIZE SHA256:SUM``."""
    _, file, _, checksum = shlex.split(line)
    return Package(file, checksum.removeprefix("SHA256:"))


def _with_lists(command: list[str], release: str | None) -> bytes:
    """Run an apt command, and once more with new lists if it fails: old ones are the usual reason."""
    try:
        return _apt(command)
    except MachineError:
        if release is None:
            _apt(["apt-get", "-qq", "update"])
        else:
            log.info("getting the package lists of Debian %s", release)
            apt_lists.update(release)
        return _apt(command)


def _apt(command: list[str], place: Path = Path("/")) -> bytes:
    # ``apt-get download`` writes to the folder it is in, and does not list what that has already.
    try:
        return run(command, cwd=place, env={"LC_ALL": "C.UTF-8"}).stdout
    except CommandFailed as failed:
        raise MachineError(
            f"apt cannot get what a guest is made of: {failed.message}", failed.hint
        ) from None
