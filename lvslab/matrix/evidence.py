"""Evidence of a cell as one archive, to be sent between machines."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def packed(folder: Path) -> bytes:
    """Pack the regular files in ``folder`` into a compressed tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                archive.add(file, file.relative_to(folder))
    return out.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Extract the regular files of such an archive into ``folder``, and none outside of it."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = (folder / member.name).resolve()
            source = archive.extractfile(member) if member.isreg() else None
            if source is not None and path.is_relative_to(folder.resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read())
