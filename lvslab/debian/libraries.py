"""Programs from the distribution's packages, with the libraries that they load and nothing else."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from lvslab.debian import packages
from lvslab.errors import BuildError

LOADER = "usr/lib64/ld-linux-x86-64.so.2"


def files_of(
    sources: Sequence[packages.Package], wanted: Callable[[str], bool]
) -> dict[str, packages.Member]:
    """Return the ``wanted`` files of packages, by their path in a merged ``/usr``."""
    return {
        merged(member.path): member
        for package in sources
        for member in packages.members(package.path, wanted)
    }


def merged(path: str) -> str:
    """Return a package's path in a system whose ``/bin`` and ``/lib`` are links into ``/usr``."""
    first = path.split("/")[0]
    return f"usr/{path}" if first in ("bin", "sbin", "lib", "lib64") else path


def closure(
    files: Mapping[str, packages.Member], wanted: Sequence[str], *, complete: bool = True
) -> dict[str, packages.Member]:
    """Return the ``wanted`` files, the targets of their links, and all libraries that they load.

    Raises BuildError where one of them is in none of the packages. Unless the result is to be ``complete``,
    libraries may be missing: a package suggests those that only a plugin of it loads.
    """
    libraries = {PurePosixPath(path).name: path for path in files if ".so" in PurePosixPath(path).name}
    queue = [LOADER, *wanted]
    found: dict[str, packages.Member] = {}
    while queue:
        path = queue.pop()
        if path in found:
            continue
        if path not in files:
            raise BuildError(f"/{path} is in none of the packages that were fetched for it")
        member = found[path] = files[path]
        if member.target is not None:
            target = os.path.normpath(os.path.join("/", os.path.dirname(path), member.target))
            queue.append(merged(target.lstrip("/")))
        for library in needed_libraries(member.content):
            if library not in libraries:
                if not complete:
                    continue
                raise BuildError(f"/{path} needs {library}, which is in none of the packages")
            queue.append(libraries[library])
    return found


def needed_libraries(content: bytes) -> tuple[str, ...]:
    """Return the names of the shared libraries that an ELF file needs."""
    # Only where an image is made; most starts find it in the cache.
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    try:
        dynamic = ELFFile(io.BytesIO(content)).get_section_by_name(".dynamic")
    except ELFError:
        return ()
    if not isinstance(dynamic, DynamicSection):
        return ()
    return tuple(str(tag.needed) for tag in dynamic.iter_tags("DT_NEEDED"))  # type: ignore[attr-defined]
