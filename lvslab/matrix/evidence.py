"""Evidence of a cell as it travels: one archive of the files in its folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def packed(folder: Path) -> bytes:
    """The regular files in ``folder`` as a compressed tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                archive.add(file, file.relative_to(folder))
    return out.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Put the regular files of such an archive into ``folder``, and none of them anywhere else."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            path = (folder / member.name).resolve()
            source = archive.extractfile(member) if member.isreg() else None
            if source is not None and path.is_relative_to(folder.resolve()):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read())
