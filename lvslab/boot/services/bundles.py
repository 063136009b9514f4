"""Archives of the servers on Mininet hosts, made from the distribution's packages.

The packages are not installed: Debian's would start servers on the user's machine, now and at every boot.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from lvslab import paths
from lvslab.boot.services.programs import Bundle
from lvslab.boot.services.servers import SERVERS
from lvslab.cache import store
from lvslab.debian import libraries, packages

_FORMAT = 1
"""Version of the code that makes archives: raise it when the same packages give other bytes."""


def bundles(kinds: Iterable[str]) -> dict[str, Path]:
    """Return tar archives of the servers and their libraries, by kind of service.

    Those that the cache lacks are made now. Raises BuildError, MachineError; the latter also where this
    machine cannot run one of them.
    """
    servers = {kind: SERVERS[kind] for kind in sorted(set(kinds))}
    for server in servers.values():
        server.check_machine()
    return {kind: _archived(server.bundle) for kind, server in servers.items() if server.bundle}


def _archived(bundle: Bundle) -> Path:
    sources = packages.fetch(bundle.packages)
    parts = [str(_FORMAT), *bundle.programs, *sorted(source.sha256 for source in sources)]
    key = sha256("\0".join(parts).encode()).hexdigest()[:16]
    path = paths.cache() / "servers" / f"{key}.tar"
    if not path.exists():
        with store.locked("servers"):
            if not path.exists():
                store.write(path, _archive(sources, bundle.programs))
    return path


def _archive(sources: tuple[packages.Package, ...], programs: tuple[str, ...]) -> bytes:
    import tarfile  # only where the cache lacks the archive

    files = libraries.files_of(sources, lambda path: path in programs or "lib" in path)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, member in sorted(libraries.closure(files, programs).items()):
            entry = tarfile.TarInfo(path)
            entry.mode = member.mode
            if member.target is None:
                entry.size = len(member.content)
                archive.addfile(entry, io.BytesIO(member.content))
                continue
            entry.type, entry.linkname = tarfile.SYMTYPE, member.target
            if member.target.startswith("/"):
                # Links between libraries stay inside the archive, even where the package's are absolute.
                entry.linkname = "../" * path.count("/") + libraries.merged(member.target.lstrip("/"))
            archive.addfile(entry)
    return out.getvalue()
