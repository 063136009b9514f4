"""The servers that run on Mininet hosts, taken out of the distribution's packages into one archive.

They are not installed: Debian's packages would start them on the user's machine, now and at every boot.
"""

from __future__ import annotations

import io
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.build import packages, store, userland

PACKAGES = ("nginx",)
PROGRAMS = ("usr/sbin/nginx",)


def bundle() -> Path:
    """A tar archive of the servers and the libraries they load, from the cache or made now."""
    sources = packages.fetch(PACKAGES)
    recipe = [Path(room).read_text() for room in (__file__, userland.__file__)]
    parts = [*sorted(source.sha256 for source in sources), *recipe]
    key = sha256("\0".join(parts).encode()).hexdigest()[:16]
    path = paths.cache() / "servers" / f"{key}.tar"
    if not path.exists():
        with store.locked("servers"):
            if not path.exists():
                store.write(path, _archive(sources))
    return path


def _archive(sources: tuple[packages.Package, ...]) -> bytes:
    import tarfile  # only to make what most starts find in the cache

    files = userland.files_of(sources, lambda path: path.startswith("usr/sbin/nginx") or "lib" in path)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, member in sorted(userland.closure(files, PROGRAMS).items()):
            entry = tarfile.TarInfo(path)
            entry.mode = member.mode
            if member.target is None:
                entry.size = len(member.content)
                archive.addfile(entry, io.BytesIO(member.content))
            else:
                # Links between libraries stay inside the archive even where the package made them absolute.
                entry.type, entry.linkname = tarfile.SYMTYPE, _inside(path, member.target)
                archive.addfile(entry)
    return out.getvalue()


def _inside(path: str, target: str) -> str:
    if not target.startswith("/"):
        return target
    return "../" * path.count("/") + userland.merged(target.lstrip("/"))
