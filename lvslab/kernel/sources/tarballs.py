"""Source tarballs in the cache: downloaded once, verified, unpacked.

A tarball gets its place in the cache once it is verified, so all tarballs there are valid. Before that it is
a ``.part`` file beside, which the next attempt continues. What ``insecure`` let pass is kept apart.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from lvslab import paths
from lvslab.cache import download, store
from lvslab.debian import apt_lists, kernels, packages
from lvslab.errors import BuildError, CommandFailed, UsageError
from lvslab.kernel import catalogue
from lvslab.kernel.catalogue import Source
from lvslab.kernel.sources import kernel_org
from lvslab.run import run

log = logging.getLogger("lvslab.progress.tarballs")

MIRROR = "LVSLAB_MIRROR"
_UNVERIFIED = "unverified"
_APT_HELPER = Path("/usr/lib/apt/apt-helper")


def folder() -> Path:
    """Return the folder of verified tarballs."""
    return paths.cache() / "sources"


def get(name: str, *, insecure: bool = False, instead: str = "") -> Path:
    """Return the verified tarball of a source or kernel of the catalogue, in the cache.

    With ``insecure`` one that nothing verifies is taken as well; what a known checksum contradicts never is.
    ``instead`` is what the user may do where nothing verifies it, for the error. Raises UsageError for an
    unknown name, BuildError where it is not available or is not what it should be.
    """
    return fetch(catalogue.source(name), insecure=insecure, instead=instead)


def fetch(source: Source, *, insecure: bool = False, instead: str = "") -> Path:
    """As `get`, for a row of the catalogue."""
    if source.place == "debian-package":
        return _out_of_package(source)
    path = folder() / source.file
    if path.exists():
        return path
    with store.locked(f"source-{source.file}"):
        if path.exists():
            return path
        folder().mkdir(parents=True, exist_ok=True)
        wanted = source.sha256 or _listed(source, insecure, instead)
        if not wanted:
            path = folder() / _UNVERIFIED / source.file
            if path.exists():
                return path
            log.warning("nothing verifies %s", source.file)
        _download(source, path, wanted)
    return path


def present(source: Source) -> bool:
    """Return whether a verified tarball is in the cache."""
    if source.place == "debian-package":
        return any(folder().glob(f"{source.file.removesuffix('.tar.xz')}_*.tar.xz"))
    return (folder() / source.file).exists()


def is_unverified(tarball: Path) -> bool:
    """Return whether nothing verifies a tarball that `get` or `fetch` returned."""
    return tarball.parent == folder() / _UNVERIFIED


def packaged_version(tarball: Path) -> str:
    """Return the Linux release in a Debian package's tarball: 6.1.176 of ``..._6.1.176-1``."""
    return tarball.name.rpartition("_")[2].removesuffix(".tar.xz").rpartition("-")[0]


def mirrors() -> tuple[str, ...]:
    """Return the user's own mirrors (LVSLAB_MIRROR), each with a slash at its end. Raises UsageError."""
    found = os.environ.get(MIRROR, "").split()
    for mirror in found:
        if not re.match(r"(https?://[^/]|file:///)", mirror):
            raise UsageError(
                f"{MIRROR} has '{mirror}', which is not a URL",
                "give URLs that begin with http://, https:// or file:///, with blanks between them",
            )
    return tuple(mirror.rstrip("/") + "/" for mirror in found)


def unpack(tarball: Path, folder: Path) -> Path:
    """Make ``folder`` the top folder of ``tarball``, at once or not at all.

    Raises BuildError; a tarball that nothing verifies is deleted then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        place = Path(made) / "unpacked"
        place.mkdir()
        try:
            run(["tar", "--extract", "--no-same-owner", "--file", tarball, "--directory", place])
        except CommandFailed as failed:
            hints = [failed.hint]
            if is_unverified(tarball):
                # It may be no tarball at all, and nothing else would ever replace it.
                tarball.unlink(missing_ok=True)
                hints.append("nothing vouched for it, and it is deleted: the next try downloads it again")
            raise BuildError(f"{tarball} cannot be unpacked", "\n  ".join(filter(None, hints))) from None
        inside = list(place.iterdir())
        top = inside[0] if len(inside) == 1 and inside[0].is_dir() else place
        if folder.exists():
            folder.rename(Path(made) / "old")
        top.rename(folder)
    return folder


def urls(source: Source) -> Iterator[str]:
    """Yield the possible URLs of a tarball.

    First the user's mirrors, as in the original's tree or flat, then the original.
    """
    path = quote(source.path)
    for mirror in mirrors():
        yield mirror + path
        yield mirror + quote(source.file)
    originals = kernel_org.MIRRORS if source.place == "kernel.org" else apt_lists.pools()
    yield from (original + path for original in originals)


def _listed(source: Source, insecure: bool, instead: str) -> str:
    """Return the checksum in kernel.org's signed list; "" for none if ``insecure``."""
    try:
        if source.place != "kernel.org":
            raise kernel_org.Unlisted(f"nothing verifies {source.file}")
        return kernel_org.checksum(source.path, extra=mirrors())
    except kernel_org.Unlisted as failed:
        if insecure:
            return ""
        raise kernel_org.Unlisted(
            failed.message, "\n  ".join(filter(None, (failed.hint, instead)))
        ) from None


def _download(source: Source, path: Path, wanted: str) -> None:
    """Download the tarball to ``path``.

    A damaged one is downloaded once more, if a part of it was old or it came from another mirror.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = folder() / f"{source.file}.part"
    problems: list[str] = []
    for url in urls(source):
        for _ in range(2):
            resumed = part.exists()
            try:
                log.info("downloading %s", url)
                _bring(url, part, wanted)
            except (download.NotThere, download.Unreachable) as problem:
                problems.append(problem.message)
                break
            if not wanted or (found := store.sha256(part)) == wanted:
                with part.open("rb") as stream:
                    os.fsync(stream.fileno())
                part.rename(path)
                return
            part.unlink()
            problems.append(f"what {url} has is not {source.file}: its SHA-256 is {found}, not {wanted}")
            if not resumed:
                break
    hint = "\n  ".join([*dict.fromkeys(problems), f"{MIRROR} may name mirrors of your own"])
    raise BuildError(f"{source.file} is not available", hint)


def _bring(url: str, part: Path, wanted: str) -> None:
    if wanted and _APT_HELPER.exists() and url.startswith(apt_lists.pools()):
        # apt knows the machine's proxies. It goes on with a part by itself.
        words = ("-o", "APT::Sandbox::User=root", "download-file", url, part, f"SHA256:{wanted}")
        try:
            run([_APT_HELPER, *words])
        except CommandFailed as failed:
            raise download.Unreachable(f"apt cannot get {url}: {failed.hint or failed.message}") from None
        part.chmod(0o644)
    else:
        download.fetch(url, part)


def _out_of_package(source: Source) -> Path:
    """Return the tarball in a Debian package, which apt has verified."""
    package = kernels.package(source.release, source.package)
    stem, version = source.file.removesuffix(".tar.xz"), package.version.replace(":", "%3a")
    path = folder() / f"{stem}_{version}.tar.xz"
    if not path.exists():
        log.info("unpacking %s", package.file)
        with store.appearing(path) as stream:
            packages.copy_member(package.path, source.inside, stream)
    return path
