"""Debian packages as a source of kernels and guest programs: downloaded and read, never installed.

The machine's own apt configuration says where packages come from and verifies their signatures. Packages
that would start a service on the user's machine (nginx, dropbear, ipvsadm) are read straight from their
archives.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, cast

from lvslab import paths
from lvslab.build import store
from lvslab.errors import BuildError, CommandFailed, MachineError
from lvslab.run import run

log = logging.getLogger("lvslab.build.packages")

# An empty dpkg status makes apt resolve as if nothing were installed: the result depends on the distribution
# alone. The caches are off because apt would store this other view over the machine's own.
_OWN_VIEW = (
    "-o", "Dir::State::status=/dev/null",
    "-o", "Dir::Cache::pkgcache=",
    "-o", "Dir::Cache::srcpkgcache=",
    "-o", "APT::Install-Recommends=false",
    "-o", "APT::Sandbox::User=root",
    "-o", "Acquire::ForceHash=SHA256",
    "-o", "Debug::NoLocking=true",
)  # fmt: skip

ARCHITECTURE = "amd64"


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
    """One file of a package: ``path`` without a leading slash, its mode, its content or where it links
    to."""

    path: str
    mode: int
    content: bytes
    target: str | None = None


def folder() -> Path:
    """Where package files are kept."""
    return paths.cache() / "packages"


def fetch(names: Sequence[str], *, dependencies: bool = True) -> tuple[Package, ...]:
    """The newest packages ``names`` of this distribution, and all they depend on, in the cache.

    What was resolved once stays so until the cache is cleared: a lab does not change under its user because
    apt's lists did. Raises MachineError where apt cannot serve them, BuildError where a checksum is wrong.
    """
    key = sha256(json.dumps([distribution(), list(names), dependencies]).encode()).hexdigest()[:16]
    manifest = folder() / f"resolved-{key}.json"
    if (known := _read(manifest)) is not None:
        return known
    with store.locked("packages"):
        if (known := _read(manifest)) is not None:
            return known
        packages = _download(_action(names, dependencies))
        store.write(manifest, json.dumps([asdict(package) for package in packages], indent=1).encode())
    return packages


def depends_on(name: str, wanted: re.Pattern[str]) -> str:
    """The first package matching ``wanted`` that the newest (meta) package ``name`` depends on.

    Remembered like what ``fetch`` resolves. Raises MachineError where this distribution has no such package.
    """
    memory = folder() / f"meta-{distribution()}-{name}"
    if memory.exists():
        return memory.read_text()
    shown = _with_lists(["apt-cache", *_OWN_VIEW, "--no-all-versions", "show", name]).decode()
    for line in shown.splitlines():
        for part in line.removeprefix("Depends:").split(",") if line.startswith("Depends:") else ():
            if wanted.match(part.strip()):
                store.write(memory, part.split()[0].encode())
                return part.split()[0]
    raise MachineError(f"{distribution()} has no package {name} that brings {wanted.pattern}")


def forget(name: str) -> None:
    """Forget what ``depends_on`` remembers of ``name``: the archive may have moved on since."""
    (folder() / f"meta-{distribution()}-{name}").unlink(missing_ok=True)


def members(package: Path, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The files and symbolic links of a package whose path (no leading ``./``) is ``wanted``."""
    import tarfile  # only to make what most starts find in the cache

    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        stream = cast(IO[bytes], process.stdout)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for entry in archive:
                    path = entry.name.removeprefix("./")
                    if not wanted(path):
                        continue
                    mode = stat.S_IMODE(entry.mode)
                    if entry.issym():
                        yield Member(path, mode, b"", entry.linkname)
                    elif entry.islnk():
                        yield Member(path, mode, b"", "/" + entry.linkname.removeprefix("./"))
                    elif entry.isfile():
                        content = archive.extractfile(entry)
                        yield Member(path, mode, content.read() if content else b"")
                stream.read()
        except tarfile.TarError as broken:
            raise BuildError(f"{package} is not a whole Debian package: {broken}") from None
        if process.wait() != 0:
            said = cast(IO[bytes], process.stderr).read().decode(errors="replace").strip()
            raise BuildError(f"{package} is not a whole Debian package", said)


def distribution() -> str:
    """Which distribution's packages these are, such as ``debian-12``. Raises MachineError where it has
    no apt."""
    fields = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name in ("ID", "VERSION_ID", "PRETTY_NAME"):
            fields[name] = "".join(shlex.split(value))
    if not Path("/usr/bin/apt-get").exists():
        raise MachineError(
            f"{fields.get('PRETTY_NAME', 'this distribution')} has no apt",
            "guest images are made of Debian's packages: use Debian 12 or later",
        )
    return f"{fields.get('ID', 'unknown')}-{fields.get('VERSION_ID', 'unknown')}"


def _read(manifest: Path) -> tuple[Package, ...] | None:
    try:
        packages = tuple(Package(**row) for row in json.loads(manifest.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    place = folder()  # once: these are a hundred packages
    return packages if all((place / package.file).exists() for package in packages) else None


def _action(names: Sequence[str], dependencies: bool) -> list[str]:
    return ["install", "-y", *names] if dependencies else ["download", *names]


def _download(action: list[str]) -> tuple[Package, ...]:
    folder().mkdir(parents=True, exist_ok=True)
    # With archives nowhere: apt does not list what it finds in its archives already.
    nowhere = ["-o", "Dir::Cache::archives=/nonexistent"]
    listed = _with_lists(["apt-get", *_OWN_VIEW, *nowhere, "-qq", "--print-uris", *action])
    packages = tuple(_listed(line) for line in listed.decode().splitlines() if line.startswith("'"))
    missing = [package for package in packages if not package.path.exists()]
    if missing:
        log.info("downloading %s", _counted(missing))
        (folder() / "partial").mkdir(exist_ok=True)
        where = ["-o", f"Dir::Cache::archives={folder()}"]
        only = ["--download-only"] if action[0] == "install" else []
        _apt(["apt-get", *_OWN_VIEW, *where, "-qq", *only, *action])
    for package in missing:
        if not package.path.exists():
            raise BuildError(f"apt did not deliver {package.file}")
        if store.sha256(package.path) != package.sha256:
            package.path.unlink()
            raise BuildError(
                f"{package.file} does not have the checksum that its archive names", "try again"
            )
    return packages


def _counted(packages: Sequence[Package]) -> str:
    if len(packages) == 1:
        return f"the package {packages[0].name} {packages[0].version}"
    return f"{len(packages)} packages of {distribution()}, {packages[-1].name} among them"


def _listed(line: str) -> Package:
    """One line of ``apt-get --print-uris``: ``'URI' FILE SIZE SHA256:SUM``."""
    _, file, _, checksum = shlex.split(line)
    return Package(file, checksum.removeprefix("SHA256:"))


def _with_lists(command: list[str]) -> bytes:
    """Run an apt command; where it fails, once more with new lists: old or missing ones are the usual
    reason."""
    try:
        return _apt(command)
    except MachineError:
        _apt(["apt-get", "-qq", "update"])
        return _apt(command)


def _apt(command: list[str]) -> bytes:
    try:
        return run(command, cwd=folder() if folder().is_dir() else None, env={"LC_ALL": "C.UTF-8"}).stdout
    except CommandFailed as failed:
        raise MachineError(
            f"apt cannot get what a guest is made of: {failed.message}", failed.hint
        ) from None
